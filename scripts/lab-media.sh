# shellcheck shell=bash disable=SC2154 # whoever sources this, after lab.sh, sets them
# The lab's media: images and folders with the layout of the real ones, and in the places of kernel and
# initrd the lab's guest, which fetches what its arguments and answers name, and compares it with the
# tree's SHA256SUMS.
#
#   guest_in TREE             the guest as images/pxeboot/{vmlinuz,initrd.img}
#   packages TREE FIRST LAST  so many stand-ins for packages, Packages/…rpm
#   sums TREE FROM…           TREE/SHA256SUMS: what FROM… have when they are laid over one another
#   image FILE VOLUME TREE    an ISO image as Red Hat's and Debian's are: Rock Ridge and Joliet

guest_in() {
    mkdir -p "$1/images/pxeboot"
    cp "$lab/guest-amd64/vmlinuz" "$lab/guest-amd64/initrd.img" "$1/images/pxeboot/"
}

# As real names are: with signs of all sorts, and some longer than Joliet's 64 characters.
packages() {
    local n
    mkdir -p "$1/Packages"
    for ((n = $2; n <= $3; n++)); do
        head -c $((n * 997)) /dev/urandom >"$1/Packages/stand-in_$n-libstdc++-devel-4.8.5-44.el7.x86_64.rpm"
    done
    head -c 70000 /dev/urandom >"$1/Packages/java-1.8.0-openjdk-accessibility-debug-1.8.0.$2.b00-0.el7_9~with.a.long.name.x86_64.rpm"
}

# Where two have a file, the first one's counts.
sums() {
    local tree=$1 from
    shift
    for from in "$@"; do (cd "$from" && find . -type f ! -name SHA256SUMS -exec sha256sum {} + | sed 's|  \./|  |'); done |
        awk '!seen[$2]++' >"$dir/sums"
    mv "$dir/sums" "$tree/SHA256SUMS"
}

image() {
    xorriso -as mkisofs -quiet -R -J -joliet-long -V "$2" -o "$1" "$3" 2>"$dir/xorriso.log" || failed "$(<"$dir/xorriso.log")"
    rm -rf "$3"
}

# --- CentOS 7: one DVD -------------------------------------------------------------------------------

el7_tree() { # TREE
    guest_in "$1"
    mkdir -p "$1"/{EFI/BOOT,LiveOS,isolinux,repodata}
    echo 'CentOS 7' >"$1/CentOS_BuildTag"
    printf '1587400000.000001\n7.9\nx86_64\n' >"$1/.discinfo"
    cat >"$1/.treeinfo" <<'TREEINFO'
[general]
name = CentOS-7
family = CentOS
timestamp = 1587400000.0
variant =
version = 7
packagedir =
arch = x86_64

[stage2]
mainimage = LiveOS/squashfs.img

[images-x86_64]
kernel = images/pxeboot/vmlinuz
initrd = images/pxeboot/initrd.img

[images-xen]
kernel = images/pxeboot/vmlinuz
initrd = images/pxeboot/initrd.img
TREEINFO
    head -c 3456789 /dev/urandom >"$1/LiveOS/squashfs.img"
    head -c 2048 /dev/urandom >"$1/isolinux/isolinux.bin"
    head -c 2048 /dev/urandom >"$1/EFI/BOOT/BOOTX64.EFI"
    echo '<repomd/>' >"$1/repodata/repomd.xml"
    : >"$1/repodata/empty"
    packages "$1" 1 30
    sums "$1" "$1"
}

# --- CentOS 6.8: two DVDs ----------------------------------------------------------------------------

# The second has packages, and some of the first one's files in its own words.
el6_trees() { # FIRST SECOND
    guest_in "$1"
    mkdir -p "$1"/{EFI/BOOT,isolinux,repodata} "$2"
    printf '1463897637.000001\n6.8\nx86_64\n1\n' >"$1/.discinfo"
    printf '1463897637.000001\n6.8\nx86_64\n2\n' >"$2/.discinfo"
    cat >"$1/.treeinfo" <<'TREEINFO'
[general]
family = CentOS
timestamp = 1463897637.0
variant =
totaldiscs = 1
version = 6.8
discnum = 1
packagedir =
arch = x86_64

[images-x86_64]
kernel = images/pxeboot/vmlinuz
initrd = images/pxeboot/initrd.img
boot.iso = images/boot.iso

[images-xen]
kernel = images/pxeboot/vmlinuz
initrd = images/pxeboot/initrd.img

[stage2]
mainimage = images/install.img
TREEINFO
    echo 'the first disc' | tee "$1/GPL" "$1/RPM-GPG-KEY-CentOS-6" >"$1/EULA"
    echo 'the second disc' | tee "$2/GPL" "$2/RPM-GPG-KEY-CentOS-6" >"$2/TRANS.TBL"
    head -c 2987654 /dev/urandom >"$1/images/install.img"
    head -c 2048 /dev/urandom >"$1/isolinux/isolinux.bin"
    head -c 2048 /dev/urandom >"$1/EFI/BOOT/BOOTX64.conf"
    echo '<repomd/>' >"$1/repodata/repomd.xml"
    packages "$1" 1 25
    packages "$2" 24 50
    sums "$1" "$1" "$2"
}
