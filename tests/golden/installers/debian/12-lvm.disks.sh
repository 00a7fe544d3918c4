# What goes wrong from here on is told, and stops the installation.
tell() {
    try=0
    until wget -q -O /dev/null http://192.0.2.1/b/9656288994e92ea0224ecc6f8d9717e6/report/$1 || [ $((try += 1)) -ge 90 ]; do sleep 10; done
}
trap '[ $? = 0 ] || tell failed' EXIT
set -e

# The user's own, before anything is written to a disk.
test -e /tmp/pre.sh || { wget -q -O /tmp/pre.new http://192.0.2.1/b/00000000000000000000000000000000/answer/pre.sh && mv /tmp/pre.new /tmp/pre.sh; }
sh /tmp/pre.sh </dev/null

# netcfg copies it into the new system; on the kernel's line there was place for one server.
cat >/etc/resolv.conf <<'RESOLV'
nameserver 192.0.2.53
nameserver 192.0.2.54
RESOLV

RULE=named NAMES='/dev/disk/by-id/nvme-* /dev/sda' COUNT=1
# Which disks this installation may write to: sets DISKS, such as "/dev/sda /dev/sdb", or says why
# not on standard error and exits with 1. For ash, dash and bash. It wants
#   RULE    only, smallest, largest or named
#   NAMES   for named: paths and globs, the first that are there are taken
#   COUNT   how many disks there must be
# and looks below SYS, DEV and MOUNTS, which only its tests set. Whoever has something to say at
# the end of a failure sets a trap on EXIT beforehand.
SYS=${SYS:-/sys} DEV=${DEV:-/dev} MOUNTS=${MOUNTS:-/proc/mounts}

# The first line of a file, 0 where there is none.
disks_read() {
    disks_value=0
    if [ -r "$1" ]; then read -r disks_value <"$1" || :; fi
}

# Linux writes cciss/c0d0 as cciss!c0d0 below /sys.
disks_path() {
    case $1 in
        *!*) echo "$DEV/$(echo "$1" | sed 's,!,/,g')" ;;
        *) echo "$DEV/$1" ;;
    esac
}

# Whether what is mounted lies on this disk: what is mounted before an installation is the medium.
disks_mounted() {
    [ -r "$MOUNTS" ] || return 1
    while read -r disks_from _; do
        case $disks_from in "$DEV"/*) ;; *) continue ;; esac
        disks_part=$(readlink -f "$disks_from") || continue
        disks_part=${disks_part##*/}
        [ "$disks_part" != "$1" ] && [ ! -e "$SYS/block/$1/$disks_part" ] || return 0
    done <"$MOUNTS"
    return 1
}

# Whether it is a disk that holds something and can be written to; named disks need no more.
disks_sound() {
    case $1 in
        loop* | ram* | zram* | sr* | fd* | dm-* | md* | nbd* | mtdblock* | pmem* | *boot[0-9] | *rpmb)
            return 1 ;;
    esac
    disks_read "$SYS/block/$1/size" && [ "${disks_value:-0}" -gt 0 ] || return 1
    disks_read "$SYS/block/$1/ro" && [ "$disks_value" = 0 ] || return 1
    # One path of several to an NVMe disk, which has another name for all of them.
    disks_read "$SYS/block/$1/hidden" && [ "$disks_value" = 0 ] || return 1
    ! disks_mounted "$1"
}

# And whether it is built in: a stick or a card that was left in a machine is not its disk, and
# neither is what it reaches by fibre channel (rport), iSCSI (session) or NVMe over a network.
disks_fixed() {
    disks_sound "$1" || return 1
    disks_read "$SYS/block/$1/removable" && [ "$disks_value" = 0 ] || return 1
    case $(cd "$SYS/block/$1" && pwd -P) in
        */usb[0-9]* | */rport-* | */session[0-9]*) return 1 ;;
    esac
    # MMC is soldered in, SD is a card.
    disks_read "$SYS/block/$1/device/type" && [ "$disks_value" != SD ] || return 1
    # Of its controller, or of each of those that lead to it.
    for disks_by in "$SYS/block/$1"/device/transport "$SYS/block/$1"/device/nvme*/transport; do
        [ -e "$disks_by" ] || continue
        disks_read "$disks_by"
        case $disks_value in pcie | apple-nvme) ;; *) return 1 ;; esac
    done
}

# Whether the same disk was counted already, by another path to it. Only such names of the whole
# world as makers give are believed, and only of disks of one size: cheap ones share the others.
disks_again() {
    for disks_by in "$SYS/block/$1/wwid" "$SYS/block/$1/device/wwid"; do
        disks_read "$disks_by"
        case $disks_value in naa.* | eui.* | uuid.* | nvme.*) ;; *) continue ;; esac
        disks_id=$disks_value
        disks_read "$SYS/block/$1/size"
        case $disks_ids in *" $disks_id/$disks_value "*) return 0 ;; esac
        disks_ids="$disks_ids $disks_id/$disks_value "
        return 1
    done
    return 1
}

# Those that are built in, smaller ones first, or larger ones where $1 is a minus; of the same
# size, by name.
disks_all() {
    for disks_at in "$SYS"/block/*; do
        disks_name=${disks_at##*/}
        disks_fixed "$disks_name" || continue
        disks_read "$disks_at/size"
        echo "$1$disks_value $disks_name"
    done | sort -n | while read -r _ disks_name; do echo "$disks_name"; done
}

# Those that the names tell, in their order. A glob takes only what is built in; who writes a
# name in full means it.
disks_named() {
    for disks_name in $NAMES; do
        disks_node=$(readlink -f "$disks_name") || continue
        disks_node=${disks_node#"$DEV"/}
        case $disks_node in */*) disks_node=$(echo "$disks_node" | sed 's,/,!,g') ;; esac
        [ -e "$SYS/block/$disks_node" ] || continue
        case " $NAMES " in
            *" $disks_name "*) disks_sound "$disks_node" || continue ;;
            *) disks_fixed "$disks_node" || continue ;;
        esac
        case $disks_seen in *" $disks_node "*) continue ;; esac
        disks_seen="$disks_seen $disks_node "
        echo "$disks_node"
    done
}

disks_fail() {
    echo "no disk was touched: $1" >&2
    exit 1
}

disks_seen=
case $RULE in
    named) disks_found=$(disks_named) ;;
    largest) disks_found=$(disks_all -) ;;
    only | smallest) disks_found=$(disks_all '') ;;
    *) disks_fail "there is no rule \"$RULE\": it is only, smallest, largest or named" ;;
esac
disks_count=0 disks_ids='' DISKS=
for disks_name in $disks_found; do
    ! disks_again "$disks_name" || continue
    disks_count=$((disks_count + 1))
    if [ "$RULE" = only ] || [ "$disks_count" -le "$COUNT" ]; then
        DISKS="$DISKS${DISKS:+ }$(disks_path "$disks_name")"
    fi
done
if [ "$disks_count" -lt "$COUNT" ]; then
    case $RULE in
        named) disks_fail "of the disks $NAMES this machine has ${DISKS:-none}; wanted: $COUNT" ;;
        *) disks_fail "this machine has ${DISKS:-no disk} that could be installed to; wanted: $COUNT" ;;
    esac
fi
if [ "$RULE" = only ] && [ "$disks_count" -gt "$COUNT" ]; then
    disks_fail "this machine has $disks_count disks ($DISKS): the setting disk must say which"
fi

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
# The label, what the firmware wants on it, and the number that the next partition has.
efi='538 538 1075 free $primary{ } $iflabel{ gpt } method{ efi } format{ } .'
biosgrub='1 1 1 free $primary{ } $iflabel{ gpt } method{ biosgrub } .'
label=msdos first= number=1
if [ -d "$SYS/firmware/efi" ]; then
    label=gpt first=$efi number=2
elif [ "$large" ]; then
    label=gpt first=$biosgrub number=2
fi
swap='2048 2048 2048'
root='1000 10000 -1'
formatted='method{ format } format{ } use_filesystem{ } filesystem{ xfs } mountpoint{ / } .'
method=lvm
recipe="$first 768 788 1024 ext4 \$primary{ } \$bootable{ } \$defaultignore{ } method{ format } format{ }"
recipe="$recipe use_filesystem{ } filesystem{ ext4 } mountpoint{ /boot } ."
recipe="$recipe $root xfs \$lvmok{ } $formatted"
recipe="$recipe $swap linux-swap \$lvmok{ } method{ swap } format{ } ."

# Its own debconf-set-selections reads no standard input, by which it talks to debconf.
cat >/tmp/selections <<SELECTIONS
d-i partman-partitioning/default_label string $label
d-i partman-partitioning/choose_label string $label
d-i partman-auto/disk string $DISKS
d-i partman-auto/method string $method
d-i partman-auto/expert_recipe string pilotlight :: $recipe
d-i grub-installer/bootdev string $DISKS
SELECTIONS
debconf-set-selections /tmp/selections
