bios
chain --autofree http://boot.netboot.xyz/ipxe/netboot.xyz.lkrn
uefi
chain --autofree http://boot.netboot.xyz/ipxe/netboot.xyz.efi
