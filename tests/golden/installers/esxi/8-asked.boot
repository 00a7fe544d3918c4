bios
set 210:string http://192.0.2.1/files/m/
set 209:string http://192.0.2.1/b/00000000000000000000000000000000/answer/pxelinux.cfg
echo ESXi on BIOS wants pxelinux.0 of SYSLINUX 3.86: parts in its profile names it
sleep 30
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/efi/boot/bootx64.efi -c http://192.0.2.1/b/00000000000000000000000000000000/answer/boot.cfg
