uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/aarch64/loader/linux root=live:http://192.0.2.1/files/m/LiveOS/squashfs.img ip=dhcp rd.neednet=1 inst.script=http://192.0.2.1/b/00000000000000000000000000000000/answer/agama.sh inst.auto=file:///run/pilotlight.json initrd=initrd
initrd --name initrd http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/aarch64/loader/initrd
