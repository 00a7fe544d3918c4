# What goes wrong from here on is told: the new system may start, and is not what was wanted.
tell() {
    try=0
    until wget -q -O /dev/null {{ report }}/$1 || [ $((try += 1)) -ge 90 ]; do sleep 10; done
}
trap '[ $? = 0 ] || tell failed' EXIT
set -e
{%- if settings.keys %}

# Whose keys open it.
{%- if secrets.user_password is defined %}
who={{ settings.user }} home=/home/{{ settings.user }}
{%- else %}
who=root home=/root
{%- endif %}
mkdir -p "/target$home/.ssh"
cat >>"/target$home/.ssh/authorized_keys" <<'KEYS'
{%- for key in settings.keys %}
{{ key }}
{%- endfor %}
KEYS
chmod 700 "/target$home/.ssh"
chmod 600 "/target$home/.ssh/authorized_keys"
chroot /target chown -R "$who:" "$home/.ssh"
{%- endif %}
