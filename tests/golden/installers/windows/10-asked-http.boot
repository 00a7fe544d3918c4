bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/tools/wimboot
initrd --name BCD http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/bcd BCD
initrd --name boot.sdi http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/boot.sdi boot.sdi
initrd --name boot.wim http://192.0.2.1/b/00000000000000000000000000000000/files/m/sources/boot.wim boot.wim
initrd --name winpeshl.ini http://192.0.2.1/b/00000000000000000000000000000000/answer/winpeshl.ini winpeshl.ini
initrd --name start.cmd http://192.0.2.1/b/00000000000000000000000000000000/answer/start.cmd start.cmd
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/tools/wimboot
initrd --name BCD http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/bcd BCD
initrd --name boot.sdi http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/boot.sdi boot.sdi
initrd --name boot.wim http://192.0.2.1/b/00000000000000000000000000000000/files/m/sources/boot.wim boot.wim
initrd --name winpeshl.ini http://192.0.2.1/b/00000000000000000000000000000000/answer/winpeshl.ini winpeshl.ini
initrd --name start.cmd http://192.0.2.1/b/00000000000000000000000000000000/answer/start.cmd start.cmd
