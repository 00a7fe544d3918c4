bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/mirror/ubuntu-releases/24.04/netboot/amd64/linux root=/dev/ram0 ip=dhcp cloud-config-url=/dev/null url=http://192.0.2.1/mirror/ubuntu-releases/24.04/ubuntu-24.04.5-live-server-amd64.iso autoinstall ds=nocloud;s=http://192.0.2.1/b/00000000000000000000000000000000/answer/ initrd=initrd
initrd --name initrd http://192.0.2.1/b/00000000000000000000000000000000/mirror/ubuntu-releases/24.04/netboot/amd64/initrd
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/mirror/ubuntu-releases/24.04/netboot/amd64/linux root=/dev/ram0 ip=dhcp cloud-config-url=/dev/null url=http://192.0.2.1/mirror/ubuntu-releases/24.04/ubuntu-24.04.5-live-server-amd64.iso autoinstall ds=nocloud;s=http://192.0.2.1/b/00000000000000000000000000000000/answer/ initrd=initrd
initrd --name initrd http://192.0.2.1/b/00000000000000000000000000000000/mirror/ubuntu-releases/24.04/netboot/amd64/initrd
