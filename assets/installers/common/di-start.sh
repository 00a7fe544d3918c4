# What goes wrong from here on is told, and stops the installation.
tell() {
    try=0
    until wget -q -O /dev/null {{ report }}/$1 || [ $((try += 1)) -ge 90 ]; do sleep 10; done
}
trap '[ $? = 0 ] || tell failed' EXIT
set -e
{%- if answers['pre.sh'] is defined %}

# The user's own, before anything is written to a disk.
test -e /tmp/pre.sh || { wget -q -O /tmp/pre.new {{ answers['pre.sh'] }} && mv /tmp/pre.new /tmp/pre.sh; }
sh /tmp/pre.sh </dev/null
{%- endif %}

{%- if settings.network.mode == "static" and settings.network.dns %}

# netcfg copies it into the new system; on the kernel's line there was place for one server.
cat >/etc/resolv.conf <<'RESOLV'
{%- for server in settings.network.dns %}
nameserver {{ server }}
{%- endfor %}
RESOLV
{%- endif %}

RULE={{ settings.disk.rule }} NAMES='{{ settings.disk.names | join(sep=" ") }}' COUNT={{ settings.disk.count }}
