# shellcheck shell=bash disable=SC2034,SC2154
# watch  What it costs to be looked at. A server with 2,000 declared machines:
#          first page   time at the server for the dashboard's first page, curl's time to its last
#                       byte on loopback, the median of 20; and its bytes, not compressed
#          change       from before the order for one machine is sent to the admin door (its state is on
#                       the disk before it is told) to the piece of HTML for its tile on an open page's stream,
#                       while 200 simulated machines boot all the time; the worst of 20
#          recording    processor time of the server for a rehearsal of 2,000 machines with events
#                       recorded, against none (PILOTLIGHT_EVENTS=off), in pairs ABBA

about[watch]='the dashboard at 2,000 machines: first page, a change on an open page, what events cost'
pairs_of[watch]=5
goals[first-page-ms]='<=100'
goals[first-page-bytes]='<=300000'
goals[change-ms]='<=250'
goals[events-cost-percent]='<=5'

watch_machines=2000 watch_booting=200 watch_changes=20 watch_pages=20

ready_watch() {
    need ip jq curl taskset
    (($(nproc) >= 2)) || die "server and load want a core each, and this machine has one"
    "$root/scripts/loaders" --quiet
    "$root/scripts/htmx" --quiet
}

# --- one run -------------------------------------------------------------------------------------

watch_mac() { printf '52:54:00:%02x:%02x:%02x' $(($1 >> 16)) $(($1 >> 8 & 255)) $(($1 & 255)); }

# The whole hall for the server; the part of it that boots, for the load.
watch_configure() {
    local i
    mkdir -m 700 "$dir/state"
    touch "$dir/preseed.cfg"
    make_dir "$dir/files"
    head -c 200000 /dev/zero >"$dir/files/linux"
    head -c 400000 /dev/zero >"$dir/files/initrd.gz"
    cat >"$dir/pilotlight.toml" <<TOML
state-dir = "$dir/state"

[dhcp]
mode = "full"
ping-check = false

[[subnet]]
network = "10.77.0.0/16"
range = "10.77.64.0-10.77.127.255"

[[files]]
name = "f"
dir = "$dir/files"

[[profile]]
name = "linux"
kernel = "f/linux"
initrd = "f/initrd.gz"
args = "quiet"
TOML
    for ((i = 1; i <= watch_machines; i++)); do
        ((i != watch_booting + 1)) || cp "$dir/pilotlight.toml" "$dir/booting.toml"
        printf '\n[[machine]]\nname = "r%02d-n%02d"\nmac = "%s"\nprofile = "linux"\n' $((i / 40)) $((i % 40)) "$(watch_mac $i)" >>"$dir/pilotlight.toml"
    done
}

watch_load() { # CONFIG LOG
    inside "$load" "${load_pinned[@]}" "$pilotlight" rehearse --server "$address" --from 10.77.0.2 \
        --config "$1" --source-per-machine --keep-leases --json >"$2" 2>"$2.log"
}

watch_get() { inside "$server" curl -sS --max-time 10 "$@"; }

# one_watch pages: milliseconds and bytes of first pages, by lines, then `change` and milliseconds.
# one_watch on|off: milliseconds of the server's processor for all machines to boot once.
one_watch() {
    local before after i
    dir=$lab/bench-watch-$1
    rm -rf "$dir"
    make_dir "$dir"
    cable
    # Each machine speaks from its own address; for the kernel's table of neighbours they are one.
    ip -n "$load" route add local 10.77.64.0/18 dev lo
    ip -n "$server" route add 10.77.64.0/18 via 10.77.0.2
    pinned=(taskset -c 0) load_pinned=(taskset -c 1)
    watch_configure
    [[ $1 != off ]] || export PILOTLIGHT_EVENTS=off
    serve || die "pilotlight did not start: $dir/server.log"
    unset PILOTLIGHT_EVENTS
    if [[ $1 == pages ]]; then watch_pages; return; fi
    before=$(processor_ms)
    watch_load "$dir/pilotlight.toml" "$dir/load" || true
    after=$(processor_ms)
    [[ -s $dir/load ]] || die "the machines did not boot: $dir/load.log"
    echo $((after - before))
}

watch_pages() {
    local i base=http://127.0.0.1:8067 id csrf t stream
    # The first of all makes every tile, and is not what a person waits for each time: it is told, too.
    for ((i = 0; i <= watch_pages; i++)); do
        watch_get -o "$dir/page.html" -w 'page %{time_total} %{size_download}\n' "$base/" || die "no page: $dir/server.log"
    done | awk '{ print $1, $2 * 1000, $3 }'
    grep -q 'id=m525400000001' "$dir/page.html" || die "the page has no tiles: $dir/page.html"

    # All the time, machines boot; they are ended with this run's namespaces.
    spawn "$dir/booting.out" watch_boots
    # An open page: when each tile's piece came, in milliseconds.
    spawn "$dir/seen" watch_stream "$base/live"
    stream=$spawned
    until_true 20 grep -qs ready "$dir/seen" || die "the stream said nothing: $dir/seen"
    for ((i = 0; i < watch_changes; i++)); do
        id=$(watch_mac $((watch_machines - i)))
        id=${id//:/}
        csrf=$(watch_get "$base/machines/$id" | sed -n 's/.*name="csrf" value="\([^"]*\)".*/\1/p' | head -n 1)
        t=$(now)
        watch_get -o /dev/null -f -d "csrf=$csrf" "$base/machines/$id/local" || die "the order was not taken: $dir/server.log"
        until_true 10 grep -qs "$id" "$dir/seen" || die "the change of $id never came: $dir/seen"
        echo "change $(($(awk -v id="$id" '$2 == id { print $1; exit }' "$dir/seen") - t))"
    done
    alive "$stream" || die "the stream ended: $dir/seen"
}

watch_boots() { while watch_load "$dir/booting.toml" "$dir/boots" || [[ -s $dir/boots ]]; do :; done; }

watch_stream() {
    watch_get -N --max-time 600 "$1" | grep --line-buffered -oE '^id: |id=m[0-9a-f]{12}><a class=l ' |
        while read -r line; do
            line=${line#id=m}
            case $line in id:*) echo "$(now) ready" ;; *) echo "$(now) ${line%%>*}" ;; esac
        done
}

# --- the bench -----------------------------------------------------------------------------------

bench_watch() {
    local i who out pages changes=() on off cost=()
    out=$(one pages) || die "watch: the run of the pages failed; see above"
    pages=$(awk '$1 == "page"' <<<"$out")
    note "the very first page, whose tiles are all new: $(awk 'NR == 1 { printf "%.0f ms", $2 }' <<<"$pages")"
    bar first-page-ms "$(awk 'NR > 1 { print $2 }' <<<"$pages" | stat_of | awk '{ printf "%.0f", $1 }')"
    bar first-page-bytes "$(awk '{ print $3 }' <<<"$pages" | sort -n | tail -n 1)"
    mapfile -t changes < <(awk '$1 == "change" { print $2 }' <<<"$out")
    ((${#changes[@]} == watch_changes)) || die "watch: ${#changes[@]} of $watch_changes changes were seen"
    note "from order to page, in ms, median, least, most: $(printf '%s\n' "${changes[@]}" | stat_of)"
    bar change-ms "$(printf '%s\n' "${changes[@]}" | sort -n | tail -n 1)"
    for ((i = 1; i <= pairs; i++)); do
        local order=(on off)
        ((i % 2)) || order=(off on)
        for who in "${order[@]}"; do
            out=$(one "$who") || die "watch: the run with events $who failed; see above"
            [[ $who == on ]] && on=$out || off=$out
        done
        note "pair $i of $pairs: processor ms of the server for $watch_machines boots: events recorded $on, not recorded $off"
        cost+=("$(calc "($on / $off - 1) * 100" %.1f)")
    done
    out=$(printf '%s\n' "${cost[@]}" | stat_of)
    bar events-cost-percent "${out%% *}"
}
