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

# What the new system finds at its first boot has to be whole: the server may be gone by then.
get "{{ answers['config.ign'] }}" config.ign
{%- if answers['post.sh'] is defined %}
get "{{ answers['post.sh'] }}" post.sh
jq --rawfile post post.sh \
    '(.storage.files[] | select(.path == "/opt/bin/pilotlight-post")).contents.source
        = "data:;base64," + ($post | @base64)' config.ign >with-post.ign
mv with-post.ign config.ign
{%- endif %}

# Of the version that runs here; it verifies what it fetches.
flatcar-install -d "$DISKS" -i config.ign
{%- if vars.image_base is defined %} -b '{{ vars.image_base }}'
{%- elif settings.source == "server" and mirrors.flatcar is defined %} -b '{{ mirrors.flatcar }}/{{ release.their_arch }}'
{%- endif %}

# The last word: this machine boots its own disk from now on.
report 'done'
systemctl reboot
