# shellcheck shell=bash disable=SC2034 # whoever sources this uses them
# The lab's parts, for scripts/lab, scripts/bench and scripts/demo: a private network, the machines
# that are booted in it, our server, and the servers that people use today. Source it after lib.sh.
#
#   lan            $server (a network namespace with boot0, 10.77.0.1/24) and $net (its switch)
#   machine KIND   $qemu: the command line of a machine with real firmware
#   power_on       starts it in $net; wait_off waits until it has switched itself off
#   serve          starts pilotlight in $server and waits until it says that it is ready
#   cable          $server and $load (10.77.0.2), a veth pair between them and nothing else
#   dnsmasq_peer, nginx_peer, kea_peer    the peers
#
# What is started in $server is started by "${pinned[@]}", which may name a core: taskset -c 0; what
# is its load, by "${load_pinned[@]}".
#
# $dir is the run's folder: whoever uses this sets it.

mac=52:54:00:77:00:01 arch=amd64
address=10.77.0.1
pinned=() load_pinned=()

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

# Server and load on their own side of a cable, for a bench: no switch, no firmware.
cable() {
    space s
    server=$space
    space l
    load=$space
    ip -n "$server" link add boot0 type veth peer name load0 netns "$load"
    ip -n "$server" address add $address/16 dev boot0
    ip -n "$load" address add 10.77.0.2/16 dev load0
    ip -n "$server" link set boot0 up
    ip -n "$load" link set load0 up
}

# --- machines ----------------------------------------------------------------------------------

first_file() {
    local f
    for f in "$@"; do [[ -s $f ]] && printf '%s\n' "$f" && return; done
    die "the firmware file ${1##*/} is not there. Type: sudo $root/scripts/deps lab"
}

# What a machine does that wants to start anew: it is off. A scenario that lets it empties this.
reboot=(-no-reboot)

# machine KIND [QEMU ARGUMENT…]: no /dev/kvm, for the lab must run everywhere, in a container or a
# virtual machine too, and always the same.
machine() {
    local kind=$1
    shift
    local common=(-m 512 -smp 1 "${reboot[@]}" -display none -monitor "${monitor:-none}" -parallel none
        -serial "${serial:-file:$dir/serial.log}" -netdev "tap,id=lan,ifname=tap0,script=no,downscript=no")
    arch=amd64
    case $kind in
        # SeaBIOS; the card's ROM is QEMU's iPXE, of 2019 in Debian 12 and without HTTPS.
        bios)
            qemu=(qemu-system-x86_64 -accel "tcg,thread=multi" -cpu max -machine pc "${common[@]}"
                -device "virtio-net-pci,netdev=lan,mac=$mac,bootindex=1" "$@")
            ;;
        # EDK2 with its own PXE and HTTP boot clients; without a ROM there is no iPXE in the card.
        uefi | uefi-http)
            cp "$(first_file /usr/share/OVMF/OVMF_VARS{_4M,}.fd)" "$dir/vars.fd"
            qemu=(qemu-system-x86_64 -accel "tcg,thread=multi" -cpu max -machine q35 "${common[@]}"
                -drive "if=pflash,format=raw,unit=0,readonly=on,file=$(first_file /usr/share/OVMF/OVMF_CODE{_4M,}.fd)"
                -drive "if=pflash,format=raw,unit=1,file=$dir/vars.fd"
                -device virtio-rng-pci
                -device "virtio-net-pci,netdev=lan,mac=$mac,romfile=,bootindex=1" "$@")
            # Without PXE the firmware's next choice is HTTP boot.
            [[ $kind != uefi-http ]] || qemu+=(-fw_cfg "name=opt/org.tianocore/IPv4PXESupport,string=n"
                -fw_cfg "name=opt/org.tianocore/IPv6PXESupport,string=n")
            ;;
        arm64)
            arch=arm64
            qemu=(qemu-system-aarch64 -accel "tcg,thread=multi" -cpu cortex-a72 -machine virt "${common[@]}"
                -bios "$(first_file /usr/share/qemu-efi-aarch64/QEMU_EFI.fd /usr/share/AAVMF/AAVMF_CODE.fd)"
                -device virtio-rng-pci
                -device "virtio-net-pci,netdev=lan,mac=$mac,romfile=,bootindex=1" "$@")
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

# A machine with a keyboard and a screen: `hands` before `machine`; then presses KEY… types by the names of
# QEMU's monitor, and screen tells one picture from another.
hands() { monitor=unix:$dir/monitor,server=on,wait=off; }
asks_monitor() { socat -t 0.5 - "UNIX-CONNECT:$dir/monitor" >/dev/null; }
presses() { printf 'sendkey %s\n' "$@" | asks_monitor; }
screen() {
    echo "screendump $dir/screen.ppm" | asks_monitor
    sha256sum <"$dir/screen.ppm"
}
# Whether the screen has shown the same twice; the last is in $picture.
rests() {
    local before=$picture
    picture=$(screen)
    [[ $picture == "$before" ]]
}
picture=''

# --- our server --------------------------------------------------------------------------------

# With the two capabilities that the systemd unit leaves it, and nothing else of root's power; the
# third is for reading in a clone that is somebody else's.
limited=(setpriv --bounding-set '-all,+net_bind_service,+net_raw,+dac_read_search')

serve() {
    spawn "$dir/server.log" ip netns exec "$server" "${pinned[@]}" "${limited[@]}" "$pilotlight" serve --interface boot0 --state-dir "$dir/state" --config "$dir/pilotlight.toml"
    server_pid=$spawned
    until_true 20 ready_or_gone && alive "$server_pid"
}
ready_or_gone() { grep -qsw ready "$dir/server.log" || ! alive "$server_pid"; }

api() { inside "$server" curl -sS --max-time 5 "http://127.0.0.1:8067/api/$1"; }

# Times of the timeline in milliseconds, and the machine's entries by stage.
timeline() { # jq program over the machine's timeline
    api "v1/machines/$mac" >"$dir/machine.json" 2>>"$dir/api.log" || echo '{}' >"$dir/machine.json"
    jq -r '
        def ms: capture("^(?<s>[^.Z+]+)(\\.(?<f>[0-9]+))?")
            | ((.s + "Z") | fromdate) * 1000 + (((.f // "0") + "000")[0:3] | tonumber);
        def first_of($stage): map(select(.stage == $stage))[0];
        (.timeline // []) | '"$1" "$dir/machine.json"
}

# --- its configuration -------------------------------------------------------------------------

# configure: the configuration that all share; what is special to one comes by stdin. The folder $guest,
# where there is one, is served as guest/.
configure() {
    printf 'state-dir = "%s"\n\n' "$dir/state" >"$dir/pilotlight.toml"
    [[ -z $guest ]] || printf '[[files]]\nname = "guest"\ndir = "%s"\n\n' "$guest" >>"$dir/pilotlight.toml"
    cat >>"$dir/pilotlight.toml"
}

full() {
    cat <<TOML
[dhcp]
mode = "full"

[[subnet]]
network = "10.77.0.0/24"
range = "10.77.0.100-10.77.0.200"
router = "$address"
dns = "$address"
TOML
}

proxy() { printf "[dhcp]\nmode = \"proxy\"\n\n"; }

older() { printf "\n[ipxe]\ndir = \"%s\"\n\n" "$cache/loaders-13"; }

https() { printf "\n[tls]\nenabled = true\n\n"; }

# The machine is declared and boots the guest; $more are further arguments for its kernel.
more='' host=''
known() {
    local console=ttyS0
    [[ $arch != arm64 ]] || console=ttyAMA0
    cat <<TOML

[[profile]]
name = "guest"
kernel = "guest/vmlinuz"
initrd = "guest/initrd.img"
args = "panic=-1 pl.ip={{ machine.ip }} pl.report={{ report }}${more:+ $more}"
console = "$console"

[[machine]]
name = "${host:-lab1}"
mac = "$mac"
profile = "guest"
TOML
}

# --- the peers ---------------------------------------------------------------------------------

# What dnsmasq tells of each packet; a bench has it tell what it tells by itself, dnsmasq_log=().
dnsmasq_log=(log-dhcp)

# dnsmasq_peer SPACE INTERFACE: the lines of its configuration come by stdin.
dnsmasq_peer() {
    {
        printf '%s\n' port=0 "interface=$2" bind-interfaces user=root "dhcp-leasefile=$dir/dnsmasq.leases" \
            dhcp-authoritative "${dnsmasq_log[@]}"
        cat
    } >"$dir/dnsmasq.conf"
    spawn "$dir/dnsmasq.log" ip netns exec "$1" "${pinned[@]}" dnsmasq --keep-in-foreground --log-facility=- --pid-file= --conf-file="$dir/dnsmasq.conf"
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
    spawn "$dir/nginx/out.log" ip netns exec "$1" "${pinned[@]}" "$cache/peers/nginx/usr/sbin/nginx" -e "$dir/nginx/error.log" -p "$dir/nginx" -c "$dir/nginx.conf"
    nginx_pid=$spawned
    until_true 10 listens "$1" tcp 80 || die "nginx did not start: $dir/nginx/error.log"
}

# kea_peer SPACE INTERFACE NETWORK POOL: Kea's DHCPv4 server with its leases in a file, which it
# appends to and never syncs. Threads and queue are what its manual advises for that backend
# (Kea Administrator Reference Manual, "Multi-Threading Settings With Different Database Backends");
# all else is its default. Kea 3 writes into folders of its own choice unless they are named.
kea_peer() {
    cat >"$dir/kea.conf" <<KEA
{ "Dhcp4": {
    "interfaces-config": { "interfaces": [ "$2" ], "dhcp-socket-type": "udp" },
    "multi-threading": { "enable-multi-threading": true, "thread-pool-size": 4, "packet-queue-size": 28 },
    "lease-database": { "type": "memfile", "persist": true, "name": "$dir/kea.leases", "lfc-interval": 3600 },
    "authoritative": true,
    "valid-lifetime": 43200,
    "subnet4": [ { "id": 1, "subnet": "$3", "pools": [ { "pool": "$4" } ] } ],
    "loggers": [ { "name": "kea-dhcp4", "severity": "WARN",
        "output_options": [ { "output": "$dir/kea-dhcp4.log", "maxsize": 0 } ] } ]
} }
KEA
    spawn "$dir/kea.log" ip netns exec "$1" "${pinned[@]}" env LD_LIBRARY_PATH="$(peer_libraries)" \
        KEA_LFC_EXECUTABLE="$cache/peers/lib/kea-common/usr/sbin/kea-lfc" KEA_PIDFILE_DIR="$dir" KEA_LOCKFILE_DIR="$dir" \
        KEA_DHCP_DATA_DIR="$dir" KEA_LOG_FILE_DIR="$dir" \
        "$cache/peers/kea-dhcp4/usr/sbin/kea-dhcp4" -c "$dir/kea.conf"
    kea_pid=$spawned
    until_true 10 listens "$1" udp 67 || die "Kea did not start: $dir/kea.log, $dir/kea-dhcp4.log"
}

# perfdhcp_peer SPACE ARGUMENT…: Kea's load generator, in the foreground.
perfdhcp_peer() {
    local space=$1
    shift
    inside "$space" "${load_pinned[@]}" env LD_LIBRARY_PATH="$(peer_libraries)" "$cache/peers/perfdhcp/usr/sbin/perfdhcp" "$@"
}

# --- an archive ----------------------------------------------------------------------------------

# Where a Debian mirror has the images of the installer of $suite.
suite=bookworm
images() { printf 'dists/%s/main/installer-amd64/current/images/netboot/debian-installer/amd64\n' "$suite"; }

# Where the installer's kernel and initrd are, of Debian's own package.
debian_installer() {
    local found
    found=$(find /usr/lib/debian-installer/images -path '*/amd64/text/debian-installer/amd64' -type d 2>/dev/null | sort -V | tail -n 1)
    [[ -n $found ]] && printf '%s\n' "$found"
}

# debian_release FOLDER INSTALLER: lays the installer out as Debian's mirrors do, lists it in SHA256SUMS and
# that in Release with the lists of packages that are there already.
debian_release() {
    local dists=$1/dists/$suite images sums=main/installer-amd64/current/images/SHA256SUMS
    images=$1/$(images)
    mkdir -p "$images"
    cp "$2/linux" "$2/initrd.gz" "$images/"
    (cd "$dists/${sums%/*}" && find . -type f ! -name SHA256SUMS -exec sha256sum {} +) >"$dir/sums"
    mv "$dir/sums" "$dists/$sums"
    {
        cat <<RELEASE
Origin: Debian
Suite: $suite
Codename: $suite
Date: $(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S UTC')
Architectures: amd64
Components: main
SHA256:
RELEASE
        (cd "$dists" && find main \( -path "main/installer-amd64/*/SHA256SUMS" -o -path '*/binary-*/*' \) -exec sha256sum {} + | while read -r sum file; do
            printf ' %s %s %s\n' "$sum" "$(stat -c %s "$file")" "$file"
        done)
    } >"$dir/Release"
    mv "$dir/Release" "$dists/Release"
}

# debian_archive FOLDER INSTALLER: the same, signed by a key that is made for it: $dir/key.asc, and key.gpg in
# the folder.
debian_archive() {
    local dists=$1/dists/$suite gpg
    debian_release "$1" "$2"
    mkdir -m 700 "$dir/gnupg"
    gpg=(gpg --homedir "$dir/gnupg" --batch --quiet --yes --pinentry-mode loopback --passphrase '')
    on_exit "gpgconf --homedir '$dir/gnupg' --kill all"
    "${gpg[@]}" --quick-generate-key 'Lab <lab@archive.example>' rsa3072 sign never 2>/dev/null
    "${gpg[@]}" --armor --output "$dir/key.asc" --export
    "${gpg[@]}" --output "$1/key.gpg" --export
    "${gpg[@]}" --output "$dists/InRelease" --clear-sign "$dists/Release"
    "${gpg[@]}" --output "$dists/Release.gpg" --detach-sign "$dists/Release"
}

# --- a local disk ------------------------------------------------------------------------------
#
# The smallest things that a firmware boots: they say their word on the serial port and end the
# machine. Assembled here, so that what the lab boots can be read here.

word=pilotlight-local-disk

# bios_disk FILE: a boot sector. The ending is a triple fault, which -no-reboot makes QEMU's end.
bios_disk() {
    as --32 -o "$dir/disk.o" - <<ASM
        .code16
        .globl start
start:  xorw %ax, %ax
        movw %ax, %ds
        movw \$text, %si
next:   lodsb
        testb %al, %al
        jz done
        movb %al, %ah
wait:   movw \$0x3fd, %dx
        inb %dx, %al
        testb \$0x20, %al
        jz wait
        movb %ah, %al
        movw \$0x3f8, %dx
        outb %al, %dx
        jmp next
done:   lidt none
        int3
none:   .word 0, 0, 0
text:   .asciz "\r\n$word\r\n"
        .org 510
        .word 0xaa55
ASM
    ld -m elf_i386 --oformat binary -Ttext 0x7c00 -e start -o "$1" "$dir/disk.o"
    truncate -s 1M "$1"
}

# uefi_disk FOLDER: a folder that QEMU shows as a FAT disk, with the loader of last resort in it.
# It prints by the firmware's console and asks the firmware to switch off (UEFI 2.10, sections
# 4.3, 8.5.1 and 12.4.3 have the tables that the offsets are from).
uefi_disk() {
    mkdir -p "$1/EFI/BOOT"
    as --64 -o "$dir/disk.o" - <<ASM
        .globl start
start:  subq \$40, %rsp
        movq %rdx, %rbx
        movq 64(%rbx), %rcx
        leaq text(%rip), %rdx
        call *8(%rcx)
        movq 88(%rbx), %rax
        movl \$2, %ecx
        xorl %edx, %edx
        xorl %r8d, %r8d
        xorl %r9d, %r9d
        call *104(%rax)
hang:   jmp hang
        .balign 2
text:   .string16 "\r\n$word\r\n"
ASM
    # Subsystem 10 is an EFI application. The firmware loads it wherever there is room, which it
    # does only for an image that keeps its table of relocations, empty as it is.
    ld -m i386pep --subsystem 10 --image-base 0x10000 --dynamicbase --enable-reloc-section -e start \
        -o "$1/EFI/BOOT/BOOTX64.EFI" "$dir/disk.o"
}
