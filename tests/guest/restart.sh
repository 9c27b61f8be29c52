#!/bin/bash
# kill -9 of the server every few seconds, under a minute of verified writes in the guest (writer.sh). The guest sees no
# error; and after each kill, before the next start, the export has all that the server had promised to keep.
set -euo pipefail
. "$(dirname "$0")/cell.sh"

DURATION=60

prepare() { gcc -static -Os -Wall -Werror -o "$work/durable" "$GUEST/durable.c"; }

# promised - is it in the export? Looked at from here, not through the server.
promised() { "$work/durable" --check "$work/export/durable" <(tr -d '\r' <"$work/said"); }

inside() {
    local guest end said kills=0 status=0
    start_server
    touch "$work/said"
    "$GUEST/run.sh" --mount 10.0.2.2:/export --out "$work/said" "$GUEST/writer.sh" "$work/durable" &
    guest=$!
    end=$((SECONDS + DURATION))
    while [ $SECONDS -lt $end ]; do
        # The guest is at work again.
        said=$(wc -l <"$work/said")
        until [ "$(wc -l <"$work/said")" -gt $((said + 10)) ]; do
            kill -0 "$guest" 2>/dev/null || break 2
            sleep 0.1
        done
        sleep "$((RANDOM % 3)).$((RANDOM % 10))"
        kill_server
        kills=$((kills + 1))
        # What was answered before is said by now.
        sleep 1
        promised || status=1
        start_server
    done
    wait "$guest" || status=$?
    promised || status=1
    tr -d '\r' <"$work/said" | grep -Ev '^(fsync|stable|file|name) [0-9]|^guest: exit ' || true
    grep VmHWM "/proc/$server/status"
    echo "restart: $kills times, status $status"
    [ "$kills" -ge 5 ] || { say "the guest was at work for fewer than 5 of them"; return 1; }
    return "$status"
}

cell "$@"
