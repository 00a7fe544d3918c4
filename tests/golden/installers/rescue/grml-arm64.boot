uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/grmlfullarm64/vmlinuz boot=live components fetch=http://192.0.2.1/files/m/live/grml-full-arm64/grml-full-arm64.squashfs BOOTIF=01-52-54-00-12-34-56 initrd=initrd.img
initrd --name initrd.img http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/grmlfullarm64/initrd.img
