#!/bin/bash
# Every way in which a Linux machine mounts the root of a Pi, in the x86-64 guest: mount(2) as in nfsroot=, klibc's
# nfsmount of Debian's initramfs, and busybox; with the server's ports where clients look, elsewhere, and without a
# portmapper. Needs root; in a network namespace of its own, so ports do not matter.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)

if [ "${1:-}" != inside ]; then
    (cd "$HERE/../.." && cargo build --quiet --example nfsd)
    "$HERE/x86.sh" >/dev/null
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    unshare --net --pid --fork --mount-proc --kill-child bash "$0" inside "$work"
    exit
fi

work=$2
ip link set lo up

# cell PORTS OPTION... - the server with these options, and the guest's script for these ports.
cell() {
    local ports=$1 server status=0
    shift
    rm -rf "$work/export" && mkdir "$work/export"
    echo "hello from $ports" >"$work/export/hello"
    echo "$ports" >"$work/ports"
    : >"$work/log"
    "$HERE/../../target/debug/examples/nfsd" --dir "$work/export" --key "$work/key" "$@" 2>"$work/log" &
    server=$!
    until grep -q '^ready' "$work/log"; do
        kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
        sleep 0.1
    done
    "$HERE/run.sh" "$HERE/mounts_guest.sh" "$work/ports" /usr/lib/klibc/bin/nfsmount /lib/klibc-*.so || status=$?
    kill "$server"
    wait "$server" 2>/dev/null || true
    [ "$status" = 0 ] || { echo "mounts: with ports $ports: status $status" >&2; exit 1; }
    asked=$(grep -c 'Getport' "$work/log" || true)
    mounted=$(grep -c 'Mounted' "$work/log" || true)
    echo "mounts: ports $ports: $mounted mounted, $asked questions for a port"
}

# asked_for PROGRAM PORT - the portmapper was, and said PORT.
asked_for() {
    grep -q "Getport { program: $1, version: 3, answered_port: $2 }" "$work/log" && return
    echo "mounts: nobody asked the portmapper for $1" >&2
    exit 1
}

cell standard --portmap 111
asked_for 100003 2049
asked_for 100005 2049
cell moved --portmap 111 --port 12049
asked_for 100003 12049
asked_for 100005 12049
cell alone --port 12049
