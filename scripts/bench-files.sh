# shellcheck shell=bash disable=SC2034,SC2154 # scripts/bench sources this and uses what it defines
#
# files  Files from the page cache by HTTP against nginx (Debian's package; one worker, sendfile,
#        tcp_nopush, its access log off as ours has none of plain files). Server and client are two
#        network namespaces with one cable between them and a processor each, cubic on both sides;
#        the client is ours (examples/http-load), keeps its connections and throws bodies away.
#          large-1   a file of 500 MB eight times, one connection; beside it the limit: a bare loop
#                    of sendfile
#          large-16  the same, sixteen connections
#          small     2 KB files, sixteen connections
#          script    the script of one of 2,000 declared machines, rendered for each request, with
#                    the ledger and the log, against nginx's static file of that size, with its
#                    access log
#        Ten pairs in the order ABBA, each with a server freshly started; the ratio is the median
#        of the pairs' ratios. Processor time is the control group's.

about[files]='HTTP: large and small files, and rendered scripts, against nginx'
pairs_of[files]=10
goals[files-large-cpu]='<=1.0'
goals[files-large-rate]='>=1.0'
goals[files-small]='>=1.0'
goals[files-script]='>=1.0'

http_load=${HTTP_LOAD:-${CARGO_TARGET_DIR:-$root/target}/release/examples/http-load}

ready_files() {
    need taskset ip
    peer_there nginx
    (($(nproc) >= 2)) || die "this bench wants two processors, one for each side"
    [[ -n ${HTTP_LOAD:-} ]] || cargo build --quiet --release --locked --example http-load --manifest-path "$root/Cargo.toml"
}

# --- one run ---------------------------------------------------------------------------------------

# The cable, with the congestion control that most systems have.
files_cable() {
    cable
    ip -n "$server" route change 10.77.0.0/16 dev boot0 src "$address" congctl cubic
    ip -n "$load" route change 10.77.0.0/16 dev load0 src 10.77.0.2 congctl cubic
}

# serve_files WHO SCHEME
serve_files() {
    case $1 in
        ours)
            mkdir -m 700 "$dir/state"
            {
                printf 'state-dir = "%s/state"\n[dhcp]\nmode = "off"\n[http]\nadmin = "off"\n' "$dir"
                [[ $2 != https ]] || printf '[tls]\nenabled = true\n'
                printf '[[files]]\nname = "f"\ndir = "%s/files"\n' "$dir"
                cat <<'TOML'
[[profile]]
name = "web"
kind = "live"
title = "Debian 12"
kernel = "f/linux"
initrd = "f/initrd.gz"
args = "auto=true priority=critical url={{ answers.preseed }} hostname={{ machine.hostname }} rack={{ vars.rack }}"
TOML
                printf 'answers = { preseed = "%s/preseed.cfg" }\nvars = { rack = "r1" }\n' "$dir"
                awk 'BEGIN { for (n = 0; n < 2000; n++) { mac = sprintf("%06x", n)
                    printf "[[machine]]\nname = \"m%d\"\nmac = \"52:54:00:%s:%s:%s\"\nprofile = \"web\"\n", n, substr(mac, 1, 2), substr(mac, 3, 2), substr(mac, 5) } }'
            } >"$dir/pilotlight.toml"
            server_side "$dir/server.log" "${limited[@]}" "$pilotlight" serve --interface boot0 --config "$dir/pilotlight.toml"
            until_true 30 grep -qsw ready "$dir/server.log" || die "pilotlight did not start: $dir/server.log"
            ;;
        nginx)
            local log=off
            [[ $row != script ]] || log=$dir/nginx/access.log
            mkdir -p "$dir/nginx"
            cat >"$dir/nginx.conf" <<NGINX
daemon off;
user root;
worker_processes 1;
pid $dir/nginx/pid;
error_log $dir/nginx/error.log;
events { worker_connections 1024; }
http {
    access_log $log;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    client_body_temp_path $dir/nginx/body;
    proxy_temp_path $dir/nginx/proxy;
    fastcgi_temp_path $dir/nginx/fastcgi;
    uwsgi_temp_path $dir/nginx/uwsgi;
    scgi_temp_path $dir/nginx/scgi;
    server {
        listen 80;
$([[ $2 != https ]] || printf '%s\n' "        listen 443 ssl;" "        ssl_certificate $dir/leaf.pem;" "        ssl_certificate_key $dir/leaf.key;")
        location /f/ { alias $dir/files/; }
    }
}
NGINX
            server_side "$dir/nginx.log" "$cache/peers/nginx/usr/sbin/nginx" -e "$dir/nginx/error.log" -p "$dir/nginx" -c "$dir/nginx.conf"
            ;;
        sendfile) server_side "$dir/server.log" "$http_load" sendfile "$address:80" "$dir/files/large" ;;
    esac
    until_true 10 listens "$server" tcp 80 || die "$1 does not listen: $dir/*.log"
}

# one_files ROW WHO [BYTES OF A SCRIPT]: bytes, seconds, processor seconds of the server.
one_files() {
    local before out base=/f count=1
    row=$1
    dir=$lab/bench-files-$row-$2
    rm -rf "$dir"
    make_dir "$dir" "$dir/files"
    [[ $2 != ours ]] || base=/files/f
    local get=(bulk "$address:80" "$base/large" --count 8)
    case $row in
        large-*)
            head -c 500000000 /dev/urandom >"$dir/files/large"
            cat "$dir/files/large" >/dev/null
            [[ $row != large-16 ]] || get=(bulk "$address:80" "$base/large" --count 16 --connections 16)
            ;;
        small)
            head -c 2048 /dev/urandom >"$dir/files/small"
            get=(requests "$address:80" "$base/small" --count 200000 --connections 16)
            ;;
        script)
            touch "$dir/files/linux" "$dir/files/initrd.gz"
            printf 'd-i mirror/http/hostname string deb.example\nd-i passwd/username string {{ machine.name }}\nd-i preseed/late_command string wget -q -O - {{ report }}/done\n' >"$dir/preseed.cfg"
            head -c "${3:-1}" /dev/urandom >"$dir/files/script"
            get=(requests "$address:80" "$base/script" --count 100000 --connections 16)
            [[ $2 != ours ]] || get[2]='/boot/525400*.ipxe?uuid=564d0c1e-0000-0000-0000-525400000001&serial=SER1&manufacturer=Maker&product=Product&buildarch=x86_64&platform=efi&memsize=4096'
            ;;
    esac
    files_cable
    tally
    serve_files "$2" http
    # The first of everything is another's to measure.
    client_side timeout 60 "$http_load" "${get[@]:0:3}" --count "$count" >/dev/null 2>"$dir/client.log" ||
        die "$row, $2: $(tail -n 1 "$dir/client.log")"
    before=$(spent)
    out=$(client_side timeout 300 "$http_load" "${get[@]}" 2>"$dir/client.log") || die "$row, $2: $(tail -n 1 "$dir/client.log")"
    echo "$out $(calc "($(spent) - $before) / 1e6" %.6f)"
    rm -f "$dir/files/large"
}

# --- all of them -----------------------------------------------------------------------------------

bench_files() {
    local row i who out script=1 table=() worst_cpu=0 worst_rate=9
    declare -A bytes=() wall=() cpu=()
    for row in large-1 large-16 small script; do
        local ow=() oc=() nw=() nc=() lw=() lc=() rate=() cost=() limit=''
        case $row in large-*) limit='sendfile' ;; esac
        if [[ $row == script ]]; then
            out=$(one script ours) || die "files, script: the first run failed; see above"
            script=$((${out%% *} / 100000))
            note "the script has $script bytes"
        fi
        for ((i = 1; i <= pairs; i++)); do
            local order=(ours nginx)
            ((i % 2)) || order=(nginx ours)
            for who in "${order[@]}" $limit; do
                out=$(one "$row" "$who" "$script") || die "files, $row: the run of $who failed; see above"
                read -r "bytes[$who]" "wall[$who]" "cpu[$who]" <<<"$out"
            done
            note "$row, pair $i of $pairs: pilotlight ${wall[ours]} s (processor ${cpu[ours]} s), nginx ${wall[nginx]} s (${cpu[nginx]} s)${limit:+, $limit ${wall[$limit]} s (${cpu[$limit]} s)}"
            ow+=("${wall[ours]}") nw+=("${wall[nginx]}") oc+=("${cpu[ours]}") nc+=("${cpu[nginx]}")
            [[ -z $limit ]] || { lw+=("${wall[$limit]}") lc+=("${cpu[$limit]}"); }
            rate+=("$(calc "${wall[nginx]} / ${wall[ours]}")") cost+=("$(calc "${cpu[ours]} / ${cpu[nginx]}")")
        done
        local a b c d r p l=''
        a=$(printf '%s\n' "${ow[@]}" | stat_of) b=$(printf '%s\n' "${nw[@]}" | stat_of)
        c=$(printf '%s\n' "${oc[@]}" | stat_of) d=$(printf '%s\n' "${nc[@]}" | stat_of)
        r=$(printf '%s\n' "${rate[@]}" | stat_of) p=$(printf '%s\n' "${cost[@]}" | stat_of)
        [[ -z $limit ]] || l="$limit $(printf '%s\n' "${lw[@]}" | stat_of | cut -d' ' -f1) $(printf '%s\n' "${lc[@]}" | stat_of | cut -d' ' -f1)"
        table+=("$(printf '%-9s %9.3f %9.3f   %9.3f %9.3f   %5.2f (%s to %s)   %5.2f (%s to %s)  %s' "$row" \
            "${a%% *}" "${c%% *}" "${b%% *}" "${d%% *}" "${r%% *}" "$(cut -d' ' -f2 <<<"$r")" "${r##* }" \
            "${p%% *}" "$(cut -d' ' -f2 <<<"$p")" "${p##* }" "$l")")
        case $row in
            large-*)
                worst_cpu=$(calc "$worst_cpu > ${p%% *} ? $worst_cpu : ${p%% *}") worst_rate=$(calc "$worst_rate < ${r%% *} ? $worst_rate : ${r%% *}")
                ;;
            *) bar "files-$row" "$(printf '%.2f' "${r%% *}")" ;;
        esac
    done
    # The worse of one connection and sixteen.
    bar files-large-cpu "$(printf '%.2f' "$worst_cpu")"
    bar files-large-rate "$(printf '%.2f' "$worst_rate")"
    say
    say "seconds of wall and of the server's processor, medians of $pairs; ratios: nginx's wall to ours, our processor to nginx's"
    printf '%-9s %9s %9s   %9s %9s   %-22s   %-22s  %s\n' '' our-wall our-cpu its-wall its-cpu 'rate (least to most)' 'cpu (least to most)' 'limit: wall, cpu'
    printf '%s\n' "${table[@]}"
}
