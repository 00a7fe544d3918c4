#!/bin/bash
# web1, by profile p

# A report that is lost means another wipe: it is tried for 15 minutes and more.
report() {
    for _ in $(seq 90); do
        curl -fsS -m 10 -o /dev/null "http://192.0.2.1/b/9656288994e92ea0224ecc6f8d9717e6/report/$1" && break
        sleep 10
    done
}

# sudo would ask for the password of root, whom nobody may be.
cat >/etc/sudoers.d/pilotlight <<'END'
Defaults:admin !targetpw
admin ALL=(ALL:ALL) ALL
END
chmod 440 /etc/sudoers.d/pilotlight

# Packages come from the distribution from now on; those of SLE when it is registered.
rm -f /etc/zypp/repos.d/*.repo
zypper -n addrepo -f http://download.opensuse.org/ports/aarch64/tumbleweed/repo/oss/ repo-oss

# The last word: this machine boots its own disk from now on.
report 'done'
