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

# The answers' CA, and no other.
cat >/tmp/answers.pem <<'CA'
(the CA)
CA
export CURL_CA_BUNDLE=/tmp/answers.pem

curl -fsS -o /root/post.sh "https://192.0.2.1/b/00000000000000000000000000000000/answer/post.sh" && sh /root/post.sh || {
    report failed
    exit 1
}
rm /root/post.sh

# The last word: this machine boots its own disk from now on.
report 'done'
