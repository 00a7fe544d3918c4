{#- When the packages are there, before the machine restarts. -#}
{% include "common/di-late.sh" %}
{%- if settings.source == "distribution" %}

# The packages come from Debian from now on.
suite=$(sed -n 's/^VERSION_CODENAME=//p' /target/etc/os-release)
parts="main{% if release.major != "11" %} non-free-firmware{% endif %}"
cat >/target/etc/apt/sources.list <<SOURCES
deb http://ftp.debian.org/debian $suite $parts
deb http://ftp.debian.org/debian $suite-updates $parts
deb http://security.debian.org/debian-security $suite-security $parts
SOURCES
{%- elif tree.iso is defined %}

# Its packages go on coming from the image, which nobody has signed.
sed -i 's|^deb http|deb [trusted=yes] http|' /target/etc/apt/sources.list
{%- endif %}
rm -f /target/etc/apt/apt.conf.d/00pilotlight
{% include "common/di-end.sh" %}
