bios
set 210:string http://192.0.2.1/files/m/
set 209:string http://192.0.2.1/b/00000000000000000000000000000000/answer/pxelinux.cfg
chain http://192.0.2.1/files/tools/pxelinux-3.86.0
sleep 30
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/efi/boot/bootx64.efi -c http://192.0.2.1/b/00000000000000000000000000000000/answer/boot.cfg
