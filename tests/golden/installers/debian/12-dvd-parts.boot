bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/tools/bookworm/linux mirror/country=manual mirror/protocol=http mirror/http/hostname=192.0.2.1 mirror/http/directory=/files/m mirror/http/proxy= debian-installer/allow_unauthenticated=true  auto=true priority=critical locale=en_US.UTF-8 keymap=us interface=auto BOOTIF=01-52-54-00-12-34-56 hostname=web1  url=http://192.0.2.1/b/00000000000000000000000000000000/answer/preseed.cfg initrd=initrd.gz
initrd --name initrd.gz http://192.0.2.1/b/00000000000000000000000000000000/files/tools/bookworm/initrd.gz
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/tools/bookworm/linux mirror/country=manual mirror/protocol=http mirror/http/hostname=192.0.2.1 mirror/http/directory=/files/m mirror/http/proxy= debian-installer/allow_unauthenticated=true  auto=true priority=critical locale=en_US.UTF-8 keymap=us interface=auto BOOTIF=01-52-54-00-12-34-56 hostname=web1  url=http://192.0.2.1/b/00000000000000000000000000000000/answer/preseed.cfg initrd=initrd.gz
initrd --name initrd.gz http://192.0.2.1/b/00000000000000000000000000000000/files/tools/bookworm/initrd.gz
