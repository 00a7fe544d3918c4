uefi
kernel http://192.0.2.1/b/00000000000000000000000000000000/mirror/opensuse/distribution/leap/15.6/repo/oss/boot/aarch64/linux netsetup=dhcp install=http://192.0.2.1/mirror/opensuse/distribution/leap/15.6/repo/oss self_update=0 autoyast=http://192.0.2.1/b/00000000000000000000000000000000/answer/autoinst.xml initrd=initrd
initrd --name initrd http://192.0.2.1/b/00000000000000000000000000000000/mirror/opensuse/distribution/leap/15.6/repo/oss/boot/aarch64/initrd
