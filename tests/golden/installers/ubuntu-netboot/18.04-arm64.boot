uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/install/netboot/ubuntu-installer/arm64/linux mirror/country=manual mirror/protocol=http mirror/http/hostname=192.0.2.1 mirror/http/directory=/files/m mirror/http/proxy= live-installer/net-image=http://192.0.2.1/files/m/install/filesystem.squashfs initrd=initrd.gz
initrd --name initrd.gz http://192.0.2.1/b/00000000000000000000000000000000/files/m/install/netboot/ubuntu-installer/arm64/initrd.gz
