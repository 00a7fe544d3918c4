bios
chain --autofree http://192.0.2.1/files/tools/netboot.xyz.lkrn
uefi
chain --autofree http://192.0.2.1/files/tools/netboot.xyz.efi
