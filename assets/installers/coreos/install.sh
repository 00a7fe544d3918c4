{#- Runs in the live system, by live.ign. -#}
#!/bin/bash
# {{ machine.name }}, by profile {{ profile.name }}
set -eu

# A report that is lost means another wipe: it is tried for 15 minutes and more.
report() {
    for _ in $(seq 90); do
        curl -fsS -m 10 -o /dev/null "{{ report }}/$1" && break
        sleep 10
    done
}
trap '[ $? = 0 ] || report failed' EXIT
get() {
    curl -fsS{% if ca is defined %} --cacert ca.pem{% endif %} --retry 10 --retry-connrefused -o "$2" "$1"
}
cd "$(mktemp -d)"
{%- if ca is defined %}
cat >ca.pem <<'CA'
{{ ca }}
CA
{%- endif %}
{%- if answers['pre.sh'] is defined %}

get "{{ answers['pre.sh'] }}" pre.sh
sh ./pre.sh
{%- endif %}

RULE='{{ settings.disk.rule }}' NAMES='{{ settings.disk.names | join(sep=" ") }}' COUNT={{ settings.disk.count }}
{% include "common/disks.sh" %}
set -- $DISKS

# What the new system finds at its first boot has to be whole: the server may be gone by then.
get "{{ answers['config.ign'] }}" config.ign
{%- if answers['post.sh'] is defined %}
get "{{ answers['post.sh'] }}" post.sh
jq --rawfile post post.sh \
    '(.storage.files[] | select(.path == "/usr/local/bin/pilotlight-post")).contents.source
        = "data:;base64," + ($post | @base64)' config.ign >with-post.ign
mv with-post.ign config.ign
{%- endif %}
{%- if settings.layout == "raid1" %}

# sda may be sdb when it boots next.
stable() {
    for link in /dev/disk/by-id/*; do
        if [ "$(readlink -f "$link")" = "$1" ]; then
            echo "$link"
            return
        fi
    done
    echo "$1"
}
jq --arg one "$(stable "$1")" --arg two "$(stable "$2")" \
    '.storage.disks[0].device = $one | .storage.disks[1].device = $two' config.ign >mirror.ign
mv mirror.ign config.ign
{%- endif %}
{%- if settings.network.mode == "static" %}

# --copy-network brings this to the new system, for its first boot, too.
(umask 077 && cat >/etc/NetworkManager/system-connections/pilotlight.nmconnection) <<'END'
[connection]
id=pilotlight
type=ethernet

[ethernet]
mac-address={{ settings.network.mac }}

[ipv4]
method=manual
address1={{ settings.network.address }}/{{ settings.network.prefix }}{% if settings.network.gateway %},{{ settings.network.gateway }}{% endif %}
{%- if settings.network.dns %}
dns={{ settings.network.dns | join(sep=";") }};
{%- endif %}

[ipv6]
method=auto
END
{%- endif %}

# The live system carries the image of the disk: nothing is fetched.
coreos-installer install "$1" --ignition-file config.ign
{%- if settings.network.mode == "static" %} --copy-network{% endif %}
{%- if settings.selinux == "permissive" %} --append-karg enforcing=0{% endif %}
{%- if settings.selinux == "disabled" %} --append-karg selinux=0{% endif %}
{%- for arg in settings.kernel_args | split(pat=" ") %}{% if arg %} --append-karg '{{ arg }}'{% endif %}{% endfor %}

# The last word: this machine boots its own disk from now on.
report 'done'
systemctl reboot
