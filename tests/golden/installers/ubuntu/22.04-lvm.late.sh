set -e
mkdir -p /target/etc/default/grub.d
echo 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX console=ttyS0 quiet"' >/target/etc/default/grub.d/90-pilotlight.cfg
curtin in-target -- update-grub

# The user's own, in the new system.
wget -q -O /target/tmp/post.sh http://192.0.2.1/b/00000000000000000000000000000000/answer/post.sh
curtin in-target -- sh /tmp/post.sh
rm -f /target/tmp/post.sh

# The last word: this machine boots its own disk from now on. A report that is lost means another
# wipe: it is tried for 15 minutes and more. A file of your own ends with
#   wget -q -O /dev/null http://192.0.2.1/b/9656288994e92ea0224ecc6f8d9717e6/report/done
for try in $(seq 90); do
    if wget -q -T 10 -t 1 -O /dev/null http://192.0.2.1/b/9656288994e92ea0224ecc6f8d9717e6/report/done; then exit; fi
    sleep 10
done
