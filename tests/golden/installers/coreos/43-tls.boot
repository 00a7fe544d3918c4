bios
kernel https://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/vmlinuz coreos.live.rootfs_url=http://192.0.2.1/files/m/images/pxeboot/rootfs.img ip=dhcp rd.neednet=1 ignition.firstboot ignition.platform.id=metal  initrd=initrd.magic
initrd --name initrd.img https://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/initrd.img
initrd --name live.ign https://192.0.2.1/b/00000000000000000000000000000000/answer/live.ign /config.ign
uefi
kernel https://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/vmlinuz coreos.live.rootfs_url=http://192.0.2.1/files/m/images/pxeboot/rootfs.img ip=dhcp rd.neednet=1 ignition.firstboot ignition.platform.id=metal  initrd=initrd.magic
initrd --name initrd.img https://192.0.2.1/b/00000000000000000000000000000000/files/m/images/pxeboot/initrd.img
initrd --name live.ign https://192.0.2.1/b/00000000000000000000000000000000/answer/live.ign /config.ign
