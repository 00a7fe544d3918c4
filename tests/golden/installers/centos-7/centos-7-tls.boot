bios
kernel https://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/vmlinuz inst.repo=http://192.0.2.1/files/m ip=dhcp BOOTIF=01-52-54-00-12-34-56 inst.ks=file:///ks.cfg initrd=initrd.magic
initrd --name initrd.img https://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/initrd.img
initrd --name ks.cfg https://192.0.2.1/b/00000000000000000000000000000000/answer/ks.cfg /ks.cfg
uefi
kernel https://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/vmlinuz inst.repo=http://192.0.2.1/files/m ip=dhcp BOOTIF=01-52-54-00-12-34-56 inst.ks=file:///ks.cfg initrd=initrd.magic
initrd --name initrd.img https://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/initrd.img
initrd --name ks.cfg https://192.0.2.1/b/00000000000000000000000000000000/answer/ks.cfg /ks.cfg
