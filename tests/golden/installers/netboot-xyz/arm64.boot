uefi
chain --autofree http://boot.netboot.xyz/ipxe/netboot.xyz-arm64.efi
