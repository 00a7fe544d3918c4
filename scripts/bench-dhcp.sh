# shellcheck shell=bash disable=SC2034,SC2154
# dhcp   Leases per second, from DHCPDISCOVER to DHCPACK, of pretended machines behind a relay
#        (pilotlight rehearse), against Kea (its file never syncs) and dnsmasq (10,000 leases in
#        its file). Server and load on their own side of a cable and on their own core, with fresh
#        state each time, and each server asked by as many machines at once as suits it best,
#        which is found out first. Seven rounds, each in the opposite order of the one before; the
#        ratio is the median of the rounds' ratios.
#        Also the same with our store in memory, the time that a client waits at half of our
#        highest rate, and the limits: datagrams that are only sent back, a disk that only syncs,
#        and the load itself, checked against perfdhcp.

about[dhcp]='leases per second against Kea and dnsmasq; durable against in memory; how long a client waits'
pairs_of[dhcp]=7
goals[dhcp-vs-kea]='>=4'
goals[dhcp-vs-dnsmasq]='>=100'
goals[dhcp-durable-vs-memory]='>=0.9'
goals[dhcp-p99-ms]='<=20'

# Who is measured, in the order of a round.
dhcp_servers=(ours kea dnsmasq memory)
# How many machines get a lease in a run, which takes some seconds with each, and how many of them
# ask at once at the most: what suits best is among these.
declare -A dhcp_machines=([ours]=40000 [memory]=40000 [kea]=20000 [dnsmasq]=300 [dnsmasq-pings]=300)
declare -A dhcp_at_once=([ours]='64 256 1024' [memory]='64 256 1024' [kea]='8 16 32 64' [dnsmasq]='1 4 16')
declare -A dhcp_name=([ours]=pilotlight [memory]='its store in memory' [kea]=Kea [dnsmasq]=dnsmasq)
# One subnet, with room for each machine of each run.
dhcp_network=10.77.0.0/16 dhcp_pool=10.77.16.0-10.77.239.255 dhcp_room=57000
dhcp_held=10000
dhcp_relay=10.77.0.2

ready_dhcp() {
    need ip jq taskset dnsmasq
    peer_there kea-dhcp4 perfdhcp
    (($(nproc) >= 2)) || die "server and load want a core each, and this machine has one"
}

# --- one run -------------------------------------------------------------------------------------

dhcp_ours() {
    cat >"$dir/pilotlight.toml" <<TOML
state-dir = "$dir/state"

[dhcp]
mode = "full"

[[subnet]]
network = "$dhcp_network"
range = "$dhcp_pool"
TOML
    serve || die "pilotlight did not start: $dir/server.log"
}

dhcp_memory() {
    export PILOTLIGHT_STORE=memory
    dhcp_ours
    unset PILOTLIGHT_STORE
}

dhcp_kea() { kea_peer "$server" boot0 "$dhcp_network" "$dhcp_pool"; }

# With what its file holds when a hall has been at work for a while. By itself it pings an address
# before it offers it, and serves nobody else while it waits: 3 s for each of the first six.
dhcp_dnsmasq() { dhcp_dnsmasq-pings no-ping; }
dhcp_dnsmasq-pings() {
    dnsmasq_log=()
    awk -v held="$dhcp_held" -v ends="$(($(date +%s) + 43200))" 'BEGIN { for (i = 0; i < held; i++)
        printf "%d 06:00:00:00:%02x:%02x 10.77.%d.%d * *\n", ends, i / 256, i % 256, 192 + i / 250, 1 + i % 250 }' >"$dir/dnsmasq.leases"
    dnsmasq_peer "$server" boot0 <<DNSMASQ
dhcp-range=${dhcp_pool%-*},${dhcp_pool#*-},12h
dhcp-lease-max=$((2 * dhcp_held))
${1:-}
DNSMASQ
    # It has its socket before it has read its file, which takes a second.
    until_true 20 grep -qw started "$dir/dnsmasq.log" || die "dnsmasq did not start: $dir/dnsmasq.log"
}

# one_dhcp SERVER MACHINES rehearse's ARGUMENTS…: prints leases per second, milliseconds at the
# median, of the 99th of a hundred, and at the most, failures, then of processor: the server's and
# the load's milliseconds, and milliseconds by the clock.
# one_dhcp limits, one_dhcp perfdhcp RATE: see below.
one_dhcp() {
    local before after load_ms t
    dir=$lab/bench-dhcp-$1
    rm -rf "$dir"
    make_dir "$dir"
    mkdir -m 700 "$dir/state"
    cable
    pinned=(taskset -c 0) load_pinned=(taskset -c 1)
    case $1 in limits) dhcp_limits; return ;; perfdhcp) dhcp_perfdhcp "$2"; return ;; esac
    "dhcp_$1"
    # The first ones pay for what happens once: dnsmasq writes its file anew, all learn of the relay.
    dhcp_load --machines 8 --at-once 1 --prefix 02:00:77 >/dev/null 2>"$dir/rehearse.log" ||
        die "$1 gave no lease: $dir/rehearse.log"
    before=$(processor_ms)
    t=$(now)
    TIMEFORMAT='%U %S'
    # Its status tells whether a machine failed, which is in the figures, too.
    { time dhcp_load --machines "$2" "${@:3}" --json >"$dir/rehearse.json" 2>"$dir/rehearse.log"; } 2>"$dir/rehearse.times" || true
    t=$(($(now) - t))
    after=$(processor_ms)
    load_ms=$(awk '{ ms = ($1 + $2) * 1000 } END { printf "%d", ms }' "$dir/rehearse.times")
    [[ -s $dir/rehearse.json ]] || die "$1: the load did not run: $dir/rehearse.log"
    jq -er --arg cpu "$((after - before)) $load_ms $t" '(.steps[] | select(.step == "dhcp")) as $d
        | "\($d.per_second) \($d.p50_ms) \($d.p99_ms) \($d.max_ms) \(.failed) \($cpu)"' "$dir/rehearse.json" ||
        die "$1: the load gave no figures: $dir/rehearse.log"
}

dhcp_load() {
    inside "$load" "${load_pinned[@]}" "$pilotlight" rehearse --server "$address" --from "$dhcp_relay" --only dhcp --keep-leases "$@"
}

# What this machine could do at best: exchanges per second of datagrams of a lease's size that are
# only sent back, one and many at once, and writes per second that are only synced.
dhcp_limits() {
    local limits=$lab/limits one many
    as_owner rustc -O --edition 2024 -o "$limits" "$root/examples/limits.rs"
    spawn "$dir/echo.log" ip netns exec "$server" "${pinned[@]}" "$limits" echo "$address:67"
    until_true 5 listens "$server" udp 67 || die "the echo did not start: $dir/echo.log"
    one=$(inside "$load" "${load_pinned[@]}" "$limits" ask "$address:67" 300 1 2)
    many=$(inside "$load" "${load_pinned[@]}" "$limits" ask "$address:67" 300 64 2)
    printf '%s %s %s\n' "$one" "$many" "$("${pinned[@]}" "$limits" sync "$dir/state/limit" 2)"
}

# Kea's own generator at a rate that it can do: leases, drops, milliseconds from DHCPDISCOVER to
# DHCPOFFER and from DHCPREQUEST to DHCPACK in the mean.
dhcp_perfdhcp() { # rate
    dhcp_ours
    # As the load does, it says that it is a UEFI PXE client (options 60 and 93): the offer to any
    # other waits until a ping would have been answered.
    perfdhcp_peer "$load" -4 -r "$1" -R 50000 -n $((3 * $1)) -W 1000000 -o 60,505845436c69656e74 -o 93,0007 \
        -l "$dhcp_relay" "$address" >"$dir/perfdhcp.log" 2>&1 || true
    awk '/^received packets/ { got = $3 } /^drops:/ { drops += $2 } /^avg delay/ { avg = avg " " $3 }
        END { if (avg == "") exit 1; print got, drops avg }' "$dir/perfdhcp.log" || die "perfdhcp gave no figures: $dir/perfdhcp.log"
}

# --- all of them ---------------------------------------------------------------------------------

# What `one` printed, by names: got[rate], got[p50], …
declare -A got
dhcp_run() {
    local line out
    out=$(one "$@") || die "the run of $1 failed; see above"
    read -ra line <<<"$out"
    got=([rate]=${line[0]} [p50]=${line[1]} [p99]=${line[2]} [failed]=${line[4]} [cpu]=${line[5]} [load]=${line[6]} [wall]=${line[7]})
}

dhcp_suits() { # server: the number of machines at once that it gives most leases with
    local k best=0
    for k in ${dhcp_at_once[$1]}; do
        dhcp_run "$1" "$((dhcp_machines[$1] / 2))" --at-once "$k"
        note "$1, $k at once: $(calc "${got[rate]}" %.0f) leases/s, ${got[failed]} failed"
        ((got[failed] == 0)) && (($(calc "${got[rate]} > $best" %d))) && best=${got[rate]} at_once[$1]=$k
    done
    [[ -n ${at_once[$1]:-} ]] || die "$1 failed with every number of machines: $lab/bench-dhcp-$1"
}

median() { stat_of | cut -d' ' -f1; }
lines() { tr ' ' '\n' <<<"${1# }"; } # words

bench_dhcp() {
    local i s order half table=() waits='' p50s='' leases text
    declare -A at_once=() rate=() cpu=() load=() wall=() last=() spent=() ratio=() saved=()
    for s in "${dhcp_servers[@]}"; do dhcp_suits "$s"; done
    for ((i = 1; i <= pairs; i++)); do
        mapfile -t order < <(printf '%s\n' "${dhcp_servers[@]}" | if ((i % 2)); then cat; else tac; fi)
        text=''
        for s in "${order[@]}"; do
            dhcp_run "$s" "${dhcp_machines[$s]}" --at-once "${at_once[$s]}"
            ((got[failed] == 0)) || warn "$s, round $i: ${got[failed]} machines without a lease: $lab/bench-dhcp-$s"
            leases=$((dhcp_machines[$s] - got[failed]))
            last[$s]=${got[rate]}
            rate[$s]+=" ${got[rate]}"
            # Milliseconds of processor for a thousand leases, and how much of its core each took.
            spent[$s]=$(calc "${got[cpu]} * 1000 / ($leases + !$leases)" %.1f)
            cpu[$s]+=" ${spent[$s]}"
            wall[$s]+=" $(calc "${got[cpu]} * 100 / ${got[wall]}" %.0f)"
            load[$s]+=" $(calc "${got[load]} * 100 / ${got[wall]}" %.0f)"
            text+=", $s $(calc "${got[rate]}" %.0f)"
        done
        note "round $i of $pairs, leases/s${text/,/:}"
        for s in kea dnsmasq memory; do
            ratio[$s]+=" $(calc "${last[ours]} / ${last[$s]}" %.4f)"
            saved[$s]+=" $(calc "${spent[$s]} / ${spent[ours]}" %.4f)"
        done
    done
    half=$(calc "$(lines "${rate[ours]}" | median) / 2" %.0f)
    local machines=$((half * 3 < dhcp_room ? half * 3 : dhcp_room))
    for ((i = 1; i <= pairs; i++)); do
        dhcp_run ours "$machines" --rate "$half"
        ((got[failed] == 0)) || warn "at half of the rate, run $i: ${got[failed]} machines without a lease"
        waits+=" ${got[p99]}" p50s+=" ${got[p50]}"
    done

    echo
    say "DISCOVER to ACK, server and load on a core each; median of $pairs (least to most)"
    printf '%-20s %8s  %-26s %-26s %s\n' server 'at once' leases/s 'its cpu ms for 1,000' 'core: its, load'
    for s in "${dhcp_servers[@]}"; do
        printf '%-20s %8s  %-26s %-26s %s%%, %s%%\n' "${dhcp_name[$s]}" "${at_once[$s]}" "$(dhcp_range "${rate[$s]}" %.0f)" \
            "$(dhcp_range "${cpu[$s]}" %.1f)" "$(lines "${wall[$s]}" | median)" "$(lines "${load[$s]}" | median)"
    done
    for s in "${dhcp_servers[@]}"; do
        (($(calc "$(lines "${load[$s]}" | median) > 80" %d))) || continue
        say "the load's core was the limit for ${dhcp_name[$s]}: it could do more"
    done
    for s in kea dnsmasq memory; do
        say "pilotlight to ${dhcp_name[$s]}: $(dhcp_range "${ratio[$s]}" %.2f); by processor time: $(dhcp_range "${saved[$s]}" %.2f)"
    done
    say "at $half leases/s a client waits $(dhcp_range "$p50s" %.2f) ms at the median, $(dhcp_range "$waits" %.2f) ms at p99"
    dhcp_run dnsmasq-pings "${dhcp_machines[dnsmasq-pings]}" --at-once "${at_once[dnsmasq]}"
    say "dnsmasq with its pings, behind the first ones that wait 3 s each: $(calc "${got[rate]}" %.0f) leases/s, one run"
    local limit=() perf=()
    text=$(one limits) || die "the limits could not be measured; see above"
    read -ra limit <<<"$text"
    say "the limits: ${limit[0]} datagrams there and back a second one by one, ${limit[1]} with 64 at once (a lease is"
    say "  two); ${limit[2]} writes of 4 KiB a second each synced"
    dhcp_run ours 6000 --rate 2000
    text=$(one perfdhcp 2000) || die "perfdhcp failed; see above"
    read -ra perf <<<"$text"
    say "the load at 2000 leases/s: 6000 machines, ${got[failed]} failed, ${got[p50]} ms at the median; perfdhcp:"
    say "  ${perf[0]} of 6000, ${perf[1]} drops, ${perf[2]} ms to the OFFER and ${perf[3]} ms to the ACK in the mean"

    bar dhcp-vs-kea "$(calc "$(lines "${ratio[kea]}" | median)" %.2f)"
    bar dhcp-vs-dnsmasq "$(calc "$(lines "${ratio[dnsmasq]}" | median)" %.0f)"
    bar dhcp-durable-vs-memory "$(calc "$(lines "${ratio[memory]}" | median)" %.2f)"
    bar dhcp-p99-ms "$(calc "$(lines "$waits" | median)" %.2f)"
}

# dhcp_range WORDS FORMAT: median (least to most)
dhcp_range() {
    lines "$1" | stat_of | awk -v f="$2" '{ printf f " (" f " to " f ")", $1, $2, $3 }'
}
