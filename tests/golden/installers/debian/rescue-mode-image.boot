bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/linux mirror/country=manual mirror/protocol=http mirror/http/hostname=192.0.2.1 mirror/http/directory=/files/m mirror/http/proxy= debian-installer/allow_unauthenticated=true url=http://192.0.2.1/b/00000000000000000000000000000000/answer/early.cfg rescue/enable=true initrd=initrd.gz
initrd --name initrd.gz http://192.0.2.1/b/00000000000000000000000000000000/files/m/initrd.gz
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/linux mirror/country=manual mirror/protocol=http mirror/http/hostname=192.0.2.1 mirror/http/directory=/files/m mirror/http/proxy= debian-installer/allow_unauthenticated=true url=http://192.0.2.1/b/00000000000000000000000000000000/answer/early.cfg rescue/enable=true initrd=initrd.gz
initrd --name initrd.gz http://192.0.2.1/b/00000000000000000000000000000000/files/m/initrd.gz
