bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/mirror/arch/iso/latest/arch/boot/x86_64/vmlinuz-linux archisobasedir=arch archiso_http_srv=http://192.0.2.1/mirror/arch/iso/latest/ cms_verify=y ip=dhcp BOOTIF=01-52-54-00-12-34-56 net.ifnames=0 script=http://192.0.2.1/b/00000000000000000000000000000000/answer/install.sh initrd=initramfs-linux.img
initrd --name initramfs-linux.img http://192.0.2.1/b/00000000000000000000000000000000/mirror/arch/iso/latest/arch/boot/x86_64/initramfs-linux.img
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/mirror/arch/iso/latest/arch/boot/x86_64/vmlinuz-linux archisobasedir=arch archiso_http_srv=http://192.0.2.1/mirror/arch/iso/latest/ cms_verify=y ip=dhcp BOOTIF=01-52-54-00-12-34-56 net.ifnames=0 script=http://192.0.2.1/b/00000000000000000000000000000000/answer/install.sh initrd=initramfs-linux.img
initrd --name initramfs-linux.img http://192.0.2.1/b/00000000000000000000000000000000/mirror/arch/iso/latest/arch/boot/x86_64/initramfs-linux.img
