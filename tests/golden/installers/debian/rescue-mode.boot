bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/mirror/debian/dists/trixie/main/installer-amd64/current/images/netboot/debian-installer/amd64/linux mirror/country=manual mirror/protocol=http mirror/http/hostname=192.0.2.1 mirror/http/directory=/mirror/debian apt-setup/security_host=192.0.2.1/mirror rescue/enable=true initrd=initrd.gz
initrd --name initrd.gz http://192.0.2.1/b/00000000000000000000000000000000/mirror/debian/dists/trixie/main/installer-amd64/current/images/netboot/debian-installer/amd64/initrd.gz
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/mirror/debian/dists/trixie/main/installer-amd64/current/images/netboot/debian-installer/amd64/linux mirror/country=manual mirror/protocol=http mirror/http/hostname=192.0.2.1 mirror/http/directory=/mirror/debian apt-setup/security_host=192.0.2.1/mirror rescue/enable=true initrd=initrd.gz
initrd --name initrd.gz http://192.0.2.1/b/00000000000000000000000000000000/mirror/debian/dists/trixie/main/installer-amd64/current/images/netboot/debian-installer/amd64/initrd.gz
