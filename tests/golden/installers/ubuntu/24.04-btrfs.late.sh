set -e

# What the image has of packages goes on coming from it, beside the archive that it has not.
suite=$(sed -n 's/^VERSION_CODENAME=//p' /target/etc/os-release)
echo "deb [trusted=yes] http://192.0.2.1/files/m $suite main restricted" >/target/etc/apt/sources.list.d/pilotlight.list

# The last word: this machine boots its own disk from now on. A report that is lost means another
# wipe: it is tried for 15 minutes and more. A file of your own ends with
#   wget -q -O /dev/null http://192.0.2.1/b/9656288994e92ea0224ecc6f8d9717e6/report/done
for try in $(seq 90); do
    if wget -q -T 10 -t 1 -O /dev/null http://192.0.2.1/b/9656288994e92ea0224ecc6f8d9717e6/report/done; then exit; fi
    sleep 10
done
