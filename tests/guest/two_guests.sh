#!/bin/bash
# Two Linux machines race for the same names on one export: each is made by exactly one. Appending to one file from two
# machines is not tried: NFSv3 has no such request, and open(2) warns of it.
set -euo pipefail
. "$(dirname "$0")/cell.sh"

prepare() { gcc -static -Os -Wall -Wextra -o "$work/exclusive" "$GUEST/exclusive.c"; }

inside() {
    local me guest kind n guests=()
    : >"$work/export/linked"
    start_server
    for me in 0 1; do
        echo "exec /guest/exclusive /mnt $me" >"$work/script.$me"
        "$GUEST/run.sh" --mount 10.0.2.2:/export --opts vers=3,tcp,nolock,noac,lookupcache=none \
            "$work/script.$me" "$work/exclusive" &
        guests+=($!)
    done
    for guest in "${guests[@]}"; do wait "$guest"; done
    sort "$work/export/won.0" "$work/export/won.1" >"$work/won"
    # What was there to be won: 100 of each kind.
    for kind in directory file link; do for n in {0..99}; do echo "$kind.$n"; done; done | sort >"$work/wanted"
    cmp "$work/wanted" "$work/won" || { diff "$work/wanted" "$work/won" | head >&2; return 1; }
    echo "two guests: every name was made once"
}

cell "$@"
