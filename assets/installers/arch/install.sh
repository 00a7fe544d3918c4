{#- Arch has no installer that answers were for: its live system runs what script= names, on its
    first console. -#}
{%- if secrets.root_password is undefined and secrets.user_password is undefined -%}
{{ throw(message="nobody could log in to this system: give the profile or the machine the secret root_password or user_password, a hash that `pilotlight hash-password` makes") }}
{%- endif -%}
#!/bin/bash
# {{ machine.name }}, by profile {{ profile.name }}
set -euo pipefail

# A report that is lost means another wipe: it is tried for 15 minutes and more.
report() {
    for _ in $(seq 90); do
        curl -fsS -m 10 -o /dev/null "{{ report }}/$1" && break
        sleep 10
    done
}
trap '[ $? = 0 ] || report failed' EXIT
get() {
    curl -fsS --retry 10 --retry-connrefused -o "$2" "$1"
}
{%- if answers['pre.sh'] is defined %}

get "{{ answers['pre.sh'] }}" /tmp/pre.sh
sh /tmp/pre.sh
{%- endif %}

RULE='{{ settings.disk.rule }}' NAMES='{{ settings.disk.names | join(sep=" ") }}' COUNT={{ settings.disk.count }}
{% include "common/disks.sh" %}
# shellcheck disable=SC2206 # each is a word
disks=($DISKS)

# The live system has started what was left on the disks: volume groups and RAIDs.
for disk in "${disks[@]}"; do
    lsblk -nrpo NAME,TYPE "$disk" | tac | while read -r name type; do
        case $type in
            lvm | crypt) dmsetup remove "$name" || : ;;
            raid*) mdadm --stop "$name" || : ;;
            *) wipefs -qaf "$name" ;;
        esac
    done
done

# Each disk starts by BIOS as well as by UEFI.
part() {
    case $1 in
        *[0-9]) echo "$1p$2" ;;
        *) echo "$1$2" ;;
    esac
}
for disk in "${disks[@]}"; do
    sgdisk -Z "$disk"
    sgdisk -n 1:0:+1M -t 1:ef02 -n 2:0:+512M -t 2:ef00
{%- if settings.layout == "lvm" %} -n 3:0:0 -t 3:8e00
{%- elif settings.layout == "raid1" %}{% if settings.swap %} -n 4:0:+{{ settings.swap }}M -t 4:fd00{% endif %} -n 3:0:0 -t 3:fd00
{%- else %}{% if settings.swap %} -n 4:0:+{{ settings.swap }}M -t 4:8200{% endif %} -n 3:0:0 -t 3:8304
{%- endif %} "$disk"
    partprobe "$disk"
    udevadm settle
    mkfs.fat -F 32 "$(part "$disk" 2)"
done
{%- if settings.layout == "lvm" %}
wipefs -qaf "$(part "${disks[0]}" 3)"
vgcreate -y system "$(part "${disks[0]}" 3)"
{%- if settings.swap %}
lvcreate -y -Wy -n swap -L {{ settings.swap }}M system
swap=/dev/system/swap
{%- endif %}
lvcreate -y -Wy -n root -l 100%FREE system
root=/dev/system/root
{%- elif settings.layout == "raid1" %}
mirror() {
    wipefs -qaf "$(part "${disks[0]}" "$2")" "$(part "${disks[1]}" "$2")"
    mdadm --create "/dev/md/$1" --run --level=1 --raid-devices=2 --homehost=any \
        "$(part "${disks[0]}" "$2")" "$(part "${disks[1]}" "$2")"
}
mirror root 3
root=/dev/md/root
{%- if settings.swap %}
mirror swap 4
swap=/dev/md/swap
{%- endif %}
{%- else %}
root=$(part "${disks[0]}" 3)
{%- if settings.swap %}
swap=$(part "${disks[0]}" 4)
{%- endif %}
{%- endif %}
{%- if settings.filesystem == "xfs" or settings.filesystem == "btrfs" %}
mkfs.{{ settings.filesystem }} -f "$root"
{%- elif settings.filesystem and settings.filesystem != "ext4" %}
{{ throw(message="the setting filesystem is ext4, xfs or btrfs here") }}
{%- else %}
mkfs.ext4 -qF "$root"
{%- endif %}
mount "$root" /mnt
mount --mkdir "$(part "${disks[0]}" 2)" /mnt/efi
{%- if settings.swap %}
mkswap "$swap"
swapon "$swap"
{%- endif %}

# Packages: there are none on the image. The keys that verify them have to be ready.
{%- if vars.mirror is defined %}
mirror_url='{{ vars.mirror }}'
{%- elif settings.source == "server" and mirrors.arch is defined %}
mirror_url='{{ mirrors.arch }}'
{%- else %}
mirror_url=https://geo.mirror.pkgbuild.com
{%- endif %}
systemctl start pacman-init.service
# pacman fills in what has a dollar.
printf 'Server = %s/$repo/os/$arch\n' "$mirror_url" >/etc/pacman.d/mirrorlist
pacstrap -K /mnt base linux linux-firmware grub openssh sudo curl
{%- if settings.filesystem == "xfs" %} xfsprogs
{%- elif settings.filesystem == "btrfs" %} btrfs-progs
{%- else %} e2fsprogs
{%- endif %}
{%- if settings.layout == "lvm" %} lvm2{% elif settings.layout == "raid1" %} mdadm{% endif %}
{%- if settings.firewall %} nftables{% endif %}
{%- for package in settings.packages %} {{ package }}{% endfor %}
genfstab -U /mnt >>/mnt/etc/fstab
{%- if settings.layout == "lvm" %}
sed -i 's/^\(HOOKS=.*\) filesystems/\1 lvm2 filesystems/' /mnt/etc/mkinitcpio.conf
{%- elif settings.layout == "raid1" %}
sed -i 's/^\(HOOKS=.*\) filesystems/\1 mdadm_udev filesystems/' /mnt/etc/mkinitcpio.conf
mdadm --detail --scan >>/mnt/etc/mdadm.conf
{%- endif %}

# The system.
echo '{{ machine.hostname }}' >/mnt/etc/hostname
ln -sf '/usr/share/zoneinfo/{{ settings.timezone }}' /mnt/etc/localtime
echo '{{ settings.language }} UTF-8' >>/mnt/etc/locale.gen
echo 'LANG={{ settings.language }}' >/mnt/etc/locale.conf
echo 'KEYMAP={{ settings.keyboard }}' >/mnt/etc/vconsole.conf
cat >/mnt/etc/systemd/network/10-pilotlight.network <<'END'
[Match]
MACAddress={{ settings.network.mac }}

[Network]
{%- if settings.network.mode == "static" %}
Address={{ settings.network.address }}/{{ settings.network.prefix }}
{%- if settings.network.gateway %}
Gateway={{ settings.network.gateway }}
{%- endif %}
{%- for dns in settings.network.dns %}
DNS={{ dns }}
{%- endfor %}
{%- else %}
DHCP=yes
{%- endif %}
END
{%- if settings.kernel_args %}
# What divides it is what no setting has.
sed -i 's>^GRUB_CMDLINE_LINUX=.*>GRUB_CMDLINE_LINUX="{{ settings.kernel_args }}">' /mnt/etc/default/grub
{%- endif %}
in_new() {
    arch-chroot /mnt "$@"
}
in_new locale-gen
in_new mkinitcpio -P
in_new systemctl enable sshd systemd-networkd systemd-resolved systemd-timesyncd{% if settings.firewall %} nftables{% endif %}

# Who can log in.
keys() {
    install -d -m 700 "/mnt$1/.ssh"
    cat >"/mnt$1/.ssh/authorized_keys" <<'END'
{%- for key in settings.keys %}
{{ key }}
{%- endfor %}
END
    chmod 600 "/mnt$1/.ssh/authorized_keys"
}
{%- if secrets.root_password is defined %}
in_new usermod -p '{{ secrets.root_password }}' root
keys /root
{%- else %}
in_new usermod -p '*' root
{%- endif %}
{%- if secrets.user_password is defined %}
in_new useradd -m -G wheel -p '{{ secrets.user_password }}' '{{ settings.user }}'
keys '/home/{{ settings.user }}'
in_new chown -R '{{ settings.user }}:' '/home/{{ settings.user }}/.ssh'
echo '%wheel ALL=(ALL:ALL) ALL' >/mnt/etc/sudoers.d/wheel
{%- endif %}

# The loaders: --removable is what firmware finds without being told.
for disk in "${disks[@]}"; do
    in_new grub-install --target=i386-pc "$disk"
    mount --mkdir "$(part "$disk" 2)" /mnt/mnt/esp
    in_new grub-install --target=x86_64-efi --efi-directory=/mnt/esp --removable
    umount /mnt/mnt/esp
done
rmdir /mnt/mnt/esp
in_new grub-mkconfig -o /boot/grub/grub.cfg
{%- if answers['post.sh'] is defined %}
get "{{ answers['post.sh'] }}" /mnt/root/post.sh
in_new sh /root/post.sh
rm /mnt/root/post.sh
{%- endif %}
{%- if vars.mirror is undefined and settings.source == "distribution" %}
printf 'Server = %s/$repo/os/$arch\n' https://geo.mirror.pkgbuild.com >/mnt/etc/pacman.d/mirrorlist
{%- endif %}
ln -sf ../run/systemd/resolve/stub-resolv.conf /mnt/etc/resolv.conf
sync

# The last word: this machine boots its own disk from now on.
report 'done'
systemctl reboot
