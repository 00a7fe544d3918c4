uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/vmlinuz-lts ip=dhcp BOOTIF=01-52-54-00-12-34-56 modules=loop,squashfs modloop=http://192.0.2.1/files/m/boot/modloop-lts alpine_repo=http://192.0.2.1/files/m/apks ds=nocloud;s=http://192.0.2.1/b/00000000000000000000000000000000/answer initrd=initramfs-lts
initrd --name initramfs-lts http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/initramfs-lts
