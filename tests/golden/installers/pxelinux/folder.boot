bios
set 210:string http://192.0.2.1/files/m/
echo Its menu is in http://192.0.2.1/files/m/pxelinux.cfg
chain http://192.0.2.1/files/m/pxelinux.0
uefi
set 210:string http://192.0.2.1/files/m/
echo Its menu is in http://192.0.2.1/files/m/pxelinux.cfg
echo This pxelinux is for BIOS alone. UEFI wants syslinux.efi and ldlinux.e64 beside pxelinux.0
sleep 30
