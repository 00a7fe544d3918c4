bios
shell
uefi
shell
