# shellcheck shell=bash disable=SC2034,SC2154 # scripts/bench sources this and uses what it defines
#
# tls    A file of 500 MB twice by HTTPS (TLS 1.2, AES128-GCM) against nginx, with curl for the
#        client; the rest is as in `files`. The ratio is of the server's processor time.

about[tls]='HTTPS: processor time of a large file by TLS 1.2 AES128-GCM against nginx'
pairs_of[tls]=10
goals[tls-bulk-cpu]='<=0.85'

ready_tls() {
    need taskset ip curl openssl
    peer_there nginx
    (($(nproc) >= 2)) || die "this bench wants two processors, one for each side"
}

# one_tls WHO: bytes, seconds, processor seconds of the server.
one_tls() {
    local before began base=/f
    row=tls
    dir=$lab/bench-tls-$1
    rm -rf "$dir"
    make_dir "$dir" "$dir/files"
    touch "$dir/preseed.cfg"
    [[ $1 != ours ]] || base=/files/f
    head -c 500000000 /dev/urandom >"$dir/files/large"
    cat "$dir/files/large" >/dev/null
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$address" \
        -keyout "$dir/leaf.key" -out "$dir/leaf.pem" 2>/dev/null
    files_cable
    tally
    serve_files "$1" https
    until_true 10 listens "$server" tcp 443 || die "$1 does not listen on 443"
    local get=(curl -sSfk --noproxy '*' --tlsv1.2 --tls-max 1.2
        --ciphers 'ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256' -w '%{size_download}\n')
    client_side "${get[@]}" -o /dev/null -r 0-99999 "https://$address$base/large" >/dev/null || die "tls: $1 does not answer"
    before=$(spent) began=$(now)
    client_side "${get[@]}" -o /dev/null "https://$address$base/large" -o /dev/null "https://$address$base/large" >"$dir/client.log" ||
        die "tls: $1 failed"
    echo "$(awk '{ n += $1 } END { printf "%d\n", n }' "$dir/client.log") $(calc "($(now) - $began) / 1e3") $(calc "($(spent) - $before) / 1e6" %.6f)"
    rm -f "$dir/files/large"
}

bench_tls() {
    local i who out cost=() rate=()
    declare -A bytes=() wall=() cpu=()
    for ((i = 1; i <= pairs; i++)); do
        local order=(ours nginx)
        ((i % 2)) || order=(nginx ours)
        for who in "${order[@]}"; do
            out=$(one "$who") || die "tls: the run of $who failed; see above"
            read -r "bytes[$who]" "wall[$who]" "cpu[$who]" <<<"$out"
            ((bytes[$who] == 1000000000)) || die "tls: $who sent ${bytes[$who]} bytes"
        done
        note "pair $i of $pairs: processor seconds for 1 GB: pilotlight ${cpu[ours]}, nginx ${cpu[nginx]}; wall ${wall[ours]} and ${wall[nginx]}"
        cost+=("$(calc "${cpu[ours]} / ${cpu[nginx]}")") rate+=("$(calc "${wall[nginx]} / ${wall[ours]}")")
    done
    local p r
    p=$(printf '%s\n' "${cost[@]}" | stat_of) r=$(printf '%s\n' "${rate[@]}" | stat_of)
    bar tls-bulk-cpu "$(printf '%.2f' "${p%% *}")"
    say
    say "processor seconds to nginx's: ${p%% *} ($(cut -d' ' -f2 <<<"$p") to ${p##* }); rate: ${r%% *} ($(cut -d' ' -f2 <<<"$r") to ${r##* })"
}
