bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/x86_64/loader/linux root=live:http://192.0.2.1/files/m/LiveOS/squashfs.img ip=dhcp rd.neednet=1 initrd=initrd
initrd --name initrd http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/x86_64/loader/initrd
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/x86_64/loader/linux root=live:http://192.0.2.1/files/m/LiveOS/squashfs.img ip=dhcp rd.neednet=1 initrd=initrd
initrd --name initrd http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/x86_64/loader/initrd
