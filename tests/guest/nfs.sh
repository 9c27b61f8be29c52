#!/bin/bash
# The NFS server with the Linux kernel's own client, in the x86-64 guest: what a local disk does (semantic.c), and
# kill -9 of the server under a writer. Needs root; in a network namespace of its own, so ports do not matter.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)

if [ "${1:-}" != inside ]; then
    (cd "$HERE/../.." && cargo build --quiet --example nfsd)
    "$HERE/x86.sh" >/dev/null
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    gcc -static -Os -Wall -Wno-unused-result -o "$work/semantic" "$HERE"/semantic*.c
    mkdir "$work/export"
    # A process namespace as well: whatever is left running ends with this script.
    unshare --net --pid --fork --mount-proc --kill-child bash "$0" inside "$work"
    exit
fi

work=$2 server=
ip link set lo up
nfsd=$HERE/../../target/debug/examples/nfsd

start() {
    : >"$work/ready"
    "$nfsd" --dir "$work/export" --portmap 111 --key "$work/key" 2>"$work/ready" &
    server=$!
    until grep -q '^ready' "$work/ready"; do
        kill -0 "$server" 2>/dev/null || { cat "$work/ready" >&2; exit 1; }
        sleep 0.1
    done
}

start
echo 'exec /guest/semantic /mnt' >"$work/script"
"$HERE/run.sh" --mount 10.0.2.2:/export "$work/script" "$work/semantic"

"$HERE/run.sh" --mount 10.0.2.2:/export --timeout 300 "$HERE/nfs_writer.sh" &
guest=$!
until [ -e "$work/export/writer/log" ]; do
    kill -0 "$guest" 2>/dev/null || break
    sleep 0.2
done
for _ in 1 2 3 4 5; do
    sleep 4
    kill -9 "$server"
    wait "$server" 2>/dev/null || true
    sleep 1
    start
done
status=0
wait "$guest" || status=$?
grep VmHWM "/proc/$server/status"
kill "$server"
exit $status
