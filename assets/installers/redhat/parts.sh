# /dev/sda as Anaconda names it: sda.
set -- $(echo "$DISKS" | sed "s,$DEV/,,g")
drives=$1${2:+,$2}
[ -d "$SYS/firmware/efi" ] && efi=yes || efi=
root='/{% if settings.filesystem %} --fstype={{ settings.filesystem }}{% endif %}'
{%- if settings.swap is none %}
swap=--recommended
{%- elif settings.swap != 0 %}
swap=--size={{ settings.swap }}
{%- endif %}

# All that is said of disks: of these and of no other. GPT for a BIOS, too (a disk of more than
# 2 TiB takes nothing else), and so GRUB wants a small partition of its own there.
{
    echo "ignoredisk --only-use=$drives"
    echo "clearpart --all --drives=$drives --initlabel --disklabel=gpt"
    echo "bootloader --boot-drive=$1{% if settings.kernel_args %} --append=\"{{ settings.kernel_args }}\"{% endif %}"
{%- if settings.layout == "raid1" %}
    half=0
    for disk; do
        # Each half of the mirror must boot alone. Of one name there is one partition, and None is
        # the name of any that is mounted nowhere.
        half=$((half + 1))
        if [ -n "$efi" ]; then echo "part raid.efi$half --size=600 --ondisk=$disk"
        else echo "part ${gap:-biosboot} --fstype=biosboot --size=1 --ondisk=$disk"; gap=None; fi
        echo "part raid.boot$half --size=1024 --ondisk=$disk"
        echo "part raid.lvm$half --size=1 --grow --ondisk=$disk"
    done
    # Firmware takes one half for a plain FAT: Anaconda gives an array of this mount point the
    # metadata 1.0, which lies behind the data, and makes an entry for each half.
    [ -z "$efi" ] || echo "raid /boot/efi --device=efi --level=RAID1 --fstype=efi raid.efi1 raid.efi2"
    echo "raid /boot --device=boot --level=RAID1 raid.boot1 raid.boot2"
    echo "raid pv.1 --device=lvm --level=RAID1 raid.lvm1 raid.lvm2"
{%- else %}
    if [ -n "$efi" ]; then echo "part /boot/efi --fstype=efi --size=600 --ondisk=$1"
    else echo "part biosboot --fstype=biosboot --size=1 --ondisk=$1"; fi
    echo "part /boot --size=1024 --ondisk=$1"
{%- if settings.layout == "lvm" %}
    echo "part pv.1 --size=1 --grow --ondisk=$1"
{%- else %}
{%- if settings.swap != 0 %}
    echo "part swap $swap --ondisk=$1"
{%- endif %}
{%- if btrfs %}
    echo "part btrfs.1 --size=4096 --grow --ondisk=$1"
    echo "btrfs / --label=root btrfs.1"
{%- else %}
    echo "part $root --size=4096 --grow --ondisk=$1"
{%- endif %}
{%- endif %}
{%- endif %}
{%- if settings.layout != "plain" %}
    echo "volgroup system pv.1"
{%- if settings.swap != 0 %}
    echo "logvol swap --vgname=system --name=swap $swap"
{%- endif %}
    echo "logvol $root --vgname=system --name=root --size=4096 --grow"
{%- endif %}
} >/tmp/disks.ks
