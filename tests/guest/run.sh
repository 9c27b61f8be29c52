#!/bin/bash
# Runs a script in the x86-64 guest and prints what it prints; the exit status is the script's.
#
#   tests/guest/run.sh [options] SCRIPT [FILE...]
#     --mount SERVER:EXPORT   mount that on /mnt first
#     --opts OPTIONS          with these options (default vers=3,tcp,nolock)
#     --root                  and make it the root: the script is process 1 there, as /run/guest/script
#     --init PROGRAM          with --root: that is process 1; something it starts has to run /run/guest/script
#     --bare                  with --init: nothing else is mounted, as where a kernel mounts its root by itself
#     --append WORDS          more for the kernel's command line
#     --tap NAME --ip A/BITS --gw A   a tap interface instead of QEMU's user networking
#     --mac MAC               the guest's MAC address
#     --drive FILE            a raw disk, read-only: /dev/vda
#     --disk FILE             the same, to write on; past the host's page cache
#     --timeout SECONDS       default 300; exit status 124
#     --log FILE              the kernel's console
#     --out FILE              what the script prints, while it prints it, instead of at the end
#     --pid FILE              the process number of QEMU
#
# SCRIPT is the guest's /guest/script (busybox sh), each FILE is /guest/NAME. With user networking the guest's
# 10.0.2.2 is the loopback of the network namespace that this runs in, so cells side by side do not meet.
# Statuses of its own: 200 the mount failed, 125 the guest ended without a result.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)

cmdline="console=ttyS0 panic=-1 mitigations=off nokaslr random.trust_cpu=on"
net="user,id=n0" mac=52:54:00:12:34:56 limit=300 log=/dev/null out='' extra=()
while [ $# -gt 0 ]; do
    case $1 in
    --mount) cmdline+=" guest.mount=$2" ;;
    --opts) cmdline+=" guest.opts=$2" ;;
    --root) cmdline+=" guest.root=1"; shift; continue ;;
    --init) cmdline+=" guest.init=$2 net.ifnames=0" ;;
    --bare) cmdline+=" guest.bare=1"; shift; continue ;;
    --append) cmdline+=" $2" ;;
    --ip) cmdline+=" guest.ip=$2" ;;
    --gw) cmdline+=" guest.gw=$2" ;;
    --tap) net="tap,id=n0,ifname=$2,script=no,downscript=no" ;;
    --mac) mac=$2 ;;
    --drive) extra+=(-drive "file=$2,format=raw,if=virtio,readonly=on") ;;
    --disk) extra+=(-drive "file=$2,format=raw,if=virtio,cache=none") ;;
    --timeout) limit=$2 ;;
    --log) log=$2 ;;
    --out) out=$2 ;;
    --pid) extra+=(-pidfile "$2") ;;
    -*) echo "run.sh: unknown option $1" >&2; exit 2 ;;
    *) break ;;
    esac
    shift 2
done
[ $# -gt 0 ] || { echo "usage: run.sh [options] SCRIPT [FILE...]" >&2; exit 2; }

guest=$("$HERE/x86.sh")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/tree/guest"
script=$1
shift
cp "$script" "$work/tree/guest/script"
[ $# -eq 0 ] || cp "$@" "$work/tree/guest/"
# The kernel unpacks archives that follow one another (an uncompressed one only at a multiple of four bytes).
{
    cat "$guest/initramfs"
    (cd "$work/tree" && find guest | cpio --quiet -o -H newc -R 0:0 | gzip -1)
} >"$work/initrd"

# In the background, so that a signal to this script ends the guest at once.
timeout "$limit" qemu-system-x86_64 -accel tcg -cpu max -smp 1 -m 1024 \
    -nodefaults -no-reboot -display none -monitor none \
    -serial "file:$log" -serial "file:${out:-$work/out}" \
    -netdev "$net" -device "virtio-net-pci,netdev=n0,mac=$mac,romfile=" "${extra[@]}" \
    -kernel "$guest/vmlinuz" -initrd "$work/initrd" -append "$cmdline" </dev/null &
qemu=$!
trap 'kill "$qemu" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 143' INT TERM
status=0
wait "$qemu" || status=$?
[ -n "$out" ] || tr -d '\r' <"$work/out" | grep -v '^guest: exit ' || true
[ "$status" != 124 ] || { echo "run.sh: no result after $limit s" >&2; exit 124; }
exit "$(tr -d '\r' <"${out:-$work/out}" | awk '/^guest: exit / { s = $3 } END { print s == "" ? 125 : s }')"
