bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/mirror/alpine/v3.23/releases/x86_64/netboot/vmlinuz-lts ip=dhcp modules=loop,squashfs modloop=http://192.0.2.1/mirror/alpine/v3.23/releases/x86_64/netboot/modloop-lts alpine_repo=http://192.0.2.1/mirror/alpine/v3.23/main ds=nocloud;s=http://192.0.2.1/b/00000000000000000000000000000000/answer initrd=initramfs-lts
initrd --name initramfs-lts http://192.0.2.1/b/00000000000000000000000000000000/mirror/alpine/v3.23/releases/x86_64/netboot/initramfs-lts
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/mirror/alpine/v3.23/releases/x86_64/netboot/vmlinuz-lts ip=dhcp modules=loop,squashfs modloop=http://192.0.2.1/mirror/alpine/v3.23/releases/x86_64/netboot/modloop-lts alpine_repo=http://192.0.2.1/mirror/alpine/v3.23/main ds=nocloud;s=http://192.0.2.1/b/00000000000000000000000000000000/answer initrd=initramfs-lts
initrd --name initramfs-lts http://192.0.2.1/b/00000000000000000000000000000000/mirror/alpine/v3.23/releases/x86_64/netboot/initramfs-lts
