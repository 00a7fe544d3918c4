bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/memtest86+x64.efi
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/boot/memtest86+x64.efi
