#!/bin/bash
# The NFS server with the Linux kernel's own client, in the x86-64 guest: does a mount do what a local disk does? See
# semantic.c.
set -euo pipefail
. "$(dirname "$0")/cell.sh"

prepare() { gcc -static -Os -Wall -Wno-unused-result -o "$work/semantic" "$GUEST"/semantic*.c; }

inside() {
    start_server
    echo 'exec /guest/semantic /mnt' >"$work/script"
    "$GUEST/run.sh" --mount 10.0.2.2:/export "$work/script" "$work/semantic"
}

cell "$@"
