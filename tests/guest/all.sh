#!/bin/bash
# Runs tests of this directory, two at a time: a guest keeps one processor busy. What a test prints comes when it has ended.
#
#   tests/guest/all.sh NAME...     those of tests/guest/NAME.sh
#
# After the first that fails none is begun any more; the status is 1 then.
set -euo pipefail
cd "$(dirname "$0")"

AT_ONCE=2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'kill $(jobs -p) 2>/dev/null; exit 130' INT TERM

declare -A names
failed=''

# Waits for one that runs and says how it was.
reap() {
    local pid status=0
    wait -n -p pid || status=$?
    echo "guest: ${names[$pid]}"
    cat "$work/${names[$pid]}"
    [ $status -eq 0 ] || { echo "guest: ${names[$pid]} failed, status $status"; failed=1; }
    unset "names[$pid]"
}

# What they need and would build at the same time.
(cd ../.. && cargo build --quiet --locked --example nfsd && cargo build --quiet --locked --bin piboot)
./x86.sh >/dev/null

for name in "$@"; do
    [ -z "$failed" ] || break
    "./$name.sh" >"$work/$name" 2>&1 &
    names[$!]=$name
    if [ ${#names[@]} -ge $AT_ONCE ]; then reap; fi
done
while [ ${#names[@]} -gt 0 ]; do reap; done
[ -z "$failed" ]
