bios
kernel https://192.0.2.1/b/00000000000000000000000000000000/files/m/flatcar/vmlinuz flatcar.first_boot=1  initrd=initrd.magic
initrd --name cpio.gz https://192.0.2.1/b/00000000000000000000000000000000/files/m/flatcar/cpio.gz
initrd --name live.ign https://192.0.2.1/b/00000000000000000000000000000000/answer/live.ign /usr/share/oem/config.ign mkdir=-1
uefi
kernel https://192.0.2.1/b/00000000000000000000000000000000/files/m/flatcar/vmlinuz flatcar.first_boot=1  initrd=initrd.magic
initrd --name cpio.gz https://192.0.2.1/b/00000000000000000000000000000000/files/m/flatcar/cpio.gz
initrd --name live.ign https://192.0.2.1/b/00000000000000000000000000000000/answer/live.ign /usr/share/oem/config.ign mkdir=-1
