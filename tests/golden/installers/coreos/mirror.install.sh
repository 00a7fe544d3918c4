#!/bin/bash
# web1, by profile p
set -eu

# A report that is lost means another wipe: it is tried for 15 minutes and more.
report() {
    for _ in $(seq 90); do
        curl -fsS -m 10 -o /dev/null "http://192.0.2.1/b/9656288994e92ea0224ecc6f8d9717e6/report/$1" && break
        sleep 10
    done
}
trap '[ $? = 0 ] || report failed' EXIT
get() {
    curl -fsS --retry 10 --retry-connrefused -o "$2" "$1"
}
cd "$(mktemp -d)"

RULE='only' NAMES='' COUNT=1
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
set -- $DISKS

# What the new system finds at its first boot has to be whole: the server may be gone by then.
get "http://192.0.2.1/b/00000000000000000000000000000000/answer/config.ign" config.ign

# The live system carries the image of the disk: nothing is fetched.
coreos-installer install "$1" --ignition-file config.ign

# The last word: this machine boots its own disk from now on.
report 'done'
systemctl reboot
