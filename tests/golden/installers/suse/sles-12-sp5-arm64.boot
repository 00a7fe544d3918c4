uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/aarch64/linux BOOTIF=01-52-54-00-12-34-56 netsetup=dhcp install=http://192.0.2.1/files/m initrd=initrd
initrd --name initrd http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/aarch64/initrd
