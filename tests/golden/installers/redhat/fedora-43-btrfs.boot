bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/vmlinuz inst.repo=http://192.0.2.1/files/m ip=dhcp BOOTIF=01-52-54-00-12-34-56 inst.ks=http://192.0.2.1/b/00000000000000000000000000000000/answer/ks.cfg initrd=initrd.img
initrd --name initrd.img http://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/initrd.img
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/vmlinuz inst.repo=http://192.0.2.1/files/m ip=dhcp BOOTIF=01-52-54-00-12-34-56 inst.ks=http://192.0.2.1/b/00000000000000000000000000000000/answer/ks.cfg initrd=initrd.img
initrd --name initrd.img http://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/initrd.img
