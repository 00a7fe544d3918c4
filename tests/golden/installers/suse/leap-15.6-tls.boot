bios
kernel https://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/x86_64/loader/linux BOOTIF=01-52-54-00-12-34-56 netsetup=dhcp install=http://192.0.2.1/files/m self_update=0 autoyast=file:///autoinst.xml initrd=initrd.magic
initrd --name initrd https://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/x86_64/loader/initrd
initrd --name pre.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/pre.sh /pre.sh
initrd --name autoinst.xml https://192.0.2.1/b/00000000000000000000000000000000/answer/autoinst.xml /autoinst.xml
initrd --name pick.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/pick.sh /pick.sh
initrd --name end.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/end.sh /end.sh
uefi
kernel https://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/x86_64/loader/linux BOOTIF=01-52-54-00-12-34-56 netsetup=dhcp install=http://192.0.2.1/files/m self_update=0 autoyast=file:///autoinst.xml initrd=initrd.magic
initrd --name initrd https://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/x86_64/loader/initrd
initrd --name pre.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/pre.sh /pre.sh
initrd --name autoinst.xml https://192.0.2.1/b/00000000000000000000000000000000/answer/autoinst.xml /autoinst.xml
initrd --name pick.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/pick.sh /pick.sh
initrd --name end.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/end.sh /end.sh
