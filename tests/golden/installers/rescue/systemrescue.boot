bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/sysresccd/boot/x86_64/vmlinuz archisobasedir=sysresccd archiso_http_srv=http://192.0.2.1/files/m/ checksum ip=dhcp BOOTIF=01-52-54-00-12-34-56 initrd=sysresccd.img
initrd --name sysresccd.img http://192.0.2.1/b/00000000000000000000000000000000/files/m/sysresccd/boot/x86_64/sysresccd.img
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/sysresccd/boot/x86_64/vmlinuz archisobasedir=sysresccd archiso_http_srv=http://192.0.2.1/files/m/ checksum ip=dhcp BOOTIF=01-52-54-00-12-34-56 initrd=sysresccd.img
initrd --name sysresccd.img http://192.0.2.1/b/00000000000000000000000000000000/files/m/sysresccd/boot/x86_64/sysresccd.img
