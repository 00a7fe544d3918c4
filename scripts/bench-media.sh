# shellcheck shell=bash disable=SC2034,SC2154 # scripts/bench sources this and uses what it defines
#
# media  Files out of ISO images as they are.
#          ready    20 images of 5 GB (sparse; 4,000 files each, by xorriso, Rock Ridge and Joliet) in
#                   one configuration: from the start of the server until it is ready and a file out
#                   of each of them has been fetched. No page of the images is in memory, and nothing
#                   is known of them
#          again    the same when it is started once more
#          index    what a server holds more of memory (Pss, as the kernel counts it) when it has
#                   looked into an image of 200,000 files, for each of these, without their names
#          cpu      processor time of the server for a file of 500 MB eight times out of an image,
#                   and the same file out of a folder: cable, client and server are those of `files`.
#                   Pairs in the order ABBA, each with a server freshly started; the median of the
#                   pairs' ratios, the worse of one connection and sixteen

about[media]='ISO images: ready on a folder of them, memory of the index, a file out of one'
pairs_of[media]=10
goals[media-ready-s]='<=2'
goals[media-ready-again-s]='<=1'
goals[media-index-bytes]='<=60'
goals[media-cpu]='<=1.05'

media_images=20 media_files=4000 media_many=200000

ready_media() {
    need ip curl taskset xorriso genisoimage
    (($(nproc) >= 2)) || die "this bench wants two processors, one for each side"
    [[ -n ${HTTP_LOAD:-} ]] || cargo build --quiet --release --locked --example http-load --manifest-path "$root/Cargo.toml"
}

# --- images --------------------------------------------------------------------------------------

# The lines of a list of files for xorriso and genisoimage: PATH=SOURCE, in folders of 200.
media_list() { # COUNT SOURCE
    awk -v count="$1" -v source="$2" 'BEGIN { for (n = 0; n < count; n++)
        printf "Packages/%d/package-%d-1.2.3-4.el9.x86_64.rpm=%s\n", n / 200, n, source }'
}

# Bytes of the names in it.
media_names() { awk -F '[/=]' '{ sum += length($3) } END { print sum }' "$1"; }

# Twenty images of 5 GB that take the room of their directories, none of them in memory.
media_shelf() {
    local i from=$dir/from
    make_dir "$from/LiveOS" "$dir/images"
    echo package >"$dir/package"
    truncate -s 5000000000 "$from/LiveOS/squashfs.img"
    media_list $media_files "$dir/package" >"$dir/list"
    xorriso -as mkisofs -quiet -R -J -joliet-long -iso-level 3 -V MEDIUM -graft-points -path-list "$dir/list" "/=$from" 2>"$dir/xorriso.log" |
        dd of="$dir/images/1.iso" bs=64K iflag=fullblock conv=sparse status=none || die "no image: $dir/xorriso.log"
    for ((i = 2; i <= media_images; i++)); do cp --sparse=always "$dir/images/1.iso" "$dir/images/$i.iso"; done
    for i in "$dir"/images/*; do dd of="$i" oflag=nocache conv=notrunc,fdatasync count=0 status=none; done
}

# --- one run -------------------------------------------------------------------------------------

# The configuration: the images of $dir/images as media m1, m2…; a folder f.
media_configure() {
    local i
    make_dir "$dir/files" "$dir/images"
    printf 'state-dir = "%s/state"\n[dhcp]\nmode = "off"\n[http]\nadmin = "off"\n[[files]]\nname = "f"\ndir = "%s/files"\n' "$dir" "$dir"
    for i in "$dir"/images/*.iso; do
        [[ ! -e $i ]] || printf '[[media]]\nname = "m%s"\niso = "%s"\n' "$(basename "$i" .iso)" "$i"
    done
}

media_serve() {
    # What an earlier one said is not what this one says.
    rm -f "$dir/server.log"
    server_side "$dir/server.log" "${limited[@]}" "$pilotlight" serve --interface boot0 --config "$dir/pilotlight.toml"
    server_pid=$spawned
    until_quick 60 grep -qsw ready "$dir/server.log" || die "pilotlight did not start: $dir/server.log"
}

# until_true, to the hundredth of a second.
until_quick() {
    local end=$(($(now) + $1 * 1000))
    shift
    until "$@"; do
        (($(now) < end)) || return 1
        sleep 0.01
    done
}

# one_media ready: milliseconds of the first start and of the next.
# one_media index: bytes for each file.
# one_media image|folder CONNECTIONS: microseconds of the server's processor.
one_media() {
    dir=$lab/bench-media-$1
    rm -rf "$dir"
    make_dir "$dir"
    mkdir -m 700 "$dir/state"
    # Gigabytes, some of them not sparse.
    on_exit "rm -rf '$dir/images' '$dir/files' '$dir/from'"
    cable
    tally
    case $1 in
        ready) media_ready ;;
        index) media_index ;;
        *) media_cpu "$1" "$2" ;;
    esac
}

media_ready() {
    local i t urls=()
    media_shelf
    media_configure >"$dir/pilotlight.toml"
    for ((i = 1; i <= media_images; i++)); do urls+=("http://$address/files/m$i/Packages/3/package-$((600 + i))-1.2.3-4.el9.x86_64.rpm"); done
    for i in first again; do
        t=$(now)
        media_serve
        client_side curl -sS --fail-early -f --max-time 60 "${urls[@]}" >"$dir/fetched" 2>"$dir/curl.log" || die "not served: $dir/curl.log, $dir/server.log"
        echo $(($(now) - t))
        [[ $(grep -c package "$dir/fetched") == "$media_images" ]] || die "not what is in the images: $dir/fetched"
        end "$server_pid"
    done
}

# In kibibytes; the programs that it was started by are gone by then: they became it.
media_memory() { awk '/^Pss:/ { print $2 }' "/proc/$(ip netns pids "$server" | head -n 1)/smaps_rollup"; }

media_index() {
    local before after
    make_dir "$dir/images" "$dir/from"
    echo package >"$dir/package"
    media_list $media_many "$dir/package" >"$dir/list"
    genisoimage -quiet -R -graft-points -o "$dir/large.iso" -path-list "$dir/list" "from=$dir/from" 2>"$dir/genisoimage.log" || die "no image: $dir/genisoimage.log"
    # A configuration is read before its media are looked into, or with them: a server without any
    # is what is compared with.
    media_configure >"$dir/pilotlight.toml"
    media_serve
    client_side curl -sS --max-time 60 -o /dev/null "http://$address/files/f/"
    before=$(media_memory)
    end "$server_pid"
    mv "$dir/large.iso" "$dir/images/1.iso"
    media_configure >"$dir/pilotlight.toml"
    media_serve
    client_side curl -sS -f --max-time 60 -o /dev/null "http://$address/files/m1/Packages/3/package-601-1.2.3-4.el9.x86_64.rpm" || die "not served: $dir/server.log"
    after=$(media_memory)
    calc "(($after - $before) * 1024 - $(media_names "$dir/list")) / $media_many" %.1f
    echo
}

media_cpu() { # image|folder CONNECTIONS
    local path=/files/f/large before get
    make_dir "$dir/files"
    head -c 500000000 /dev/urandom >"$dir/files/large"
    if [[ $1 == image ]]; then
        path=/files/m1/large
        make_dir "$dir/images"
        xorriso -as mkisofs -quiet -R -o "$dir/images/1.iso" "$dir/files" 2>"$dir/xorriso.log" || die "no image: $dir/xorriso.log"
        rm "$dir/files/large"
        cat "$dir/images/1.iso" >/dev/null
    fi
    media_configure >"$dir/pilotlight.toml"
    media_serve
    get=(bulk "$address:80" "$path" --connections "$2")
    # The first of everything is another's to measure.
    client_side timeout 60 "$http_load" "${get[@]:0:3}" --count 1 >/dev/null 2>"$dir/client.log" || die "$1: $(tail -n 1 "$dir/client.log")"
    before=$(spent)
    client_side timeout 300 "$http_load" "${get[@]}" --count $(($2 > 8 ? $2 : 8)) >"$dir/sent" 2>"$dir/client.log" || die "$1: $(tail -n 1 "$dir/client.log")"
    echo $(($(spent) - before))
}

# --- the bench -----------------------------------------------------------------------------------

bench_media() {
    local i who out ready=() again=() worst=0 connections ratio
    declare -A cost=()
    for ((i = 1; i <= 3; i++)); do
        out=$(one ready) || die "media: the run of 20 images failed; see above"
        ready+=("$(head -n 1 <<<"$out")") again+=("$(tail -n 1 <<<"$out")")
        note "20 images of 5 GB, run $i of 3: ready in ${ready[-1]} ms, started once more in ${again[-1]} ms"
    done
    # The worst of three: a start is not repeated until it is quick.
    bar media-ready-s "$(printf '%s\n' "${ready[@]}" | sort -n | awk 'END { printf "%.2f", $1 / 1000 }')"
    bar media-ready-again-s "$(printf '%s\n' "${again[@]}" | sort -n | awk 'END { printf "%.2f", $1 / 1000 }')"
    out=$(one index) || die "media: the run of the index failed; see above"
    bar media-index-bytes "$out"
    for connections in 1 16; do
        local ratios=()
        for ((i = 1; i <= pairs; i++)); do
            local order=(image folder)
            ((i % 2)) || order=(folder image)
            for who in "${order[@]}"; do
                cost[$who]=$(one "$who" "$connections") || die "media: the run of the $who failed; see above"
            done
            ratio=$(calc "${cost[image]} / ${cost[folder]}")
            note "$connections connections, pair $i of $pairs: processor ms out of an image $((cost[image] / 1000)), a folder $((cost[folder] / 1000)): $ratio"
            ratios+=("$ratio")
        done
        ratio=$(printf '%s\n' "${ratios[@]}" | stat_of)
        note "$connections connections: median, least, most: $ratio"
        worst=$(calc "$worst > ${ratio%% *} ? $worst : ${ratio%% *}")
    done
    bar media-cpu "$(printf '%.2f' "$worst")"
}
