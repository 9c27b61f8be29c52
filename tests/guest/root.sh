#!/bin/bash
# A Debian whose root comes from the NFS server, in the guest: packages, a compiler, git, a database (root_steps.sh),
# then a second boot with the systemd that was installed in the first (root_boot.sh).
set -euo pipefail
. "$(dirname "$0")/cell.sh"

prepare() {
    local image
    image=$("$GUEST/root_image.sh")
    rmdir "$work/export"
    cp -a --reflink=auto "$image/root" "$work/export"
    cp -r "$image/debs" "$work/export/debs"
}

# boot SCRIPT OPTION... - with $work/export as the root.
boot() {
    local script=$1 started=$SECONDS status=0
    shift
    "$GUEST/run.sh" --mount 10.0.2.2:/export --root "$@" "$script" || status=$?
    echo "$(basename "$script"): $((SECONDS - started)) s, status $status"
    return "$status"
}

inside() {
    start_server
    boot "$GUEST/root_steps.sh" --timeout 900
    boot "$GUEST/root_boot.sh" --timeout 300 --init /sbin/init
    grep VmHWM "/proc/$server/status"
}

cell "$@"
