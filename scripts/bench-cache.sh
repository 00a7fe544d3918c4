# shellcheck shell=bash disable=SC2034,SC2154 # scripts/bench sources this and uses what it defines
#
# cache  What a cache of public mirrors costs and saves, against nginx's proxy_cache with its lock
#        (and once more with the lock's time-outs raised), squid and apt-cacher-ng, each with the
#        settings that suit it best. Upstream, cache and clients are three network namespaces with
#        a cable each; the cache has one processor, the upstream and the clients the other.
#          hits       an object of 1 GB out of the cache, three times: the cache's processor seconds
#                     per GB, ours by each peer's
#          herd       200 clients at once, one object that takes the upstream 20 s: copies that the
#                     upstream sent, the followers' first byte behind the leader's (medians), the
#                     last byte of all by one direct download's
#          upstreams  an object from one upstream of 4 MB/s, and from three of them
#          prefetch   the second installation of a profile (script, kernel, initrd, 300 packages, 20 ms
#                     of thought behind each) behind an upstream of 6 MB/s and 40 ms, payload cache
#                     cold: learned prefetch on by off, and what it fetched in vain
#        Ten pairs of hits in the order ABBA, three of the others, which are bound by their upstream;
#        each with servers freshly started; the ratio is the median of the pairs' ratios.

about[cache]='mirrors through a cache: hits, a cold herd, three upstreams, learned prefetch'
pairs_of[cache]=10
goals[cache-hit-cpu-nginx]='<=1.0'
goals[cache-hit-cpu-squid]='<=0.33'
goals[cache-hit-cpu-acng]='<=0.67'
goals[herd-copies]='<=1.01'
goals[herd-first-byte-ms]='<=10'
goals[herd-first-byte-nginx]='>=100'
goals[herd-last-byte]='<=1.05'
goals[three-upstreams]='>=2.7'
goals[prefetch-time]='<=0.5'
goals[prefetch-waste]='<=0.05'

herd=${HERD:-${CARGO_TARGET_DIR:-$root/target}/release/examples/herd}
# A path that every one of them takes for an object that never changes.
object=debian/pool/main/b/big/big_1.0_amd64.deb

ready_cache() {
    need taskset ip tc curl jq
    peer_there nginx squid apt-cacher-ng
    # squid refuses to work as root.
    runuser -u nobody -- test -x "$root/scripts" || die "squid runs as nobody, who cannot come to $root: put the clone where everybody can"
    (($(nproc) >= 2)) || die "this bench wants two processors, one for the cache"
    [[ -n ${HERD:-} ]] || cargo build --quiet --release --locked --example herd --manifest-path "$root/Cargo.toml"
}

# --- the servers -----------------------------------------------------------------------------------

# upstream_of N [SHAPE…]: an nginx of its own in a namespace of its own, 10.79.N.2; what it sends goes
# through tc's SHAPE.
upstream_of() {
    local n=$1 dir=$dir/up$1 pinned=(taskset -c 1)
    shift
    space "u$n"
    upstreams[n]=$space
    ip -n "$space" link add up0 type veth peer name "wan$n" netns "$server"
    ip -n "$space" address add "10.79.$n.2/24" dev up0
    ip -n "$space" link set up0 up
    ip -n "$server" address add "10.79.$n.1/24" dev "wan$n"
    ip -n "$server" link set "wan$n" up
    (($# == 0)) || inside "$space" tc qdisc add dev up0 "$@"
    mkdir -p "$dir"
    nginx_peer "$space" "$www"
}

# Body bytes that an upstream has sent for paths like this.
sent() { # N PATTERN
    awk -v pattern="$2" '$7 ~ pattern { sent += $10 } END { printf "%d\n", sent }' "$dir/up$1/nginx/access.log"
}

# As it is with a distribution's archive, whose lists are signed: the object's digest is known.
ours_cache() { # URL… of upstreams, as TOML strings with commas
    mkdir -m 700 "$dir/state"
    cat >"$dir/pilotlight.toml" <<TOML
state-dir = "$dir/state"
[dhcp]
mode = "off"
[[mirror]]
name = "m"
urls = [$1]
private = true
verify = "plain"
pin = { "$object" = "sha256:$(sha256sum <"$www/$object" | cut -d' ' -f1)" }
TOML
    server_side "$dir/server.log" "${limited[@]}" "$pilotlight" serve --interface boot0 --config "$dir/pilotlight.toml"
    until_true 20 grep -qsw ready "$dir/server.log" || die "pilotlight did not start: $dir/server.log"
}

# nginx's own advice for a cache of big files: sendfile, aio not; the lock lets one fetch for all.
nginx_cache() { # raised or not
    local lock=''
    [[ $1 != raised ]] || lock='proxy_cache_lock_timeout 1h; proxy_cache_lock_age 1h;'
    mkdir -p "$dir/nginx"
    cat >"$dir/nginx.conf" <<NGINX
daemon off;
user root;
worker_processes 1;
pid $dir/nginx/pid;
error_log $dir/nginx/error.log;
events { worker_connections 2048; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    proxy_cache_path $dir/nginx/cache levels=1:2 keys_zone=c:10m max_size=20g inactive=1d use_temp_path=off;
    client_body_temp_path $dir/nginx/body;
    proxy_temp_path $dir/nginx/proxy;
    fastcgi_temp_path $dir/nginx/fastcgi;
    uwsgi_temp_path $dir/nginx/uwsgi;
    scgi_temp_path $dir/nginx/scgi;
    server {
        listen 80;
        location / {
            proxy_pass http://10.79.0.2;
            proxy_cache c;
            proxy_cache_valid 200 1d;
            proxy_cache_lock on;
            proxy_max_temp_file_size 4096m;
            $lock
        }
    }
}
NGINX
    server_side "$dir/nginx/out.log" "$cache/peers/nginx/usr/sbin/nginx" -e "$dir/nginx/error.log" -p "$dir/nginx" -c "$dir/nginx.conf"
}

squid_cache() {
    local lib=$cache/peers/lib/squid-common/usr/share/squid
    mkdir -p "$dir/squid/cache"
    chmod -R a+rwX "$dir/squid"
    cat >"$dir/squid.conf" <<SQUID
http_port 80 accel defaultsite=10.79.0.2 no-vhost
cache_peer 10.79.0.2 parent 80 0 no-query originserver
http_access allow all
collapsed_forwarding on
cache_effective_user nobody
maximum_object_size 4 GB
cache_dir ufs $dir/squid/cache 20000 16 256
cache_mem 256 MB
refresh_pattern . 1440 100% 14400
access_log none
cache_log $dir/squid/cache.log
cache_store_log none
pid_filename $dir/squid/pid
coredump_dir $dir/squid
pinger_enable off
unlinkd_program $cache/peers/squid/usr/lib/squid/unlinkd
mime_table $lib/mime.conf
icon_directory $lib/icons
error_directory $cache/peers/lib/squid-langpack/usr/share/squid-langpack/templates
error_default_language en
netdb_filename none
visible_hostname cache
shutdown_lifetime 1 second
SQUID
    # Its shared memory has one name for all that run on a machine: a mount namespace keeps it apart.
    local run=(unshare --mount sh -c 'mount -t tmpfs none /dev/shm; exec "$@"' sh
        env "LD_LIBRARY_PATH=$(peer_libraries)" "$cache/peers/squid/usr/sbin/squid" -N -f "$dir/squid.conf")
    inside "$server" "${run[@]}" -z >"$dir/squid/z.log" 2>&1 || die "squid could not make its folders: $dir/squid/z.log"
    server_side "$dir/squid/out.log" "${run[@]}"
}

acng_cache() {
    mkdir -p "$dir"/acng/{conf,cache,log}
    cp "$cache"/peers/apt-cacher-ng/etc/apt-cacher-ng/security.conf "$dir/acng/conf/"
    cat >"$dir/acng/conf/acng.conf" <<ACNG
CacheDir: $dir/acng/cache
LogDir: $dir/acng/log
SupportDir: $cache/peers/apt-cacher-ng/usr/lib/apt-cacher-ng
Port: 80
PidFile: $dir/acng/pid
VerboseLog: 0
ForeGround: 1
ACNG
    server_side "$dir/acng/out.log" env LD_LIBRARY_PATH="$(peer_libraries)" \
        "$cache/peers/apt-cacher-ng/usr/sbin/apt-cacher-ng" -c "$dir/acng/conf"
}

# serve_cache WHO: sets $url, that of the object.
serve_cache() {
    url=http://$address/$object
    case $1 in
        ours) ours_cache '"http://10.79.0.2/"'; url=http://$address/mirror/m/$object ;;
        nginx) nginx_cache as-it-comes ;;
        nginx-raised) nginx_cache raised ;;
        squid) squid_cache ;;
        acng) acng_cache; url=http://$address/10.79.0.2/$object ;;
    esac
    until_true 20 listens "$server" tcp 80 || die "$1 does not listen: $dir"
}

place() { # BYTES: the object, old enough for whoever guesses a lifetime by its age
    mkdir -p "$www/${object%/*}"
    head -c "$1" /dev/urandom >"$www/$object"
    touch -d '100 days ago' "$www/$object"
}

begin_cache() { # NAME
    dir=$lab/bench-cache-$1 www=$lab/bench-cache-www upstreams=()
    rm -rf "$dir" "$www"
    make_dir "$dir" "$www"
    chmod a+rX "$dir" "$www"
    cable
    tally
}

# --- one run ---------------------------------------------------------------------------------------

one_cache() { "one_cache_$1" "${@:2}"; }

# Processor seconds of the cache for 3 GB of hits, and wall seconds.
one_cache_hits() { # WHO
    local before after t i
    begin_cache "hits-$1"
    place 1000000000
    upstream_of 0 root pfifo
    serve_cache "$1"
    fetched() { client_side curl -sSf --noproxy '*' --max-time 300 -o /dev/null -w '%{size_download}\n' "$url"; }
    [[ $(fetched) == 1000000000 ]] || die "$1 did not deliver the object: $dir"
    fetched >/dev/null # what it does but once behind a fill is over
    [[ $(sent 0 "$object") -le 1000000000 ]] || die "$1 does not keep the object: $dir"
    before=$(spent) t=$(now)
    for i in 1 2 3; do fetched >/dev/null || die "$1: a hit failed, $i"; done
    t=$(($(now) - t)) after=$(spent)
    [[ $(sent 0 "$object") -le 1000000000 ]] || die "$1 does not keep the object: $dir"
    echo "$(calc "($after - $before) / 1e6" %.4f) $(calc "$t / 1000")"
    rm -rf "$dir" "$www"
}

# Milliseconds: the leader's first byte, the followers' behind it (median, most), last of all, then
# bytes and failures; copies that the upstream sent; seconds of a direct download (ours only).
one_cache_herd() { # WHO
    local out direct=0 size=40000000 more=()
    begin_cache "herd-$1"
    place $size
    # With its head of 66 bytes a segment of 1448 is 1514 on the cable: so much for 2 MB/s of body.
    upstream_of 0 root tbf rate 16720kbit burst 64kb latency 1s
    serve_cache "$1"
    if [[ $1 == ours ]]; then
        direct=$(inside "$server" curl -sSf --noproxy '*' -o /dev/null -w '%{time_total}' "http://10.79.0.2/$object?direct")
    fi
    # Its followers give up waiting after 5 s and go upstream themselves: 200 copies of 20 s each.
    [[ $1 != nginx ]] || more=(--until-first 30)
    out=$(client_side "$herd" get "$url" --clients 200 "${more[@]}" 2>"$dir/herd.log") || die "herd, $1: $(tail -n 1 "$dir/herd.log")"
    echo "$out $(calc "$(sent 0 "/$object\$") / $size") $direct"
}

# Seconds for 60 MB from so many upstreams of 4 MB/s each.
one_cache_upstreams() { # COUNT
    local n urls=''
    begin_cache "upstreams-$1"
    place 60000000
    for ((n = 0; n < $1; n++)); do
        upstream_of "$n" root tbf rate 33440kbit burst 64kb latency 1s
        urls+="\"http://10.79.$n.2/\", "
    done
    ours_cache "$urls"
    client_side curl -sSf --noproxy '*' -o "$dir/got" -w '%{time_total}\n' "http://$address/mirror/m/$object"
    cmp "$dir/got" "$www/$object" || die "upstreams: other bytes than the upstream's"
}

# The profile: what a small Debian asks for.
packages=300

install_config() { # PREFETCH
    cat >"$dir/pilotlight.toml" <<TOML
state-dir = "$dir/state"
[cache]
prefetch = $1
[dhcp]
mode = "full"
ping-check = false
[[subnet]]
network = "10.77.0.0/16"
range = "10.77.64.0-10.77.64.255"
[[mirror]]
name = "m"
urls = ["http://10.79.0.2:81/"]
private = true
verify = "plain"
[[profile]]
name = "guest"
kind = "live"
kernel = "m/debian/linux"
initrd = "m/debian/initrd.gz"
args = "list={{ answers.list }}"
answers = { list = "$dir/list" }
[[machine]]
name = "hall"
mac = "02:00:00:*"
profile = "guest"
TOML
}

# installation NUMBER: a machine's DHCP, and all it fetches; sets $took (milliseconds from before its
# DISCOVER), $files and $bytes.
installation() {
    local t leased
    t=$(now)
    client_side "$pilotlight" rehearse --server "$address" --machines 1 --only dhcp --chain --keep-leases --seed "$1" \
        --prefix "02:00:00" >"$dir/dhcp-$1.out" 2>&1 || die "no lease: $(tail -n 2 "$dir/dhcp-$1.out")"
    leased=$(api v1/leases | jq -r '.[0] | "\(.address) \(.mac)"')
    ip -n "$load" address replace "${leased% *}/32" dev load0
    local mac=${leased#* }
    read -r files bytes _ < <(client_side "$herd" install "http://$address/boot/${mac//:/-}.ipxe" --from "${leased% *}" --think 20 2>"$dir/install.log") ||
        die "the installation failed: $(tail -n 1 "$dir/install.log")"
    took=$(($(now) - t))
}

start_install() { # PREFETCH NTH
    local log=$dir/server-$2.log
    install_config "$1"
    server_side "$log" "${limited[@]}" "$pilotlight" serve --interface boot0 --config "$dir/pilotlight.toml"
    server_pid=$spawned
    until_true 20 grep -qsw ready "$log" || die "pilotlight did not start: $log"
}

# Seconds of the second installation, and what the upstream sent beyond what that asked, by what it asked.
one_cache_prefetch() { # true|false
    local i before files bytes took
    begin_cache "prefetch-$1"
    mkdir -m 700 "$dir/state"
    mkdir -p "$www/debian/pool"
    head -c 8000000 /dev/urandom >"$www/debian/linux"
    head -c 12000000 /dev/urandom >"$www/debian/initrd.gz"
    {
        for ((i = 1; i <= packages; i++)); do
            head -c $((20000 + i * i % 160000)) /dev/urandom >"$www/debian/pool/p$i.deb"
            # shellcheck disable=SC1083 # the server's template, not ours
            echo "{{ mirrors.m }}/debian/pool/p$i.deb"
        done
    } >"$dir/list"
    find "$www" -type f -exec touch -d '100 days ago' {} +
    upstream_of 0 root handle 1: tbf rate 48mbit burst 64kb latency 1s
    spawn "$dir/delay.log" ip netns exec "${upstreams[0]}" taskset -c 1 "$herd" delay 10.79.0.2:81 --to 10.79.0.2:80 --ms 40
    until_true 10 listens "${upstreams[0]}" tcp 81 || die "the long way does not listen: $dir/delay.log"
    start_install "$1" 1
    installation 1
    ((files == packages + 2)) || die "the first installation fetched $files files"
    end "$server_pid" 10
    rm -rf "$dir/state/cache"
    before=$(sent 0 /debian/)
    start_install "$1" 2
    installation 2
    echo "$(calc "$took / 1000") $(calc "($(sent 0 /debian/) - $before - $bytes) / $bytes" %.4f)"
}

# --- all of them -----------------------------------------------------------------------------------

spread_of() { printf '%s\n' "$@" | stat_of; } # with the least and the most
nth() { cut -d' ' -f"$1" <<<"$2"; }
middle_of() { nth 1 "$(spread_of "$@")"; }
most_of() { nth 3 "$(spread_of "$@")"; }

bench_cache() {
    local who i out few=$((pairs < 3 ? pairs : 3)) table=()
    declare -A peer_goal=([nginx]=cache-hit-cpu-nginx [squid]=cache-hit-cpu-squid [acng]=cache-hit-cpu-acng)
    for peer in nginx squid acng; do
        local oc=() pc=() ow=() pw=() ratio=()
        for ((i = 1; i <= pairs; i++)); do
            local order=(ours "$peer")
            declare -A told=()
            ((i % 2)) || order=("$peer" ours)
            for who in "${order[@]}"; do told[$who]=$(one hits "$who") || die "hits: the run of $who failed; see above"; done
            oc+=("$(nth 1 "${told[ours]}")") ow+=("$(nth 2 "${told[ours]}")")
            pc+=("$(nth 1 "${told[$peer]}")") pw+=("$(nth 2 "${told[$peer]}")")
            ratio+=("$(calc "${oc[-1]} / ${pc[-1]}")")
            note "hits, pair $i of $pairs: pilotlight ${oc[-1]} processor s (${ow[-1]} s), $peer ${pc[-1]} (${pw[-1]} s)"
        done
        local r
        r=$(spread_of "${ratio[@]}")
        table+=("$(printf '%-14s %8.3f %8.3f   %6.2f (%s to %s)   %8.0f %8.0f' "hits, $peer" \
            "$(calc "$(middle_of "${oc[@]}") / 3")" "$(calc "$(middle_of "${pc[@]}") / 3")" \
            "$(nth 1 "$r")" "$(nth 2 "$r")" "$(nth 3 "$r")" \
            "$(calc "3000 / $(middle_of "${ow[@]}")")" "$(calc "3000 / $(middle_of "${pw[@]}")")")")
        bar "${peer_goal[$peer]}" "$(printf '%.2f' "$(nth 1 "$r")")"
    done

    local copies=() behind=() sooner=() last=() ours raised quick
    for ((i = 1; i <= few; i++)); do
        ours=$(one herd ours) || die "herd: the run of ours failed; see above"
        quick=$(one herd nginx) || die "herd: the run of nginx failed; see above"
        raised=$(one herd nginx-raised) || die "herd: the run of nginx, raised, failed; see above"
        [[ $(nth 6 "$ours") == 0 ]] || die "herd: $(nth 6 "$ours") of our clients failed"
        copies+=("$(nth 7 "$ours")") behind+=("$(nth 2 "$ours")")
        # Of nginx's two, the one that is better.
        sooner+=("$(calc "($(nth 2 "$quick") < $(nth 2 "$raised") ? $(nth 2 "$quick") : $(nth 2 "$raised")) / ($(nth 2 "$ours") > 0.01 ? $(nth 2 "$ours") : 0.01)")")
        last+=("$(calc "$(nth 4 "$ours") / 1000 / $(nth 8 "$ours")")")
        note "herd, $i of $few: followers' first byte behind the leader's $(nth 2 "$ours") ms (most $(nth 3 "$ours")), nginx $(nth 2 "$quick"), nginx raised $(nth 2 "$raised"); copies $(nth 7 "$ours"), $(nth 7 "$quick") by then, $(nth 7 "$raised"); last byte $(nth 4 "$ours") ms, direct $(nth 8 "$ours") s, nginx raised $(nth 4 "$raised") ms"
    done
    bar herd-copies "$(most_of "${copies[@]}")"
    bar herd-first-byte-ms "$(printf '%.1f' "$(middle_of "${behind[@]}")")"
    bar herd-first-byte-nginx "$(printf '%.0f' "$(middle_of "${sooner[@]}")")"
    bar herd-last-byte "$(printf '%.3f' "$(middle_of "${last[@]}")")"

    local times=() one three
    for ((i = 1; i <= few; i++)); do
        single=$(one upstreams 1) || die "upstreams: the run of one failed; see above"
        three=$(one upstreams 3) || die "upstreams: the run of three failed; see above"
        times+=("$(calc "$single / $three")")
        note "upstreams, $i of $few: one $single s, three $three s"
    done
    bar three-upstreams "$(printf '%.2f' "$(middle_of "${times[@]}")")"

    local time=() waste=() on off
    for ((i = 1; i <= few; i++)); do
        on=$(one prefetch true) || die "prefetch: the run with it failed; see above"
        off=$(one prefetch false) || die "prefetch: the run without it failed; see above"
        time+=("$(calc "$(nth 1 "$on") / $(nth 1 "$off")")") waste+=("$(nth 2 "$on")")
        note "prefetch, $i of $few: on $(nth 1 "$on") s, off $(nth 1 "$off") s, in vain $(nth 2 "$on")"
    done
    bar prefetch-time "$(printf '%.2f' "$(middle_of "${time[@]}")")"
    bar prefetch-waste "$(most_of "${waste[@]}")"
    say
    say "processor seconds per GB of hits, and MB/s, medians of $pairs"
    printf '%-14s %8s %8s   %-24s %8s %8s\n' '' ours its 'ratio (least to most)' our-MB/s its-MB/s
    printf '%s\n' "${table[@]}"
}
