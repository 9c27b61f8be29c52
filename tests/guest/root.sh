#!/bin/bash
# A Debian whose root comes from the NFS server, in the guest: packages, a compiler, git, a database (root_steps.sh),
# then a second boot with the systemd that was installed in the first (root_boot.sh). With the argument overlay the root is
# layers over that Debian, which are mounted anew between the two boots.
set -euo pipefail
. "$(dirname "$0")/cell.sh"

prepare() {
    local image
    image=$("$GUEST/root_image.sh")
    cp -a --reflink=auto "$image/root" "$work/lower"
    cp -r "$image/debs" "$work/lower/debs"
    [ "${1:-}" = overlay ] || { rmdir "$work/export" && mv "$work/lower" "$work/export"; }
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
    if [ "${1:-}" = overlay ]; then lay_over; fi
    start_server
    boot "$GUEST/root_steps.sh" --timeout 900
    if [ "${1:-}" = overlay ]; then
        # What the disk says is what counts now.
        kill_server
        umount "$work/export"
        echo 2 >/proc/sys/vm/drop_caches
        lay_over
        start_server
        # What was deleted has no content any more; what has some has a name.
        find "$work/work/index" -type f -links 1 -size +0 -printf 'left over: %s bytes, %f\n'
    fi
    boot "$GUEST/root_boot.sh" --timeout 300 --init /sbin/init
    grep VmHWM "/proc/$server/status"
}

cell "$@"
