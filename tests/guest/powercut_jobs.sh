#!/bin/bash
# The router's power fails while it imports an image, enrols a Pi, makes its root anew, snapshots it, rolls it back, backs
# it up, restores and removes it, by copies and by layers over the image: a guest with its own disk, which is killed and
# started again on that disk. What was said to be done must be there, whole; what was not is there whole or not at all; and
# nothing half-made is left.
#
#   tests/guest/powercut_jobs.sh [CUTS]     default 8, some two minutes
set -euo pipefail
. "$(dirname "$0")/cell.sh"

# The router's own build, which the packages carry.
prepare() {
    (cd "$GUEST/../.." && tests/setup.sh router && with_ticker "building piboot" openwrt/build.sh x86_64)
    cp "$GUEST/../../target/router/$("$GUEST/../../openwrt/build.sh" --name x86_64)/release/piboot" "$work/"
    image "$work/small.img"
}

# image FILE - laid out as Raspberry Pi OS is: some 300 files in the root, 24 MB in all.
image() {
    local file=$1 tree=$work/tree n
    mkdir -p "$tree/boot" "$tree/root/"{etc,sbin,usr/lib,boot/firmware}
    for n in kernel8.img start4.elf fixup4.dat initramfs8 bcm2711-rpi-4-b.dtb; do
        head -c 1500000 /dev/urandom >"$tree/boot/$n"
    done
    echo arm_64bit=1 >"$tree/boot/config.txt"
    echo "console=tty1 root=PARTUUID=4e639091-02 rootwait" >"$tree/boot/cmdline.txt"
    for n in {1..300}; do head -c $((n * 200)) /dev/urandom >"$tree/root/usr/lib/file-$n"; done
    head -c 6000000 /dev/urandom >"$tree/root/sbin/init"
    chmod 755 "$tree/root/sbin/init"
    echo raspberrypi >"$tree/root/etc/hostname"
    echo "PARTUUID=4e639091-02 / ext4 defaults 0 1" >"$tree/root/etc/fstab"
    truncate -s 64M "$file"
    printf 'label: dos\nlabel-id: 0x4e639091\nstart=2048, size=40960, type=c\nstart=43008, type=83\n' | sfdisk -q "$file"
    mkfs.vfat --offset 2048 "$file" 20480 >/dev/null 2>&1
    mcopy -s -i "$file@@1M" "$tree/boot/"* ::/
    mkfs.ext4 -q -d "$tree/root" -E offset=$((43008 * 512)) "$file" 43000k
}

# start_router [FILE...] - with its disk as it is, and what it has said until now.
start_router() {
    cat "$work/router.out" >>"$work/all" 2>/dev/null || true
    tr -d '\r' <"$work/all" >"$work/said"
    : >"$work/router.out"
    "$GUEST/run.sh" --disk "$work/disk" --timeout 86400 --out "$work/router.out" --log "$work/router.log" \
        --pid "$work/router.pid" "$GUEST/powercut_jobs_router.sh" "$work/piboot" "$work/small.img" "$work/said" \
        "$("$GUEST/x86.sh")"/root-modules/lib/modules/*/kernel/overlay.ko "$@" \
        2>"$work/router.err" &
    router=$!
}

# at_work - it has checked what it found, and begun anew.
at_work() {
    until grep -q '^begin' "$work/router.out"; do
        kill -0 "$router" 2>/dev/null ||
            { cat "$work/router.out" "$work/router.err"; tail -n 20 "$work/router.log"; return 1; }
        sleep 0.2
    done
}

cut_power() {
    # QEMU itself: to end run.sh would end it in good order.
    kill -9 "$(cat "$work/router.pid")" || { cat "$work/router.out" "$work/router.err"; return 1; }
    wait "$router" 2>/dev/null || true
    # A copy, so that it is the router that repairs its own disk. First what every mount does, then: is it sound?
    cp --sparse=always "$work/disk" "$work/copy"
    e2fsck -p "$work/copy" >"$work/fsck" 2>&1 || [ $? = 1 ] || { cat "$work/fsck"; return 1; }
    e2fsck -fn "$work/copy" >"$work/fsck" 2>&1 || { cat "$work/fsck"; return 1; }
}

inside() {
    local n status=0
    : >"$work/all"
    : >"$work/router.out"
    touch "$work/last"
    truncate -s 2G "$work/disk"
    mke2fs -q -t ext4 "$work/disk"
    start_router
    for ((n = 1; n <= ${1:-8}; n++)); do
        at_work
        sleep "$((RANDOM % 12)).$((RANDOM % 10))"
        cut_power
        echo "cut $n in: $(tr -d '\r' <"$work/router.out" | grep -E '^(begin|done)' | tail -n 1)"
        start_router
    done
    at_work
    cut_power
    start_router "$work/last"
    wait "$router" || status=$?
    [ "$status" = 0 ] || cat "$work/router.out" "$work/router.err"
    cat "$work/router.out" >>"$work/all"
    echo "powercut: $((${1:-8} + 1)) cuts, $(grep -c '^done' "$work/all") jobs done between them, status $status"
    return "$status"
}

cell "$@"
