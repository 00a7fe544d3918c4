{#- AutoYaST runs this before it looks at the disks, and takes /tmp/profile/modified.xml instead of
    the profile that it began with. -#}
#!/bin/bash
# {{ machine.name }}, by profile {{ profile.name }}
set -euo pipefail

# AutoYaST would go on after a script that fails: this one stays.
report() {
    for _ in $(seq 90); do
        curl -fsS -m 10 -o /dev/null "{{ report }}/$1" && break
        sleep 10
    done
}
stop() {
    report failed
    echo 'pilotlight: the installation stops here; the lines above say why' >/dev/console
    while :; do sleep 600; done
}
trap '[ $? = 0 ] || stop' EXIT
exec 2>/dev/console
{%- if answers['pre.sh'] is defined %}
curl -fsS -o /tmp/pre.sh "{{ answers['pre.sh'] }}"
sh /tmp/pre.sh
{%- endif %}

RULE='{{ settings.disk.rule }}' NAMES='{{ settings.disk.names | join(sep=" ") }}' COUNT={{ settings.disk.count }}
{% include "common/disks.sh" %}
set -- $DISKS

# What the firmware starts from: a partition for EFI, or one that GRUB lies in.
if [ -d "$SYS/firmware/efi" ]; then
    start='<partition><create config:type="boolean">true</create><filesystem config:type="symbol">vfat</filesystem><format config:type="boolean">true</format>MOUNT<partition_id config:type="integer">259</partition_id><size>512M</size></partition>'
else
    start='<partition><create config:type="boolean">true</create><format config:type="boolean">false</format><partition_id config:type="integer">263</partition_id><size>8M</size></partition>'
fi
nic=eth0
for at in "$SYS"/class/net/*; do
    if [ "$(cat "$at/address")" = '{{ settings.network.mac }}' ]; then nic=${at##*/}; fi
done

curl -fsS --retry 10 "{{ answers['autoinst.xml'] }}" | sed \
    -e "s|<!--START1-->|${start/MOUNT/<mount>/boot/efi</mount>}|" \
    -e "s|<!--START2-->|${start/MOUNT/}|" \
    -e "s|>DISK1<|>$1<|; s|>DISK2<|>${2-}<|; s|>NIC<|>$nic<|" >/tmp/profile/modified.xml
