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
Defaults:eva !targetpw
eva ALL=(ALL:ALL) ALL
END
chmod 440 /etc/sudoers.d/pilotlight

# Agama of 16.0 takes one key a user.
keys() {
    install -d -m 700 -o "$1" "$2/.ssh"
    cat >"$2/.ssh/authorized_keys" <<'END'
ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFRoaXNLZXlJc05vYm9keXNLZXkx eva@desk
END
    chown "$1:" "$2/.ssh/authorized_keys"
    chmod 600 "$2/.ssh/authorized_keys"
}
keys root /root
keys 'eva' '/home/eva'

systemctl enable sshd
systemctl disable firewalld

# The last word: this machine boots its own disk from now on.
report 'done'
