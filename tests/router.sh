#!/bin/bash
# make router-test: the router binaries of other machines at work, under QEMU's user emulation.
#
#   tests/router.sh [TARGET...]     as openwrt/build.sh has them; default: aarch64 mipsel
#
# Builds what is not built from the present source. Each binary then looks at files (no agent), and runs as the agent
# of a small network: it sees a Pi's DHCP request, imports an image, makes a Pi's root, serves it over TFTP and NFS,
# and finds everything again after a restart. This shows that instruction set, byte layouts and system calls are right
# on 32-bit and foreign machines; it shows nothing about OpenWrt's kernel. Run as root: network namespaces.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/common.sh

MAC=dc:a6:32:00:00:01
SERIAL=10000001
STRANGER=dc:a6:32:00:00:02
WAIT=60 # seconds, for anything

say() { printf 'router test: %s\n' "$*" >&2; }
die() { printf 'router test: error: %s\n' "$*" >&2; exit 1; }

# --- without an agent ------------------------------------------------------------------------------------------

emulator() {
    case $1 in
    x86_64-*) ;;
    armv7-*) echo qemu-arm-static ;;
    riscv64gc-*) echo qemu-riscv64-static ;;
    *) echo "qemu-${1%%-*}-static" ;;
    esac
}

# says COMMAND TEXT... - the program's output has all the texts.
says() {
    local command=$1 text output
    shift
    # shellcheck disable=SC2086
    output=$($PROGRAM $command 2>&1) || die "$command: $output"
    for text in "$@"; do
        [[ $output == *"$text"* ]] || die "$command said nothing of '$text': $output"
    done
}

# A Pi's DISCOVER, as hex digits: BOOTP header, hardware address, message type, vendor class.
discover() {
    printf '010106000000000100000000%032d%s%020d%0384d' 0 "${MAC//:/}" 0 0
    printf '638253633501013c20%sff' "$(printf 'PXEClient:Arch:00000:UNDI:002001' | od -An -tx1 -v | tr -d ' \n')"
}

check_tools() {
    says --version "piboot $VERSION"
    says "image inspect $WORK/card.img" "disk_id: 4e639091" "source_bytes: 35651584"
    says "image inspect $WORK/card.img.xz" "disk_id: 4e639091" "disk_bytes: 34603008"
    says "dhcp decode $(discover)" "$MAC"
    # A configuration that is wrong everywhere, and an agent that says so and goes.
    printf "config piboot 'main'\n\toption enabled '0'\n\toption dhcp 'perhaps'\n\toption unknwon 'ask'\n" >"$WORK/wrong"
    local output
    ! output=$($PROGRAM --socket "$WORK/wrong.sock" serve --config "$WORK/wrong" 2>&1) || die "it served a wrong configuration"
    [[ $output == *"enabled is '0'"* ]] || die "a configuration that is disabled: $output"
}

# --- the agent, inside the namespaces --------------------------------------------------------------------------

# Runs something on the Pi's side of the cable.
on_pi() { nsenter --net="/proc/$PI/ns/net" "$@"; }
ready() { answers && grep -q '"devices_ready": 1' "$WORK/status.json" && grep -q '"jobs": 0' "$WORK/status.json"; }
listed() { piboot devices 2>/dev/null | grep -q "$1"; }

make_network() {
    ip link set lo up
    unshare --net sleep infinity &
    PI=$!
    until [ "$(readlink "/proc/$PI/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
    ip link add br-lan type bridge
    ip address add 192.0.2.1/24 dev br-lan
    ip link set br-lan up
    add_pi eth0 $MAC
    add_pi eth1 $STRANGER
    on_pi ip address add 192.0.2.10/24 dev eth0
}

# add_pi DEVICE MAC
add_pi() {
    ip link add "port-$1" type veth peer name "$1" address "$2" netns "$PI"
    ip link set "port-$1" up master br-lan
    on_pi ip link set "$1" up
}

make_config() {
    mkdir -p "$WORK/data"
    printf "config piboot 'main'\n\toption enabled '1'\n\tlist interface 'br-lan'\n"
    printf "\toption data_dir '%s'\n\toption dhcp 'off'\n" "$WORK/data"
    printf "config device 'pi_1'\n\toption hostname 'pi-1'\n\toption image 'card'\n"
    printf "\toption serial '%s'\n\toption mac '%s'\n" $SERIAL $MAC
}

# Nobody answers; it is about being seen, by a packet socket.
check_dhcp() {
    on_pi busybox udhcpc -i eth1 -f -n -q -t 2 -T 1 -s /bin/true -V PXEClient:Arch:00000:UNDI:002001 >/dev/null 2>&1 || true
    wait_for "a Pi was seen by its DHCP request" listed $STRANGER
}

check_tftp() {
    local size
    on_pi curl -sS --max-time $WAIT -o "$WORK/got" "tftp://192.0.2.1/$SERIAL/bootcode.bin" || die "TFTP failed"
    cmp "$WORK/boot/bootcode.bin" "$WORK/got"
    for size in 512 1024 8192; do
        on_pi curl -sS --max-time $WAIT --tftp-blksize $size -o "$WORK/got" "tftp://192.0.2.1/$SERIAL/bootcode.bin" ||
            die "TFTP in blocks of $size failed"
        cmp "$WORK/boot/bootcode.bin" "$WORK/got"
    done
    ! on_pi curl -sS --max-time $WAIT -o "$WORK/got" "tftp://192.0.2.1/$SERIAL/no.bin" 2>/dev/null || die "TFTP served what is not there"
}

# nfs TOOL [FILE...] - the Pi's root is written as @, a file in it as @/file (libnfs mounts the directory of a file, so
# there is no @/file). Ports are found through the portmapper.
nfs() {
    local tool=$1 arguments=()
    shift
    for argument in "$@"; do
        case $argument in
        @*) arguments+=("nfs://192.0.2.1/pi_1/root${argument#@}?version=3&uid=0&gid=0") ;;
        *) arguments+=("$argument") ;;
        esac
    done
    on_pi timeout $WAIT "$tool" "${arguments[@]}" 2>"$WORK/nfs.log" || die "$tool $*: $(cat "$WORK/nfs.log")"
}

check_nfs() {
    local root=$WORK/data/devices/pi_1/root size
    nfs nfs-ls -R @ >"$WORK/listing"
    grep -q ' 5 .*etc/hostname$' "$WORK/listing" || die "the root is not what was made: $(cat "$WORK/listing")"
    for size in 0 1 4096 3000001; do
        head -c $size /dev/urandom >"$WORK/sent"
        nfs nfs-cp "$WORK/sent" "@/file-$size" >/dev/null
        cmp "$WORK/sent" "$root/file-$size"
        nfs nfs-cat "@/file-$size" | cmp "$WORK/sent"
    done
    # Times beyond 2038 (of the image), and sizes beyond 4 GiB, on machines of 32 bits too.
    [ "$(stat -c %Y "$root/etc/motd")" = 4105310706 ] || die "a time in 2100 became $(stat -c %y "$root/etc/motd")"
    truncate -s 5368709121 "$root/file-0"
    nfs nfs-ls @ >"$WORK/listing"
    grep -q ' 5368709121 .*file-0$' "$WORK/listing" || die "a file of 5 GiB: $(cat "$WORK/listing")"
    rm "$root"/file-*
}

# What SQLite kept.
check_history() {
    piboot boots >"$WORK/boots"
    grep -q pi_1 "$WORK/boots" || die "the boot was not written down: $(cat "$WORK/boots")"
    [ -s "$WORK/data/piboot.db" ] || die "there is no database"
}

inside() {
    trap 'kill -KILL "${AGENT:-}" "${PI:-}" 2>/dev/null || true' EXIT
    make_network
    make_config >"$WORK/piboot.conf"
    start_agent
    wait_for "it answered" answers
    piboot image import "$WORK/card.img.xz" --name card >>"$WORK/agent.log" 2>&1 || die "the import failed: see $WORK/agent.log"
    wait_for "the Pi's root was made" ready
    check_dhcp
    check_tftp
    check_nfs
    check_history
    stop_agent
    start_agent
    wait_for "it answered again" ready
    check_tftp
    check_nfs
    check_history
    wait_for "a Pi that was seen is remembered" listed $STRANGER
    stop_agent
}

# ---------------------------------------------------------------------------------------------------------------

[ "$(id -u)" = 0 ] || die "run as root: network namespaces"
VERSION=$(sed -n '/^\[package\]/,/^\[/ s/^version = "\(.*\)"$/\1/p' Cargo.toml)
if [ "${1:-}" = --inside ]; then
    WORK=$2 PROGRAM=$3
    inside
    exit
fi
[ $# -gt 0 ] || set -- aarch64 mipsel
for target in "$@"; do
    full=$(openwrt/build.sh --name "$target")
    binary=$PWD/target/router/$full/release/piboot
    if ! { [ -x "$binary" ] && current "$binary"; }; then
        tests/setup.sh router
        openwrt/build.sh "$target"
    fi
    WORK=$PWD/target/router-test/$target
    PROGRAM="$(emulator "$full") $binary"
    rm -rf "$WORK"
    mkdir -p "$WORK"
    make_card "$WORK"
    xz -k -0 "$WORK/card.img"
    began=$SECONDS
    check_tools
    unshare --net --mount --pid --fork --kill-child --mount-proc "$0" --inside "$WORK" "$PROGRAM"
    say "$target: $(stat -c %s "$binary") bytes: file tools, DHCP, import, TFTP, NFS and database work, $((SECONDS - began)) s"
done
