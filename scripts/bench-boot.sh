# shellcheck shell=bash disable=SC2034,SC2154
# boot   From the machine's first DHCPDISCOVER to its GET of the kernel, both read from a capture
#        of the wire, against dnsmasq (DHCP, TFTP) and nginx (HTTP) with the same loaders, kernel
#        and initrd on the same firmware. Three machines:
#          uefi        UEFI's own PXE client
#          bios-rom    BIOS whose card speaks iPXE and goes on to its script at once
#          bios-chain  the same, but handed our own loader first
#        Five pairs in the order ABBA, each with servers freshly started; the ratio is the median
#        of the pairs' ratios. The last pair boots on until the guest's kernel has reported.
#        Also the memory of the idle server, and the time from its start to `ready`.

about[boot]='DISCOVER to kernel on UEFI and BIOS against dnsmasq + nginx; idle memory; start to ready'
pairs_of[boot]=5
goals[boot-uefi]='<=0.45'
goals[boot-bios-rom]='<=0.05'
goals[boot-bios-chain]='<=0.2'
goals[idle-memory]='<=25'
goals[start-to-ready]='<=200'
rows=(uefi bios-rom bios-chain)

ready_boot() {
    lab_tools
    peer_there nginx
    "$root/scripts/loaders" --quiet
    "$root/scripts/guest" amd64
}

# --- one boot ------------------------------------------------------------------------------------

# What a careful admin writes today: the loader by firmware, and iPXE, which says so in its user
# class, on to its script. An iPXE that is not the one we hand out cannot be told from ours by
# dnsmasq, so the script breaks the loop.
theirs() {
    local www=$dir/www version
    mkdir -p "$www"
    cp "$guest"/{vmlinuz,initrd.img} "$cache"/loaders/*.{efi,kpxe} "$www/"
    version=$(cut -d' ' -f1 "$cache/loaders/VERSION")
    {
        echo '#!ipxe'
        [[ $row != bios-chain ]] || echo "iseq \${version} $version || chain http://$address/undionly.kpxe"
        cat <<IPXE
kernel http://$address/vmlinuz initrd=initrd.img console=ttyS0 panic=-1 pl.ip=\${net0/ip} pl.report=http://$address/report
initrd http://$address/initrd.img
boot
IPXE
    } >"$www/boot.ipxe"
    dnsmasq_peer "$server" boot0 <<DNSMASQ
dhcp-range=10.77.0.100,10.77.0.200,12h
dhcp-option=option:router,$address
dhcp-option=option:dns-server,$address
enable-tftp
tftp-root=$www
dhcp-match=set:bios,option:client-arch,0
dhcp-match=set:uefi,option:client-arch,7
dhcp-match=set:uefi,option:client-arch,9
dhcp-userclass=set:ipxe,iPXE
dhcp-boot=tag:bios,tag:!ipxe,undionly.kpxe
dhcp-boot=tag:uefi,tag:!ipxe,snponly.efi
dhcp-boot=tag:ipxe,http://$address/boot.ipxe
DNSMASQ
    nginx_peer "$server" "$www"
}

# Ours for bios-chain speaks HTTPS, which is why that machine needs our loader at all.
ours() {
    { full; [[ $row != bios-chain ]] || https; known; } | configure
    serve || die "pilotlight did not start: $dir/server.log"
}

# The wire: DHCP, what the machine asks by HTTP, and by HTTPS the heads of all packets.
capture() {
    local get='tcp dst port 80 and tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420'
    # To stdout: it gives up root before it opens a file, and Ubuntu's crashes when told not to.
    # shellcheck disable=SC2016 # the inner shell is to expand these
    spawn "$dir/wire.pcap" sh -c 'log=$1; shift; exec "$@" 2>"$log"' sh "$dir/tcpdump.log" \
        ip netns exec "$net" tcpdump -i br0 -U -s 256 -w - \
        "udp port 67 or udp port 68 or ($get) or tcp port 443"
    tcpdump_pid=$spawned
    until_true 10 test -s "$dir/wire.pcap" || die "tcpdump did not start: $dir/tcpdump.log"
}
# Its status says nothing: the last packet may be half written, and awk may have read enough.
on_wire() { tcpdump -tt -nn -r "$dir/wire.pcap" "$@" 2>/dev/null || true; }

kernel_asked() {
    grep -qaE 'GET [^ ]*vmlinuz' "$dir/wire.pcap" || off ||
        { (($(stat -c %s "$dir/wire.pcap") > 20000)) && [[ -n $(kernel_at) ]]; }
}

# By HTTPS the GET is the machine's last word before a megabyte comes from the server.
kernel_at() {
    local at
    # To its end, for an early exit would be a broken pipe to tcpdump.
    at=$(on_wire -A 'tcp dst port 80' | awk '/^[0-9]+\.[0-9]+ / { t = $1 } !found && /GET [^ ]*vmlinuz/ { print t; found = 1 }')
    [[ -n $at ]] || at=$(on_wire -q 'tcp port 443' | awk '
        $5 ~ /\.443:$/ { if ($NF > 0) { t = $1; sum = 0 } next }
        { sum += $NF } !found && sum > 1000000 { print t; found = 1 }')
    printf '%s\n' "$at"
}

# one_boot ROW WHO [whole]: prints milliseconds on the wire and milliseconds of processor.
one_boot() {
    row=$1 dir=$lab/bench-$1-$2
    local from to cpu release
    rm -rf "$dir"
    make_dir "$dir"
    mkdir -m 700 "$dir/state"
    lan
    case $row in uefi) machine uefi ;; *) machine bios ;; esac
    "$2"
    capture
    power_on
    until_true 120 kernel_asked || die "$2 $row: nobody asked for the kernel in 120 s: $dir"
    if [[ ${3:-} == whole ]]; then
        release=$(<"$guest/release")
        wait_off 120 || die "$2 $row: the guest is still on: $dir"
        until_true 2 grep -qa "booted?kernel=$release" "$dir/wire.pcap" || die "$2 $row: the guest's kernel did not report: $dir"
    fi
    cpu=$(processor_ms)
    end "$guest_pid"
    end "$tcpdump_pid"
    from=$(on_wire -c 1 "udp dst port 67 and ether src $mac" | awk '{ print $1 }')
    to=$(kernel_at)
    [[ -n $from && -n $to ]] || die "$2 $row: the capture does not show the boot: $dir/wire.pcap"
    awk -v a="$from" -v b="$to" -v c="$cpu" 'BEGIN { printf "%d %d\n", (b - a) * 1000, c }'
}

# --- all of them ---------------------------------------------------------------------------------

bench_boot() {
    local i who row out table=() o=() p=() r=() oc pc
    declare -A ms=() cpu=()
    for row in "${rows[@]}"; do
        o=() p=() r=() oc=0 pc=0
        for ((i = 1; i <= pairs; i++)); do
            local order=(ours theirs) whole=''
            ((i % 2)) || order=(theirs ours)
            ((i < pairs)) || whole=whole
            for who in "${order[@]}"; do
                out=$(one "$row" "$who" $whole) || die "$row: the run of $who failed; see above"
                ms[$who]=${out% *} cpu[$who]=${out#* }
            done
            note "$row, pair $i of $pairs: pilotlight $(hundredths "${ms[ours]}") s, dnsmasq + nginx $(hundredths "${ms[theirs]}") s"
            o+=("${ms[ours]}") p+=("${ms[theirs]}")
            oc=$((oc + cpu[ours])) pc=$((pc + cpu[theirs]))
            r+=("$(awk -v a="${ms[ours]}" -v b="${ms[theirs]}" 'BEGIN { printf "%.4f", a / b }')")
        done
        local mo mp mr
        mo=$(printf '%s\n' "${o[@]}" | stat_of) mp=$(printf '%s\n' "${p[@]}" | stat_of) mr=$(printf '%s\n' "${r[@]}" | stat_of)
        table+=("$(awk -v row="$row" -v o="$mo" -v p="$mp" -v r="$mr" -v oc="$((oc / pairs))" -v pc="$((pc / pairs))" 'BEGIN {
            split(o, a); split(p, b); split(r, c)
            printf "%-11s %6.2f s (%.2f to %.2f)  %6.2f s (%.2f to %.2f)  %6.3f (%.3f to %.3f)  %4d ms  %4d ms",
                row, a[1]/1000, a[2]/1000, a[3]/1000, b[1]/1000, b[2]/1000, b[3]/1000, c[1], c[2], c[3], oc, pc }')")
        bar "boot-$row" "$(printf '%.3f' "${mr%% *}")"
    done
    idle
    say
    say "DISCOVER to the kernel's GET, median of $pairs (least to most); processor: the servers' own, start included, mean"
    printf '%-11s %-25s  %-26s  %-24s  %-7s  %s\n' machine pilotlight 'dnsmasq + nginx' ratio 'our cpu' 'their cpu'
    printf '%s\n' "${table[@]}"
    say "idle: $idle_mb MB resident; start to ready: $ready_ms ms, median of 10 ($ready_range)"
}

# The server by itself: ten starts on one state, each read from its log as it is written.
idle() {
    local i t line log pid all=() status
    dir=$lab/bench-idle
    rm -rf "$dir"
    make_dir "$dir"
    mkdir -m 700 "$dir/state"
    lan
    machine bios
    { full; known; } | configure
    for ((i = 1; i <= 10; i++)); do
        t=$(now)
        exec {log}< <(exec ip netns exec "$server" "${limited[@]}" "$pilotlight" serve --interface boot0 --config "$dir/pilotlight.toml" 2>&1)
        pid=$!
        line=''
        while IFS= read -r -t 20 -u "$log" line; do
            printf '%s\n' "$line" >>"$dir/server.log"
            [[ $line != *ready* ]] || break
        done
        [[ $line == *ready* ]] || { kill "$pid" 2>/dev/null || true; die "pilotlight did not become ready: $dir/server.log"; }
        all+=($(($(now) - t)))
        if ((i == 10)); then
            sleep 2 # what it does after its start is part of being idle
            status=$(awk '/^VmRSS/ { printf "%.1f", $2 / 1024 }' "/proc/$pid/status")
        fi
        # And waited for: its first thread is gone before the last one lets go of the store.
        end "$pid"
        exec {log}<&-
    done
    idle_mb=$status
    ready_ms=$(printf '%s\n' "${all[@]}" | stat_of)
    ready_range="${ready_ms#* }"
    ready_range="${ready_range/ / to }"
    ready_ms=${ready_ms%% *}
    bar idle-memory "$idle_mb"
    bar start-to-ready "$ready_ms"
}
