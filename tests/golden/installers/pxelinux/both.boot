bios
set 210:string http://192.0.2.1/files/m/
echo Its menu is in http://192.0.2.1/files/m/pxelinux.cfg
chain http://192.0.2.1/files/m/pxelinux.0
uefi
set 210:string http://192.0.2.1/files/m/
echo Its menu is in http://192.0.2.1/files/m/pxelinux.cfg
chain http://192.0.2.1/files/m/syslinux.efi
echo syslinux.efi has ended
