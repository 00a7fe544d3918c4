bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/grmlfullamd64/vmlinuz boot=live components fetch=http://192.0.2.1/files/m/live/grml-full-amd64/grml-full-amd64.squashfs BOOTIF=01-52-54-00-12-34-56 initrd=initrd.img
initrd --name initrd.img http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/grmlfullamd64/initrd.img
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/grmlfullamd64/vmlinuz boot=live components fetch=http://192.0.2.1/files/m/live/grml-full-amd64/grml-full-amd64.squashfs BOOTIF=01-52-54-00-12-34-56 initrd=initrd.img
initrd --name initrd.img http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/grmlfullamd64/initrd.img
