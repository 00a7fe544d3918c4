# /dev/sda as Anaconda names it: sda.
set -- $(echo "$DISKS" | sed "s,$DEV/,,g")
drives=$1${2:+,$2}
root='/{% if settings.filesystem %} --fstype={{ settings.filesystem }}{% endif %}'
{%- if settings.swap is none %}
swap=--recommended
{%- elif settings.swap != 0 %}
swap=--size={{ settings.swap }}
{%- endif %}

# All that is said of disks: of these and of no other.
{
    echo "ignoredisk --only-use=$drives"
    echo "clearpart --all --drives=$drives --initlabel"
    echo "bootloader --location=mbr --driveorder=$drives{% if settings.kernel_args %} --append=\"{{ settings.kernel_args }}\"{% endif %}"
    # Where a boot loader of your own started it by UEFI.
    [ ! -d "$SYS/firmware/efi" ] || echo "part /boot/efi --fstype=efi --size=200 --ondisk=$1"
{%- if settings.layout == "raid1" %}
    for disk; do
        half=$((${half:-0} + 1))
        echo "part raid.1$half --size=512 --ondisk=$disk"
        echo "part raid.2$half --size=1 --grow --ondisk=$disk"
    done
    # This Anaconda takes numbers for names; GRUB goes to the MBR of both.
    echo "raid /boot --device=md0 --level=RAID1 raid.11 raid.12"
    echo "raid pv.1 --device=md1 --level=RAID1 raid.21 raid.22"
{%- else %}
    # GRUB of this age reads ext4 at most, whatever the root is: Anaconda's own choice.
    echo "part /boot --size=512 --ondisk=$1"
{%- if settings.layout == "lvm" %}
    echo "part pv.1 --size=1 --grow --ondisk=$1"
{%- else %}
{%- if settings.swap != 0 %}
    echo "part swap $swap --ondisk=$1"
{%- endif %}
    echo "part $root --size=4096 --grow --ondisk=$1"
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
