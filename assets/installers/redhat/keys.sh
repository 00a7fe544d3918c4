{% set of = settings.user if secrets.user_password is defined else "root" -%}
# Who can log in by key: this Anaconda has no command for it.
home=$(getent passwd {{ of }} | cut -d : -f 6)
install -d -m 700 -o {{ of }} -g {{ of }} "$home/.ssh"
cat >"$home/.ssh/authorized_keys" <<'KEYS'
{%- for key in settings.keys %}
{{ key }}
{%- endfor %}
KEYS
chown {{ of }}: "$home/.ssh/authorized_keys"
chmod 600 "$home/.ssh/authorized_keys"
restorecon -R "$home/.ssh"
