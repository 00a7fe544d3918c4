# What goes wrong from here on is told: the new system may start, and is not what was wanted.
tell() {
    try=0
    until wget -q -O /dev/null http://192.0.2.1/b/9656288994e92ea0224ecc6f8d9717e6/report/$1 || [ $((try += 1)) -ge 90 ]; do sleep 10; done
}
trap '[ $? = 0 ] || tell failed' EXIT
set -e

# Whose keys open it.
who=root home=/root
mkdir -p "/target$home/.ssh"
cat >>"/target$home/.ssh/authorized_keys" <<'KEYS'
ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAfromnowheretonowhereatallbutlongenough root
KEYS
chmod 700 "/target$home/.ssh"
chmod 600 "/target$home/.ssh/authorized_keys"
chroot /target chown -R "$who:" "$home/.ssh"

# The packages come from Ubuntu from now on.
suite=$(sed -n 's/^DISTRIB_CODENAME=//p' /target/etc/lsb-release)
from=http://archive.ubuntu.com/ubuntu
for part in "$suite" "$suite-updates" "$suite-security"; do
    echo "deb $from $part main restricted universe"
done >/target/etc/apt/sources.list

# The user's own, in the new system.
test -e /tmp/post.sh || { wget -q -O /tmp/post.new http://192.0.2.1/b/00000000000000000000000000000000/answer/post.sh && mv /tmp/post.new /tmp/post.sh; }
cp /tmp/post.sh /target/tmp/post.sh
in-target sh -c 'DEBIAN_FRONTEND=noninteractive sh /tmp/post.sh </dev/null'
rm -f /target/tmp/post.sh

# The last word: this machine boots its own disk from now on. A report that is lost means another
# wipe: it is tried for 15 minutes and more. Files of your own end with
#   wget -q -O /dev/null http://192.0.2.1/b/9656288994e92ea0224ecc6f8d9717e6/report/done
tell done
