# What was on these disks is gone, before an installer finds volume groups and arrays on them: each
# takes those apart with all their members, which may be on disks that are not ours to touch. What
# uses them is only stopped. The start of each partition has the labels of LVM, md 1.1 and 1.2; its
# last MiB those of md 0.9 and 1.0, and a disk's of GPT and of firmware's arrays.
! command -v vgchange >/dev/null || vgchange -an >/dev/null 2>&1 || :
for md in "$SYS"/block/md*; do
    for member in "$md"/slaves/*; do
        for disk in $DISKS; do
            name=$(echo "${disk#"$DEV"/}" | tr / '!')
            [ "${member##*/}" = "$name" ] || [ -e "$SYS/block/$name/${member##*/}" ] || continue
            mdadm --stop "$DEV/${md##*/}" >/dev/null 2>&1 || :
        done
    done
done
wipe() {
    read -r sectors <"$1/size"
    end=$((sectors / 2048))
    dd if=/dev/zero of="$2" conv=notrunc bs=1M count=$((end < 4 ? end : 4)) 2>/dev/null || :
    [ "$end" -lt 4 ] ||
        dd if=/dev/zero of="$2" conv=notrunc bs=512 count=2048 seek=$((sectors - 2048)) 2>/dev/null || :
}
large=
for disk in $DISKS; do
    name=$(echo "${disk#"$DEV"/}" | tr / '!')
    for part in "$SYS/block/$name/$name"*; do
        [ ! -e "$part/size" ] || wipe "$part" "$(disks_path "${part##*/}")"
    done
    wipe "$SYS/block/$name" "$disk"
    # 2 TiB, where the numbers of an MS-DOS label end.
    [ "$sectors" -lt 4294967296 ] || large=1
    blockdev --rereadpt "$disk" || :
done
! command -v udevadm >/dev/null || udevadm settle || :
