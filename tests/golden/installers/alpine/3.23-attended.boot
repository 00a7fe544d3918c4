bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/vmlinuz-virt ip=dhcp BOOTIF=01-52-54-00-12-34-56 modules=loop,squashfs modloop=http://192.0.2.1/files/m/boot/modloop-virt alpine_repo=http://192.0.2.1/files/m/apks initrd=initramfs-virt
initrd --name initramfs-virt http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/initramfs-virt
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/vmlinuz-virt ip=dhcp BOOTIF=01-52-54-00-12-34-56 modules=loop,squashfs modloop=http://192.0.2.1/files/m/boot/modloop-virt alpine_repo=http://192.0.2.1/files/m/apks initrd=initramfs-virt
initrd --name initramfs-virt http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/initramfs-virt
