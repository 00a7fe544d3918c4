bios
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/live/vmlinuz-6.1.0-18-amd64 boot=live components fetch=http://192.0.2.1/files/m/live/filesystem.squashfs BOOTIF=01-52-54-00-12-34-56 initrd=initrd.img-6.1.0-18-amd64
initrd --name initrd.img-6.1.0-18-amd64 http://192.0.2.1/b/00000000000000000000000000000000/files/m/live/initrd.img-6.1.0-18-amd64
uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/files/m/live/vmlinuz-6.1.0-18-amd64 boot=live components fetch=http://192.0.2.1/files/m/live/filesystem.squashfs BOOTIF=01-52-54-00-12-34-56 initrd=initrd.img-6.1.0-18-amd64
initrd --name initrd.img-6.1.0-18-amd64 http://192.0.2.1/b/00000000000000000000000000000000/files/m/live/initrd.img-6.1.0-18-amd64
