# What fails here is told, and nothing is installed. The sentence is shown by the installer, too.
said=/tmp/pre.said
exec 2>$said
trap 'test $? = 0 || { cat $said; tell failed 6 $said; }' EXIT
{%- if answers['pre.sh'] is defined %}

# The user's own script.
curl -fsS -m 60 --retry 5 -o /tmp/pre.sh "{{ answers['pre.sh'] }}" || exit 1
chmod 700 /tmp/pre.sh
/tmp/pre.sh || { echo "pre.sh ended with $?" >&2; exit 1; }
{%- endif %}

RULE={{ settings.disk.rule }} NAMES='{{ settings.disk.names | join(sep=" ") }}' COUNT={{ settings.disk.count }}
