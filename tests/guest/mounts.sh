#!/bin/bash
# Every way in which a Linux machine mounts the root of a Pi, in the x86-64 guest: mount(2) as in nfsroot=, klibc's
# nfsmount of Debian's initramfs, and busybox; with the server's ports where clients look, elsewhere, and without a
# portmapper.
set -euo pipefail
. "$(dirname "$0")/cell.sh"

# try PORTS OPTION... - the server with these options, and the guest's script for these ports.
try() {
    local ports=$1 status=0 asked mounted
    shift
    rm -rf "$work/export" && mkdir "$work/export"
    echo "hello from $ports" >"$work/export/hello"
    echo "$ports" >"$work/ports"
    start_server "$@"
    "$GUEST/run.sh" "$GUEST/mounts_guest.sh" "$work/ports" /usr/lib/klibc/bin/nfsmount /lib/klibc-*.so || status=$?
    kill_server
    [ "$status" = 0 ] || die "with ports $ports: status $status"
    asked=$(grep -c 'Getport' "$work/log" || true)
    mounted=$(grep -c 'Mounted' "$work/log" || true)
    echo "mounts: ports $ports: $mounted mounted, $asked questions for a port"
}

# asked_for PROGRAM PORT - the portmapper was, and said PORT.
asked_for() {
    grep -q "Getport { program: $1, version: 3, answered_port: $2 }" "$work/log" ||
        die "nobody asked the portmapper for $1"
}

inside() {
    try standard --portmap 111
    asked_for 100003 2049
    asked_for 100005 2049
    try moved --portmap 111 --port 12049
    asked_for 100003 12049
    asked_for 100005 12049
    try alone --port 12049
}

cell "$@"
