#!/bin/bash
# The router's power fails while a Pi writes: two guests, the server in the one with its own disk, which is killed and
# started again on that disk. The Pi must not notice, and nothing that was promised may be missing.
#
#   tests/guest/powercut.sh [CUTS]     default 5, with --sync and then without
#
# Five cuts take some five minutes. What is lost is what the router's kernel had not yet given to its disk; the disk
# itself loses nothing that it has.
set -euo pipefail
. "$(dirname "$0")/cell.sh"

TARGET=x86_64-unknown-linux-gnu

# Static, for a guest that has busybox only.
prepare() {
    (cd "$GUEST/../.." &&
        RUSTFLAGS='-C target-feature=+crt-static' with_ticker "building nfsd" \
            cargo build --quiet --locked --release --example nfsd --target $TARGET)
    cp "$GUEST/../../target/$TARGET/release/examples/nfsd" "$work/"
    gcc -static -Os -Wall -Werror -o "$work/durable" "$GUEST/durable.c"
}

# network - the two guests' own, and an address on it for this script.
network() {
    local tap
    ip link add br0 type bridge
    ip addr add 10.9.0.3/24 dev br0
    ip link set br0 up
    for tap in router pi; do
        ip tuntap add dev "$tap" mode tap
        ip link set "$tap" master br0 up
    done
}

# start_router [FILE...] - with its disk as it is, and what the Pi has been told until now.
start_router() {
    tr -d '\r' <"$work/pi.out" >"$work/said"
    : >"$work/router.out"
    "$GUEST/run.sh" --tap router --ip 10.9.0.1/24 --gw 10.9.0.3 --mac 52:54:00:12:34:01 --disk "$work/disk" \
        --timeout 86400 --out "$work/router.out" --log "$work/router.log" --pid "$work/router.pid" \
        "$GUEST/powercut_router.sh" "$work/nfsd" "$work/durable" "$work/said" "$work/options" "$@" 2>"$work/router.err" &
    router=$!
}

serving() {
    until grep -q '^ready' "$work/router.out"; do
        kill -0 "$router" 2>/dev/null ||
            { cat "$work/router.out" "$work/router.err"; tail -n 20 "$work/router.log"; return 1; }
        sleep 0.2
    done
    grep '^promised' "$work/router.out" || true
}

# from_pi - what it said, but for its promises.
from_pi() { tr -d '\r' <"$work/pi.out" | grep -Ev '^(fsync|stable|file|name) [0-9]|^guest: exit ' || true; }

# at_work - the Pi has been told more since this began.
at_work() {
    local lines patience=$((SECONDS + 120))
    lines=$(wc -l <"$work/pi.out")
    until [ "$(wc -l <"$work/pi.out")" -gt $((lines + 20)) ]; do
        if ! kill -0 "$pi" 2>/dev/null || [ $SECONDS -ge $patience ]; then
            say "the Pi does not go on"
            from_pi
            tail -n 5 "$work/pi.log"
            return 1
        fi
        sleep 0.2
    done
}

cut_power() {
    # QEMU itself: to end run.sh would end it in good order.
    kill -9 "$(cat "$work/router.pid")"
    wait "$router" 2>/dev/null || true
    tr -d '\r' <"$work/router.out" | grep '^memory' >>"$work/memory" || true
    # What it answered before is said by now.
    sleep 1
    # A copy, so that it is the router that repairs its own disk. First what every mount does, then: is it sound?
    cp --sparse=always "$work/disk" "$work/copy"
    e2fsck -p "$work/copy" >"$work/fsck" 2>&1 || [ $? = 1 ] || { cat "$work/fsck"; return 1; }
    e2fsck -fn "$work/copy" >"$work/fsck" 2>&1 || { cat "$work/fsck"; return 1; }
}

peak() { awk -v what="$1" '$2 == what && $3 > most { most = $3 } END { print most + 0 }' "$work/memory"; }

# scenario CUTS MODES OPTIONS
scenario() {
    local cuts=$1 n status=0
    echo "$2" >"$work/modes"
    echo "$3" >"$work/options"
    truncate -s 0 "$work/pi.out" "$work/memory"
    rm -f "$work/disk"
    truncate -s 1G "$work/disk"
    mke2fs -q -t ext4 "$work/disk"
    start_router
    serving
    "$GUEST/run.sh" --tap pi --ip 10.9.0.2/24 --gw 10.9.0.3 --mac 52:54:00:12:34:02 --mount 10.9.0.1:/export \
        --timeout 86400 --out "$work/pi.out" --log "$work/pi.log" \
        "$GUEST/powercut_pi.sh" "$work/durable" "$work/modes" &
    pi=$!
    for ((n = 1; n <= cuts; n++)); do
        at_work
        sleep "$((RANDOM % 6)).$((RANDOM % 10))"
        cut_power
        start_router
        serving
    done
    at_work
    : >/dev/tcp/10.9.0.2/9
    wait "$pi" || status=$?
    from_pi
    cut_power
    start_router "$work/last"
    wait "$router" || status=$?
    grep -v '^guest: exit' "$work/router.out" || true
    e2fsck -fn "$work/disk" >"$work/fsck" 2>&1 || { cat "$work/fsck"; status=1; }
    echo "powercut: $((cuts + 1)) cuts ${3:-without --sync}, status $status," \
        "server at most $(peak Rss:) kB, VmHWM $(peak VmHWM:) kB"
    return "$status"
}

inside() {
    touch "$work/last"
    network
    scenario "${1:-5}" "fsync stable file name" --sync
    # Names are not promised: a file that was being made may be gone, but not one whose fsync returned.
    scenario "${1:-5}" "fsync stable file?" ""
}

cell "$@"
