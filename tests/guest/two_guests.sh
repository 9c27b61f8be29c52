#!/bin/bash
# Two Linux machines race for the same names on one export: each is made by exactly one. Appending to one file from two
# machines is not tried: NFSv3 has no such request, and open(2) warns of it. Needs root.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)

if [ "${1:-}" != inside ]; then
    (cd "$HERE/../.." && cargo build --quiet --example nfsd)
    "$HERE/x86.sh" >/dev/null
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    gcc -static -Os -Wall -Wextra -o "$work/exclusive" "$HERE/exclusive.c"
    unshare --net --pid --fork --mount-proc --kill-child bash "$0" inside "$work"
    exit
fi

work=$2
ip link set lo up
mkdir "$work/export"
: >"$work/export/linked"
: >"$work/log"
"$HERE/../../target/debug/examples/nfsd" --dir "$work/export" --portmap 111 --key "$work/key" 2>"$work/log" &
server=$!
until grep -q '^ready' "$work/log"; do
    kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done

guests=() status=0
for me in 0 1; do
    echo "exec /guest/exclusive /mnt $me" >"$work/script.$me"
    "$HERE/run.sh" --mount 10.0.2.2:/export --opts vers=3,tcp,nolock,noac,lookupcache=none \
        "$work/script.$me" "$work/exclusive" &
    guests+=($!)
done
for guest in "${guests[@]}"; do wait "$guest" || status=$?; done
kill "$server"
[ "$status" = 0 ] || exit "$status"

cd "$work/export"
sort won.0 won.1 >"$work/won"
# What was there to be won: 100 of each kind.
for kind in directory file link; do for n in {0..99}; do echo "$kind.$n"; done; done | sort >"$work/wanted"
cmp "$work/wanted" "$work/won" || { diff "$work/wanted" "$work/won" | head >&2; exit 1; }
echo "two guests: every name was made once"
