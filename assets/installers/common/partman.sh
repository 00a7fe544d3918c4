# The label, what the firmware wants on it, and the number that the next partition has.
efi='538 538 1075 free $primary{ } $iflabel{ gpt } method{ efi } format{ } .'
biosgrub='1 1 1 free $primary{ } $iflabel{ gpt } method{ biosgrub } .'
label=msdos first= number=1
if [ -d "$SYS/firmware/efi" ]; then
    label=gpt first=$efi number=2
elif [ "$large" ]; then
    label=gpt first=$biosgrub number=2
fi

{%- set fs = settings.filesystem | default(value="ext4") %}
{%- if fs == "" %}{% set fs = "ext4" %}{% endif %}
{%- if settings.swap is none %}
swap='256 550 100%'
{%- elif settings.swap != 0 %}
swap='{{ settings.swap }} {{ settings.swap }} {{ settings.swap }}'
{%- endif %}
root='1000 10000 -1'
formatted='method{ format } format{ } use_filesystem{ } filesystem{ {{ fs }} } mountpoint{ / } .'
{%- if settings.layout == "plain" %}
method=regular
recipe="$first $root {{ fs }} \$primary{ } \$bootable{ } $formatted"
{%- if settings.swap != 0 %}
recipe="$recipe $swap linux-swap \$primary{ } method{ swap } format{ } ."
{%- endif %}
{%- elif settings.layout == "lvm" %}
method=lvm
recipe="$first 768 788 1024 ext4 \$primary{ } \$bootable{ } \$defaultignore{ } method{ format } format{ }"
recipe="$recipe use_filesystem{ } filesystem{ ext4 } mountpoint{ /boot } ."
recipe="$recipe $root {{ fs }} \$lvmok{ } $formatted"
{%- if settings.swap != 0 %}
recipe="$recipe $swap linux-swap \$lvmok{ } method{ swap } format{ } ."
{%- endif %}
{%- else %}
method=raid
recipe="$first $root raid \$primary{ } \$lvmignore{ } method{ raid } ."
{%- if settings.swap != 0 %}
recipe="$recipe $swap raid \$primary{ } \$lvmignore{ } method{ raid } ."
{%- endif %}

# members N: the Nth partition of each disk, as partman-auto-raid writes them.
members() {
    all=
    for disk in $DISKS; do
        case $disk in *[0-9]) part=${disk}p$1 ;; *) part=$disk$1 ;; esac
        all=$all${all:+#}$part
    done
    echo "$all"
}
arrays="1 2 0 {{ fs }} / $(members $number) ."
{%- if settings.swap != 0 %}
arrays="$arrays 1 2 0 swap - $(members $((number + 1))) ."
{%- endif %}
{%- endif %}

# Its own debconf-set-selections reads no standard input, by which it talks to debconf.
cat >/tmp/selections <<SELECTIONS
d-i partman-partitioning/default_label string $label
d-i partman-partitioning/choose_label string $label
d-i partman-auto/disk string $DISKS
d-i partman-auto/method string $method
d-i partman-auto/expert_recipe string pilotlight :: $recipe
{%- if settings.layout == "raid1" %}
d-i partman-auto-raid/recipe string $arrays
{%- endif %}
d-i grub-installer/bootdev string $DISKS
SELECTIONS
debconf-set-selections /tmp/selections
