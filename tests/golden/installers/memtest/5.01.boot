bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/memtest86+-5.01.bin
uefi
echo This Memtest86+ knows BIOS alone. Version 6 and later know UEFI, too.
sleep 20
