bios
set 210:string http://192.0.2.1/files/m/
set 209:string pxelinux.cfg/lab
chain http://192.0.2.1/files/m/lpxelinux.0
uefi
set 210:string http://192.0.2.1/files/m/
set 209:string pxelinux.cfg/lab
echo This pxelinux is for BIOS alone. UEFI wants syslinux.efi and ldlinux.e64 beside lpxelinux.0
sleep 30
