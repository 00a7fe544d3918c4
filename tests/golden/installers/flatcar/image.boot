bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/flatcar/vmlinuz flatcar.first_boot=1 ignition.config.url=http://192.0.2.1/b/00000000000000000000000000000000/answer/live.ign initrd=cpio.gz
initrd --name cpio.gz http://192.0.2.1/b/00000000000000000000000000000000/files/m/flatcar/cpio.gz
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/flatcar/vmlinuz flatcar.first_boot=1 ignition.config.url=http://192.0.2.1/b/00000000000000000000000000000000/answer/live.ign initrd=cpio.gz
initrd --name cpio.gz http://192.0.2.1/b/00000000000000000000000000000000/files/m/flatcar/cpio.gz
