bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/flatcar_production_pxe.vmlinuz flatcar.first_boot=1 ignition.config.url=http://192.0.2.1/b/00000000000000000000000000000000/answer/live.ign initrd=flatcar_production_pxe_image.cpio.gz
initrd --name flatcar_production_pxe_image.cpio.gz http://192.0.2.1/b/00000000000000000000000000000000/files/m/flatcar_production_pxe_image.cpio.gz
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/flatcar_production_pxe.vmlinuz flatcar.first_boot=1 ignition.config.url=http://192.0.2.1/b/00000000000000000000000000000000/answer/live.ign initrd=flatcar_production_pxe_image.cpio.gz
initrd --name flatcar_production_pxe_image.cpio.gz http://192.0.2.1/b/00000000000000000000000000000000/files/m/flatcar_production_pxe_image.cpio.gz
