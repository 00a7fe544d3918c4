bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/tools/wimboot
initrd --name BCD http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/bcd BCD
initrd --name boot.sdi http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/boot.sdi boot.sdi
initrd --name boot.wim http://192.0.2.1/b/00000000000000000000000000000000/files/m/sources/boot.wim boot.wim
initrd --name winpeshl.ini http://192.0.2.1/b/00000000000000000000000000000000/answer/winpeshl.ini winpeshl.ini
initrd --name start.cmd http://192.0.2.1/b/00000000000000000000000000000000/answer/start.cmd start.cmd
initrd --name get.vbs http://192.0.2.1/b/00000000000000000000000000000000/answer/get.vbs get.vbs
initrd --name pick.vbs http://192.0.2.1/b/00000000000000000000000000000000/answer/pick.vbs pick.vbs
initrd --name autounattend.xml http://192.0.2.1/b/00000000000000000000000000000000/answer/autounattend.xml autounattend.xml
initrd --name curl.exe http://192.0.2.1/b/00000000000000000000000000000000/files/tools/curl.exe curl.exe
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/tools/wimboot
initrd --name BCD http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/bcd BCD
initrd --name boot.sdi http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/boot.sdi boot.sdi
initrd --name boot.wim http://192.0.2.1/b/00000000000000000000000000000000/files/m/sources/boot.wim boot.wim
initrd --name winpeshl.ini http://192.0.2.1/b/00000000000000000000000000000000/answer/winpeshl.ini winpeshl.ini
initrd --name start.cmd http://192.0.2.1/b/00000000000000000000000000000000/answer/start.cmd start.cmd
initrd --name get.vbs http://192.0.2.1/b/00000000000000000000000000000000/answer/get.vbs get.vbs
initrd --name pick.vbs http://192.0.2.1/b/00000000000000000000000000000000/answer/pick.vbs pick.vbs
initrd --name autounattend.xml http://192.0.2.1/b/00000000000000000000000000000000/answer/autounattend.xml autounattend.xml
initrd --name curl.exe http://192.0.2.1/b/00000000000000000000000000000000/files/tools/curl.exe curl.exe
