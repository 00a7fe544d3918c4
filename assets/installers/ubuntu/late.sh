{#- When the new system is in /target. -#}
set -e
{%- if settings.keys and secrets.user_password is undefined %}
# Whose keys open it.
mkdir -p -m 700 /target/root/.ssh
cat >>/target/root/.ssh/authorized_keys <<'KEYS'
{%- for key in settings.keys %}
{{ key }}
{%- endfor %}
KEYS
chmod 600 /target/root/.ssh/authorized_keys
{%- endif %}
{%- if settings.kernel_args %}
mkdir -p /target/etc/default/grub.d
echo 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {{ settings.kernel_args }}"' >/target/etc/default/grub.d/90-pilotlight.cfg
curtin in-target -- update-grub
{%- endif %}
{%- if settings.source == "server" and tree.iso is defined %}

# What the image has of packages goes on coming from it, beside the archive that it has not.
suite=$(sed -n 's/^VERSION_CODENAME=//p' /target/etc/os-release)
echo "deb [trusted=yes] {{ tree.url }} $suite main restricted" >/target/etc/apt/sources.list.d/pilotlight.list
{%- endif %}
{%- if answers['post.sh'] is defined %}

# The user's own, in the new system.
wget -q -O /target/tmp/post.sh {{ answers['post.sh'] }}
curtin in-target -- sh /tmp/post.sh
rm -f /target/tmp/post.sh
{%- endif %}

# The last word: this machine boots its own disk from now on. A report that is lost means another
# wipe: it is tried for 15 minutes and more. A file of your own ends with
#   wget -q -O /dev/null {{ report }}/done
for try in $(seq 90); do
    if wget -q -T 10 -t 1 -O /dev/null {{ report }}/done; then exit; fi
    sleep 10
done
