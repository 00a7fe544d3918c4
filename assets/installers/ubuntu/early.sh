{#- Before subiquity looks at the disks; it reads /autoinstall.yaml once more after this. -#}
set -e
{%- if answers['pre.sh'] is defined %}
# The user's own, before anything is written to a disk.
wget -q -O /run/pre.sh {{ answers['pre.sh'] }}
sh /run/pre.sh
{%- endif %}
RULE={{ settings.disk.rule }} NAMES='{{ settings.disk.names | join(sep=" ") }}' COUNT={{ settings.disk.count }}
{% include "common/disks.sh" %}

{% include "common/wipe.sh" %}

bios=true uefi=false
if [ -d "$SYS/firmware/efi" ]; then bios=false uefi=true; fi
number=0
for disk in $DISKS; do
    sed -i "s|/dev/pilotlight$number|$disk|" /autoinstall.yaml
    number=$((number + 1))
done
sed -i "s/pilotlight-bios/$bios/; s/pilotlight-uefi/$uefi/" /autoinstall.yaml
