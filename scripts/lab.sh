# shellcheck shell=bash
# The lab's parts, for scripts/lab, scripts/bench and scripts/demo: a private network, the machines
# that are booted in it, our server, and the servers that people use today. Source it after lib.sh.
#
#   lan            $server (a network namespace with boot0, 10.77.0.1/24) and $net (its switch)
#   machine KIND   $qemu: the command line of a machine with real firmware
#   power_on       starts it in $net; wait_off waits until it has switched itself off
#   serve          starts pilotlight in $server and waits until it says that it is ready
#   dnsmasq_peer, nginx_peer    the peers
#
# $dir is the run's folder: whoever uses this sets it.

mac=52:54:00:77:00:01
address=10.77.0.1

lab_tools() { need qemu-system-x86_64 ip tcpdump jq curl dnsmasq as ld; }

lan() {
    space s
    server=$space
    space n
    net=$space
    switch "$net"
    plug "$server" boot0 $address/24 "$net" server
    socket "$net" tap0
}

# --- machines ----------------------------------------------------------------------------------

first_file() {
    local f
    for f in "$@"; do [[ -s $f ]] && printf '%s\n' "$f" && return; done
    die "the firmware file ${1##*/} is not there. Type: sudo $root/scripts/deps lab"
}

# machine KIND [QEMU ARGUMENT…]: no /dev/kvm, for the lab must run everywhere, in a container or a
# virtual machine too, and always the same.
machine() {
    local kind=$1
    shift
    local common=(-m 512 -smp 1 -no-reboot -display none -monitor none -parallel none
        -serial "file:$dir/serial.log" -netdev tap,id=lan,ifname=tap0,script=no,downscript=no)
    arch=amd64
    case $kind in
        # SeaBIOS; the card's ROM is QEMU's iPXE, of 2019 in Debian 12 and without HTTPS.
        bios)
            qemu=(qemu-system-x86_64 -accel tcg,thread=multi -cpu max -machine pc "${common[@]}"
                -device virtio-net-pci,netdev=lan,mac=$mac,bootindex=1 "$@")
            ;;
        # EDK2 with its own PXE and HTTP boot clients; without a ROM there is no iPXE in the card.
        uefi | uefi-http)
            cp "$(first_file /usr/share/OVMF/OVMF_VARS{_4M,}.fd)" "$dir/vars.fd"
            qemu=(qemu-system-x86_64 -accel tcg,thread=multi -cpu max -machine q35 "${common[@]}"
                -drive "if=pflash,format=raw,unit=0,readonly=on,file=$(first_file /usr/share/OVMF/OVMF_CODE{_4M,}.fd)"
                -drive "if=pflash,format=raw,unit=1,file=$dir/vars.fd"
                -device virtio-rng-pci
                -device virtio-net-pci,netdev=lan,mac=$mac,romfile=,bootindex=1 "$@")
            # Without PXE the firmware's next choice is HTTP boot.
            [[ $kind != uefi-http ]] || qemu+=(-fw_cfg name=opt/org.tianocore/IPv4PXESupport,string=n)
            ;;
        arm64)
            arch=arm64
            qemu=(qemu-system-aarch64 -accel tcg,thread=multi -cpu cortex-a72 -machine virt "${common[@]}"
                -bios "$(first_file /usr/share/qemu-efi-aarch64/QEMU_EFI.fd /usr/share/AAVMF/AAVMF_CODE.fd)"
                -device virtio-rng-pci
                -device virtio-net-pci,netdev=lan,mac=$mac,romfile=,bootindex=1 "$@")
            ;;
    esac
    guest=$lab/guest-$arch
}

power_on() {
    rm -f "$dir/serial.log"
    powered=$(now)
    spawn "$dir/qemu.log" ip netns exec "$net" "${qemu[@]}"
    guest_pid=$spawned
}

off() { ! alive "$guest_pid"; }

wait_off() { until_true "$1" off; } # seconds; 1 where it is still on

# --- our server --------------------------------------------------------------------------------

serve() {
    spawn "$dir/server.log" ip netns exec "$server" "$pilotlight" serve --interface boot0 --config "$dir/pilotlight.toml" "$@"
    server_pid=$spawned
    # Polled without pause: the bench reads the time of it.
    local end=$(($(now) + 20000))
    until grep -qsw ready "$dir/server.log"; do
        alive "$server_pid" || return 1
        (($(now) < end)) || return 1
        sleep 0.005
    done
}

api() { inside "$server" curl -sS --max-time 5 "http://127.0.0.1:8067/api/$1"; }

# --- the peers ---------------------------------------------------------------------------------

# dnsmasq_peer SPACE INTERFACE ADDRESS: the lines of its configuration come by stdin.
dnsmasq_peer() {
    {
        printf '%s\n' port=0 "interface=$2" bind-interfaces user=root log-dhcp "dhcp-leasefile=$dir/dnsmasq.leases" \
            dhcp-authoritative
        cat
    } >"$dir/dnsmasq.conf"
    spawn "$dir/dnsmasq.log" ip netns exec "$1" dnsmasq --keep-in-foreground --log-facility=- --pid-file= --conf-file="$dir/dnsmasq.conf"
    dnsmasq_pid=$spawned
    until_true 10 listens "$1" udp 67 || die "dnsmasq did not start: $dir/dnsmasq.log"
}

listens() { inside "$1" ss -Hln "--$2" "sport = :$3" | grep -q .; }

# nginx_peer SPACE FOLDER: serves the folder, with the settings of its own documentation for files.
nginx_peer() {
    mkdir -p "$dir/nginx"
    cat >"$dir/nginx.conf" <<NGINX
daemon off;
user root;
worker_processes auto;
pid $dir/nginx/pid;
error_log $dir/nginx/error.log;
events { worker_connections 1024; }
http {
    access_log $dir/nginx/access.log;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 65;
    client_body_temp_path $dir/nginx/body;
    proxy_temp_path $dir/nginx/proxy;
    fastcgi_temp_path $dir/nginx/fastcgi;
    uwsgi_temp_path $dir/nginx/uwsgi;
    scgi_temp_path $dir/nginx/scgi;
    server {
        listen 80;
        root $2;
        location /report/ { return 204; }
    }
}
NGINX
    spawn "$dir/nginx/out.log" ip netns exec "$1" "$cache/peers/nginx/usr/sbin/nginx" -e "$dir/nginx/error.log" -p "$dir/nginx" -c "$dir/nginx.conf"
    nginx_pid=$spawned
    until_true 10 listens "$1" tcp 80 || die "nginx did not start: $dir/nginx/error.log"
}
