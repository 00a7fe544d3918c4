{#- Runs in the new system, before it boots for the first time: AutoYaST's chroot-scripts, Agama's
    post. -#}
#!/bin/bash
# {{ machine.name }}, by profile {{ profile.name }}

# A report that is lost means another wipe: it is tried for 15 minutes and more.
report() {
    for _ in $(seq 90); do
        curl -fsS -m 10 -o /dev/null "{{ report }}/$1" && break
        sleep 10
    done
}
{%- if secrets.user_password is defined %}

# sudo would ask for the password of root, whom nobody may be.
cat >/etc/sudoers.d/pilotlight <<'END'
Defaults:{{ settings.user }} !targetpw
{{ settings.user }} ALL=(ALL:ALL) ALL
END
chmod 440 /etc/sudoers.d/pilotlight
{%- endif %}
{#- Agama's image of openSUSE's others installs from the distribution as it is. #}
{%- if settings.source == "distribution" and release.version != "Agama" %}

# Packages come from the distribution from now on; those of SLE when it is registered.
rm -f /etc/zypp/repos.d/*.repo
{%- if release.version == "Tumbleweed" and release.arch == "arm64" %}
zypper -n addrepo -f http://download.opensuse.org/ports/aarch64/tumbleweed/repo/oss/ repo-oss
{%- elif release.version == "Tumbleweed" %}
zypper -n addrepo -f http://download.opensuse.org/tumbleweed/repo/oss/ repo-oss
zypper -n addrepo -f http://download.opensuse.org/update/tumbleweed/ repo-update
{%- elif release.version is starting_with(pat="15.") %}
zypper -n addrepo -f http://download.opensuse.org/distribution/leap/{{ release.version }}/repo/oss/ repo-oss
zypper -n addrepo -f http://download.opensuse.org/update/leap/{{ release.version }}/oss/ repo-update
{%- elif release.name == "Leap" %}
zypper -n addrepo -f http://download.opensuse.org/distribution/leap/{{ release.version }}/repo/oss/{{ release.their_arch }}/ repo-oss
{%- endif %}
{%- endif %}
{%- if release.version is starting_with(pat="16") or release.version == "Agama" %}

{%- if settings.keys %}

# Agama of 16.0 takes one key a user.
keys() {
    install -d -m 700 -o "$1" "$2/.ssh"
    cat >"$2/.ssh/authorized_keys" <<'END'
{%- for key in settings.keys %}
{{ key }}
{%- endfor %}
END
    chown "$1:" "$2/.ssh/authorized_keys"
    chmod 600 "$2/.ssh/authorized_keys"
}
{%- if secrets.root_password is defined %}
keys root /root
{%- endif %}
{%- if secrets.user_password is defined %}
keys '{{ settings.user }}' '/home/{{ settings.user }}'
{%- endif %}
{%- endif %}

systemctl enable sshd
systemctl {{ "enable" if settings.firewall else "disable" }} firewalld
{%- endif %}
{%- if answers['post.sh'] is defined %}
{%- if ca is defined %}

# The answers' CA, and no other.
cat >/tmp/answers.pem <<'CA'
{{ ca }}
CA
export CURL_CA_BUNDLE=/tmp/answers.pem
{%- endif %}

curl -fsS -o /root/post.sh "{{ answers['post.sh'] }}" && sh /root/post.sh || {
    report failed
    exit 1
}
rm /root/post.sh
{%- endif %}

# The last word: this machine boots its own disk from now on.
report 'done'
