# shellcheck shell=bash
# Shared by all the scripts here: words to the user, cleaning up, apt, cargo, and private networks.
# Source it; it does nothing by itself.
set -euo pipefail
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$root/.cache
lab=$root/target/lab
# Debian keeps the network tools where an ordinary user's PATH does not look.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# --- words -----------------------------------------------------------------------------------

# shellcheck disable=SC2034 # whoever sources this uses them
if [[ -t 1 && -z ${NO_COLOR:-} ]]; then bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' dim=$'\e[2m' plain=$'\e[0m'
else bold='' red='' green='' dim='' plain=''; fi

say() { printf '%s\n' "$*"; }
step() { printf '%s==> %s%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s    %s%s\n' "$dim" "$*" "$plain"; }
warn() { printf '%swarning:%s %s\n' "$red" "$plain" "$*" >&2; }
die() { printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2; exit 1; }

# Prints the comment block below the first line of the script: its page of help.
help() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"; exit 0; }

now() { local t=${EPOCHREALTIME/[.,]/}; printf '%s\n' "${t:0:-3}"; }                # milliseconds
seconds() { printf '%d.%01d' $(($1 / 1000)) $(($1 % 1000 / 100)); }   # of milliseconds, for people
hundredths() { printf '%d.%02d' $(($1 / 1000)) $(($1 % 1000 / 10)); }

# --- cleaning up -----------------------------------------------------------------------------

# What on_exit was given runs last first, whatever ends the script.
cleanups=()
on_exit() { cleanups+=("$*"); }
clean_up() {
    local status=$? i
    trap - EXIT
    trap '' INT TERM HUP
    for ((i = ${#cleanups[@]} - 1; i >= 0; i--)); do eval "${cleanups[i]}" || true; done
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# end PID [SECONDS]: ends a process that we started: politely, then for good.
end() {
    local pid=$1 i
    kill -TERM "$pid" 2>/dev/null || return 0
    for ((i = 0; i < ${2:-3} * 20; i++)); do
        alive "$pid" || break
        sleep 0.05
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

# A process that has ended but that nobody has waited for is not alive.
alive() {
    local state
    state=$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) && [[ -n $state && $state != Z ]]
}

# spawn LOG COMMAND…: in the background, its output in LOG; sets $spawned. Ended at our exit.
spawn() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null &
    spawned=$!
    on_exit "end $spawned"
}

# until_true SECONDS COMMAND…: asks every 100 ms until it says yes; 1 where it never did.
until_true() {
    local end=$(($(now) + $1 * 1000))
    shift
    until "$@"; do
        (($(now) < end)) || return 1
        sleep 0.1
    done
}

# --- the machine ------------------------------------------------------------------------------

need_root() {
    ((EUID == 0)) || die "$1 needs root. Type: sudo $0${2:+ $2}"
}

missing() { # names of those commands that are not there
    local c
    for c in "$@"; do command -v "$c" >/dev/null || printf '%s ' "$c"; done
}

need() {
    local gone
    gone=$(missing "$@")
    [[ -z $gone ]] || die "not installed: ${gone% }. Type: sudo $root/scripts/deps"
}

# Folders that root makes belong to whoever owns the clone, so that cargo without root can go on.
make_dir() {
    local dir
    for dir in "$@"; do
        mkdir -p "$dir"
        ((EUID == 0)) && own "$dir"
    done
    return 0
}

own() {
    local path=$1
    while [[ $path == "$root"/* ]]; do
        chown -h --reference="$root" "$path"
        path=${path%/*}
    done
}

# cargo as the user who called sudo, with that user's toolchain; their clone stays theirs.
owner_home() { getent passwd "${SUDO_USER:-$(id -un)}" | cut -d: -f6; }
as_owner() {
    local path
    path=$(owner_home)/.cargo/bin:$HOME/.cargo/bin:$cache/rust:$PATH
    if ((EUID == 0)) && [[ ${SUDO_USER:-root} != root && $(stat -c %U "$root") == "$SUDO_USER" ]]; then
        runuser -u "$SUDO_USER" -- env HOME="$(owner_home)" PATH="$path" "$@"
    else
        env PATH="$path" "$@"
    fi
}
cargo() { as_owner cargo "$@"; }

binary() { # builds the release binary where it is older than its sources; sets $pilotlight
    if [[ -n ${PILOTLIGHT:-} ]]; then
        pilotlight=$PILOTLIGHT
        [[ -x $pilotlight ]] || die "PILOTLIGHT=$pilotlight is not a program"
        return
    fi
    "$root/scripts/loaders" --quiet
    "$root/scripts/htmx" --quiet
    step "building pilotlight (the first time takes some minutes)"
    cargo build --release --locked --manifest-path "$root/Cargo.toml"
    pilotlight=${CARGO_TARGET_DIR:-$root/target}/release/pilotlight
}

# --- apt --------------------------------------------------------------------------------------

# The mirrors that this machine's own apt uses for an origin ("Debian", "Ubuntu"), main archive
# only: neither the security nor a third party's.
apt_mirrors() {
    # shellcheck disable=SC2016 # apt replaces these, not the shell
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk -v origin="$1" '$1 == origin && $2 !~ /security/ { print $2 }' | sort | uniq -c |
        sort -rn | awk '{ print $2 }'
}

# What Debian's signatures are checked with; nothing where it is not here.
debian_keys() {
    local keys
    for keys in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
        [[ ! -r $keys ]] || { printf '%s\n' "$keys"; return; }
    done
}

# unpack PACKAGE DIR: downloads the package with the system's apt and unpacks it, installing
# nothing; done once.
unpack() {
    local package=$1 dir=$2 work
    [[ ! -e $dir/.complete ]] || return 0
    make_dir "$cache"
    rm -rf "$dir"
    mkdir -p "$dir"
    work=$(mktemp -d "$cache/unpack.XXXXXX")
    if ! (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package" >apt.log 2>&1); then
        sed 's/^/    /' "$work/apt.log" >&2
        rm -rf "$work" "$dir"
        return 1
    fi
    # Its callers ask `unpack … ||`, where errexit is off: half a package would count as whole.
    if ! dpkg-deb -x "$work"/*.deb "$dir"; then
        rm -rf "$work" "$dir"
        return 1
    fi
    rm -rf "$work"
    touch "$dir/.complete"
}

# Where the unpacked peers find the libraries that were unpacked beside them, or came with them, for
# LD_LIBRARY_PATH.
peer_libraries() {
    local list
    list=$(printf ':%s' "$cache"/peers/{lib/*,apt-cacher-ng}/usr/lib/*/)
    printf '%s\n' "${list#:}"
}

# --- private networks -------------------------------------------------------------------------
#
# Each lab has network namespaces of its own, named after the script's process, so that any number
# of them run side by side, and nothing of them is seen on the host's own network.

# space NAME: makes a namespace and sets $space to its full name.
prefix=pl$$
space() {
    space=$prefix$1
    ip netns add "$space" || die "cannot make a network namespace: this needs root on a kernel that lets it (a container must be privileged)"
    on_exit "ip netns delete $space 2>/dev/null"
    ip -n "$space" link set lo up
}

inside() { ip netns exec "$@"; }

# switch SPACE: a bridge that forwards at once. Without spanning tree's 15 s of silence, which is
# the first thing to turn off on a real switch port, too. The bridge itself stays out of IPv6: its
# own router solicitations have no business in what we measure.
switch() {
    inside "$1" sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
                       echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6'
    ip -n "$1" link add "${2:-br0}" type bridge forward_delay 0 stp_state 0 mcast_snooping 0
    ip -n "$1" link set "${2:-br0}" up
}

# plug SPACE INTERFACE ADDRESS/PREFIX SWITCH PORT [BRIDGE]: a cable from a space to a switch.
plug() {
    ip -n "$1" link add "$2" type veth peer name "$5" netns "$4"
    ip -n "$4" link set "$5" master "${6:-br0}" up
    ip -n "$1" link set "$2" up
    ip -n "$1" address add "$3" dev "$2"
}

# socket SWITCH TAP [BRIDGE]: where a virtual machine's card goes in.
socket() {
    ip -n "$1" tuntap add "$2" mode tap
    ip -n "$1" link set "$2" master "${3:-br0}" up
}

# Namespaces that a killed script (SIGKILL, power) left behind: those named after a process that
# is no more. What still runs in them was started by it.
sweep() {
    local name pid
    for name in $(ip netns list 2>/dev/null | awk '/^pl[0-9]+[a-z]/ { print $1 }'); do
        pid=${name#pl}
        pid=${pid%%[a-z]*}
        [[ ! -d /proc/$pid ]] || continue
        for pid in $(ip netns pids "$name"); do kill -KILL "$pid" 2>/dev/null || true; done
        ip netns delete "$name" || true
    done
}
