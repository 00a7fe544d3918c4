bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/casper/vmlinuz root=/dev/ram0 ip=dhcp cloud-config-url=/dev/null url=http://192.0.2.1/image/m.iso autoinstall ds=nocloud;s=http://192.0.2.1/b/00000000000000000000000000000000/answer/ initrd=initrd
initrd --name initrd http://192.0.2.1/b/00000000000000000000000000000000/files/m/casper/initrd
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/casper/vmlinuz root=/dev/ram0 ip=dhcp cloud-config-url=/dev/null url=http://192.0.2.1/image/m.iso autoinstall ds=nocloud;s=http://192.0.2.1/b/00000000000000000000000000000000/answer/ initrd=initrd
initrd --name initrd http://192.0.2.1/b/00000000000000000000000000000000/files/m/casper/initrd
