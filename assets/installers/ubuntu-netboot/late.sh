{#- When the packages are there, before the machine restarts. -#}
{% include "common/di-late.sh" %}
{%- if settings.source == "distribution" %}

# The packages come from Ubuntu from now on.
suite=$(sed -n 's/^DISTRIB_CODENAME=//p' /target/etc/lsb-release)
from=http://{% if release.their_arch == "arm64" %}ports.ubuntu.com/ubuntu-ports{% else %}archive.ubuntu.com/ubuntu{% endif %}
for part in "$suite" "$suite-updates" "$suite-security"; do
    echo "deb $from $part main restricted universe"
done >/target/etc/apt/sources.list
{%- endif %}
{% include "common/di-end.sh" %}
