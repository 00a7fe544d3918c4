# shellcheck shell=bash disable=SC2034,SC2154 # scripts/bench sources this and uses what it defines
#
# tftp   A file of 40 MB, and a loader of 1 MB (which ours keeps in memory), by TFTP against
#        tftpd-hpa and atftpd, each with the settings that suit it best. Server and clients are two network namespaces with one cable
#        between them and a processor each; the clients are ours, thousands from one thread.
#          lock-step  one client, blksize 1428, a block for each acknowledgement; beside it the
#                     limit: datagrams of the same sizes to and fro without any TFTP
#          many       200 clients at once, 400 loaders in all, blksize 1428
#          window     one client, windowsize 16; beside it the limit: a blast of UDP
#          hall       2,000 clients at once, each one loader
#        Seven pairs in the order ABBA, each with a server freshly started; the ratio is the median
#        of the pairs' ratios. Processor time is the control group's (cpuacct or cgroup v2), so
#        that forked servers that are no more count, too.

about[tftp]='TFTP: one client, 200 and 2,000 at once, windows, against tftpd-hpa and atftpd'
pairs_of[tftp]=7
goals[tftp-lock-step]='>=1.0'
goals[tftp-many]='>=3'
goals[tftp-window]='>=2'
goals[tftp-hall]='>=5'
goals[tftp-hall-failures]='<=0'
goals[tftp-hall-memory]='<=64'

udp_limit=${UDP_LIMIT:-${CARGO_TARGET_DIR:-$root/target}/release/examples/udp-limit}

ready_tftp() {
    need taskset ip
    local p
    for p in in.tftpd atftpd; do
        [[ -n $(tftp_peer "$p") ]] || die "no $p to measure against. Type: sudo $root/scripts/deps bench"
    done
    (($(nproc) >= 2)) || die "this bench wants two processors, one for each side"
    [[ -n ${UDP_LIMIT:-} ]] || cargo build --quiet --release --locked --example udp-limit --manifest-path "$root/Cargo.toml"
}

# A peer lies in its own folder, or in that of its package.
tftp_peer() { compgen -G "$cache/peers/$1/usr/sbin/$1" || compgen -G "$cache/peers/*/usr/sbin/$1" | grep -v 'atftpd/usr/sbin/in.tftpd' | head -n 1; }

# --- one run ---------------------------------------------------------------------------------------

# A control group that counts the processor's time of all that ever ran in it.
tally() {
    local base
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then base=/sys/fs/cgroup
    elif [[ -d /sys/fs/cgroup/cpuacct ]]; then base=/sys/fs/cgroup/cpuacct
    else die "no control groups here, and a server's dead children are not to be counted without"; fi
    group=$base/pilotlight-bench-$$
    mkdir "$group" || die "cannot make a control group in $base"
    on_exit "untally"
}
untally() {
    local pid
    while read -r pid; do kill -KILL "$pid" 2>/dev/null || true; done <"$group/cgroup.procs"
    until_true 5 rmdir "$group" 2>/dev/null
}
spent() { # microseconds
    if [[ -e $group/cpu.stat ]]; then awk '/^usage_usec/ { print $2 }' "$group/cpu.stat"
    else awk '{ printf "%d\n", $1 / 1000 }' "$group/cpuacct.usage"; fi
}

# server_side LOG COMMAND…: in the server's namespace, on its processor, in the group.
server_side() {
    local log=$1
    shift
    # shellcheck disable=SC2016 # the inner shell is to expand these
    spawn "$log" sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' sh "$group" ip netns exec "$server" taskset -c 0 "$@"
}
client_side() { inside "$load" taskset -c 1 "$@"; }

serve_tftp() { # WHO
    case $1 in
        ours)
            mkdir -m 700 "$dir/state"
            printf 'state-dir = "%s/state"\n[dhcp]\nmode = "off"\n[tftp]\ndir = "%s/files"\n[ipxe]\ndir = "%s/files"\n' \
                "$dir" "$dir" "$dir" >"$dir/pilotlight.toml"
            server_side "$dir/server.log" "${limited[@]}" "$pilotlight" serve --interface boot0 --config "$dir/pilotlight.toml"
            until_true 20 grep -qsw ready "$dir/server.log" || die "pilotlight did not start: $dir/server.log"
            ;;
        # Stays in front, blocks up to what a frame carries, no lookups of names; nothing in its way.
        tftpd-hpa) server_side "$dir/server.log" "$(tftp_peer in.tftpd)" -L -4 -a "$address:69" -B 1468 -s -u root "$dir/files" ;;
        # Threads enough for a hall, and no word in the log but errors.
        atftpd)
            server_side "$dir/server.log" "$(tftp_peer atftpd)" --daemon --no-fork --no-multicast --maxthread 4000 \
                --user root --group root --verbose=3 --logfile "$dir/atftpd.log" --bind-address "$address" "$dir/files"
            ;;
        echo) server_side "$dir/server.log" "$udp_limit" echo "$address:69" --size 1432 ;;
    esac
    until_true 10 listens "$server" udp 69 || die "$1 does not listen: $dir/server.log"
}

# one_tftp ROW WHO: bytes, seconds, processor seconds of the clients, failures, processor seconds of
# the server, its resident kB at the most.
one_tftp() {
    local row=$1 who=$2 before after out
    dir=$lab/bench-tftp-$row-$who
    rm -rf "$dir"
    make_dir "$dir" "$dir/files"
    head -c 40000000 /dev/urandom >"$dir/files/image"
    head -c 1000000 /dev/urandom >"$dir/files/snponly.efi"
    chmod -R a+rX "$dir/files"
    cable
    if [[ $who == blast ]]; then
        spawn "$dir/sink.out" ip netns exec "$load" taskset -c 1 "$udp_limit" sink 10.77.0.2:4000
        local sink=$spawned
        until_true 5 listens "$load" udp 4000 || die "the sink does not listen"
        inside "$server" taskset -c 0 "$udp_limit" blast 10.77.0.2:4000 --size 1432 --count 28012 >/dev/null
        until_true 10 test -s "$dir/sink.out" || die "the sink heard nothing"
        end "$sink"
        echo "$(<"$dir/sink.out") 0 0"
        return
    fi
    tally
    serve_tftp "$who"
    local server_pid=$spawned get=(get "$address:69" --blksize 1428)
    case $row-$who in
        *-echo) get=(ping "$address:69" --size 1432 --count 28012) ;;
        lock-step-*) get+=(--name image) ;;
        window-*) get+=(--name image --windowsize 16) ;;
        many-*) get+=(--name snponly.efi --at-once 200 --count 400) ;;
        hall-*) get+=(--name snponly.efi --at-once 2000 --count 2000) ;;
    esac
    before=$(spent)
    out=$(client_side timeout 300 "$udp_limit" "${get[@]}" 2>"$dir/client.log") || die "$row, $who: $(tail -n 1 "$dir/client.log")"
    after=$(spent)
    echo "$out $(calc "($after - $before) / 1e6" %.6f) $(awk '/^VmHWM/ { print $2 }' "/proc/$server_pid/status")"
}

# --- all of them -----------------------------------------------------------------------------------

bench_tftp() {
    local row peer i who out table=() failures=0 memory=0
    declare -A wall=() cpu=() bytes=()
    for row in lock-step many window hall; do
        peer=tftpd-hpa
        [[ $row != window ]] || peer=atftpd
        local ow=() pw=() oc=() pc=() lw=() ratio=() limit=''
        case $row in lock-step) limit='echo' ;; window) limit='blast' ;; esac
        for ((i = 1; i <= pairs; i++)); do
            local order=(ours "$peer")
            ((i % 2)) || order=("$peer" ours)
            for who in "${order[@]}" $limit; do
                out=$(one "$row" "$who") || die "tftp, $row: the run of $who failed; see above"
                read -r "bytes[$who]" "wall[$who]" _ failed "cpu[$who]" kb <<<"$out"
                [[ $who != ours ]] || { failures=$((failures + failed)); ((kb <= memory)) || memory=$kb; }
                [[ $who == ours || $failed == 0 ]] || note "$who: $failed transfers failed"
            done
            note "$row, pair $i of $pairs: pilotlight ${wall[ours]} s (processor ${cpu[ours]} s), $peer ${wall[$peer]} s (${cpu[$peer]} s)${limit:+, $limit ${wall[$limit]} s}"
            ow+=("${wall[ours]}") pw+=("${wall[$peer]}") oc+=("${cpu[ours]}") pc+=("${cpu[$peer]}")
            # What the sink was too slow for is lost, and does not count.
            [[ -z $limit ]] || lw+=("$(calc "${wall[$limit]} * 40000000 / ${bytes[$limit]}")")
            case $row in
                lock-step | window) ratio+=("$(calc "(${bytes[ours]} / ${wall[ours]}) / (${bytes[$peer]} / ${wall[$peer]})")") ;;
                *) ratio+=("$(calc "(${bytes[ours]} / ${cpu[ours]}) / (${bytes[$peer]} / ${cpu[$peer]})")") ;;
            esac
        done
        local a b c d e r
        a=$(printf '%s\n' "${ow[@]}" | stat_of) b=$(printf '%s\n' "${pw[@]}" | stat_of)
        c=$(printf '%s\n' "${oc[@]}" | stat_of) d=$(printf '%s\n' "${pc[@]}" | stat_of)
        r=$(printf '%s\n' "${ratio[@]}" | stat_of) e='-'
        [[ -z $limit ]] || e=$(printf '%s\n' "${lw[@]}" | stat_of)
        table+=("$(printf '%-10s %-10s %9.3f %9.3f   %9.3f %9.3f   %6.2f (%s to %s)  %s' "$row" "$peer" \
            "${a%% *}" "${c%% *}" "${b%% *}" "${d%% *}" "${r%% *}" "$(cut -d' ' -f2 <<<"$r")" "${r##* }" "${limit:+$limit ${e%% *}}")")
        bar "tftp-$row" "$(printf '%.2f' "${r%% *}")"
    done
    bar tftp-hall-failures "$failures"
    bar tftp-hall-memory "$(calc "$memory / 1024" %.1f)"
    say
    say "seconds of wall and of the server's processor, medians of $pairs; ratio: throughput (lock-step, window) or bytes per processor second (many, hall)"
    printf '%-10s %-10s %9s %9s   %9s %9s   %-22s  %s\n' '' peer our-wall our-cpu its-wall its-cpu 'ratio (least to most)' 'limit, wall'
    printf '%s\n' "${table[@]}"
}
