bios
kernel https://192.0.2.1/b/00000000000000000000000000000000/files/m/dists/trixie/main/installer-amd64/current/images/netboot/debian-installer/amd64/linux mirror/country=manual mirror/protocol=http mirror/http/hostname=192.0.2.1 mirror/http/directory=/files/m mirror/http/proxy= debian-installer/allow_unauthenticated=true  auto=true priority=critical locale=en_US.UTF-8 keymap=us interface=auto BOOTIF=01-52-54-00-12-34-56 hostname=web1  url=file:///tmp/preseed.cfg initrd=initrd.magic
initrd --name initrd.gz https://192.0.2.1/b/00000000000000000000000000000000/files/m/dists/trixie/main/installer-amd64/current/images/netboot/debian-installer/amd64/initrd.gz
initrd --name post.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/post.sh /tmp/post.sh mkdir=-1
initrd --name pre.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/pre.sh /tmp/pre.sh mkdir=-1
initrd --name preseed.cfg https://192.0.2.1/b/00000000000000000000000000000000/answer/preseed.cfg /tmp/preseed.cfg mkdir=-1
initrd --name early.cfg https://192.0.2.1/b/00000000000000000000000000000000/answer/early.cfg /tmp/early.cfg mkdir=-1
initrd --name early.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/early.sh /tmp/early.sh mkdir=-1
initrd --name disks.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/disks.sh /tmp/disks.sh mkdir=-1
initrd --name late.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/late.sh /tmp/late.sh mkdir=-1
uefi
kernel https://192.0.2.1/b/00000000000000000000000000000000/files/m/dists/trixie/main/installer-amd64/current/images/netboot/debian-installer/amd64/linux mirror/country=manual mirror/protocol=http mirror/http/hostname=192.0.2.1 mirror/http/directory=/files/m mirror/http/proxy= debian-installer/allow_unauthenticated=true  auto=true priority=critical locale=en_US.UTF-8 keymap=us interface=auto BOOTIF=01-52-54-00-12-34-56 hostname=web1  url=file:///tmp/preseed.cfg initrd=initrd.magic
initrd --name initrd.gz https://192.0.2.1/b/00000000000000000000000000000000/files/m/dists/trixie/main/installer-amd64/current/images/netboot/debian-installer/amd64/initrd.gz
initrd --name post.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/post.sh /tmp/post.sh mkdir=-1
initrd --name pre.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/pre.sh /tmp/pre.sh mkdir=-1
initrd --name preseed.cfg https://192.0.2.1/b/00000000000000000000000000000000/answer/preseed.cfg /tmp/preseed.cfg mkdir=-1
initrd --name early.cfg https://192.0.2.1/b/00000000000000000000000000000000/answer/early.cfg /tmp/early.cfg mkdir=-1
initrd --name early.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/early.sh /tmp/early.sh mkdir=-1
initrd --name disks.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/disks.sh /tmp/disks.sh mkdir=-1
initrd --name late.sh https://192.0.2.1/b/00000000000000000000000000000000/answer/late.sh /tmp/late.sh mkdir=-1
