bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/vmlinuz coreos.live.rootfs_url=http://192.0.2.1/files/m/images/pxeboot/rootfs.img ip=dhcp rd.neednet=1 ignition.firstboot ignition.platform.id=metal ignition.config.url=http://192.0.2.1/b/00000000000000000000000000000000/answer/live.ign initrd=initrd.img
initrd --name initrd.img http://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/initrd.img
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/vmlinuz coreos.live.rootfs_url=http://192.0.2.1/files/m/images/pxeboot/rootfs.img ip=dhcp rd.neednet=1 ignition.firstboot ignition.platform.id=metal ignition.config.url=http://192.0.2.1/b/00000000000000000000000000000000/answer/live.ign initrd=initrd.img
initrd --name initrd.img http://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/initrd.img
