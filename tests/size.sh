#!/bin/bash
# make size: how large the static binaries and their packages are, and how much memory the agent takes when it has nothing to do.
#
#   size: <target> <bytes>     every router binary that is built from the present source; x86_64 is built if need be
#   ipk: <target> <bytes>      the package with it, which is what has to be downloaded and unpacked
#   rss: idle <kB>             VmRSS of the agent with all services up and three Pis enrolled; most of it is the
#                              program's own text, which the kernel may drop
#   rss: anon <kB>             the part of it that only the agent's end gives back
#   rss: threads <n>
#
# Run as root: the agent runs in namespaces of its own, on ports 69, 111 and 2049.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/common.sh

WORK=$PWD/target/size
WAIT=60 # seconds, for anything

say() { printf 'size: %s\n' "$*" >&2; }
die() { printf 'size: error: %s\n' "$*" >&2; exit 1; }

# --- binaries --------------------------------------------------------------------------------------------------

# package_size TARGET PROGRAM - the same for all architectures of the target, but for the name of it.
package_size() {
    local package
    package=$(APK=false openwrt/package.sh -o "$WORK" -b "$2" "${1%%-*}" 2>/dev/null | grep /piboot_)
    stat -c %s "$package"
}

print_sizes() {
    local program target
    for program in target/router/*/release/piboot; do
        target=$(basename "$(dirname "$(dirname "$program")")")
        if current "$program"; then
            printf 'size: %s %s\n' "$target" "$(stat -c %s "$program")"
            printf 'ipk: %s %s\n' "$target" "$(package_size "$target" "$program")"
        else
            say "$target was built from an older source: make router TARGET=$target"
        fi
    done
}

# --- what the agent is given -----------------------------------------------------------------------------------

make_config() {
    local n
    mkdir -p "$WORK/data"
    printf "config piboot 'main'\n\toption enabled '1'\n\tlist interface 'br-lan'\n"
    printf "\toption data_dir '%s'\n\toption dhcp 'off'\n" "$WORK/data"
    for n in 1 2 3; do
        printf "config device 'pi_%s'\n\toption hostname 'pi-%s'\n\toption image 'card'\n" $n $n
        printf "\toption serial '1000000%s'\n\toption mac 'dc:a6:32:00:00:0%s'\n" $n $n
    done
}

# --- the agent, inside the namespaces --------------------------------------------------------------------------

ready() { answers && grep -q '"devices_ready": 3' "$WORK/status.json" && grep -q '"jobs": 0' "$WORK/status.json"; }

# Every service, asked of the kernel and not of the agent.
serving() {
    local listening
    listening=$(ss -Hlntu | awk '{ n = split($5, part, ":"); print $1 "/" part[n] }' | sort -u)
    for service in udp/69 tcp/2049 tcp/111 udp/111; do
        grep -qx "$service" <<<"$listening" || return
    done
    [ "$(wc -l </proc/net/packet)" -gt 1 ]
}

# memory FIELD - of the agent, as proc(5) has it.
memory() { awk -v field="$1:" '$1 == field { print $2 }' "/proc/$AGENT/status"; }

measure() {
    trap 'kill -KILL "${AGENT:-}" 2>/dev/null || true' EXIT
    ip link set lo up
    ip link add br-lan type bridge
    ip address add 192.0.2.1/24 dev br-lan
    ip link set br-lan up
    start_agent
    wait_for "it answered" answers
    piboot image import "$WORK/card.img" --name card >>"$WORK/agent.log" 2>&1 || die "the import failed: see $WORK/agent.log"
    wait_for "three Pis were ready" ready
    stop_agent
    # Started anew: what making the trees took is not idle.
    start_agent
    wait_for "three Pis were ready" ready
    wait_for "it served" serving
    sleep 11 # two rounds of housekeeping
    printf 'rss: idle %s\nrss: anon %s\nrss: threads %s\n' "$(memory VmRSS)" "$(memory RssAnon)" "$(memory Threads)"
    cp "/proc/$AGENT/smaps" "$WORK/smaps"
    stop_agent
}

# ---------------------------------------------------------------------------------------------------------------

[ "$(id -u)" = 0 ] || die "run as root: the agent needs ports below 1024 and a network of its own"
if [ "${1:-}" = inside ]; then
    PROGRAM=$2
    measure
    exit
fi
static_x86_64
rm -rf "$WORK"
mkdir -p "$WORK"
print_sizes
make_card "$WORK"
make_config >"$WORK/piboot.conf"
unshare --net --mount --pid --fork --kill-child --mount-proc "$0" inside "$PROGRAM"
