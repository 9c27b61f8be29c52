#!/bin/bash
# The roots are on an NFS server that was there before: NFS-Ganesha. The router is a guest that has mounted it with the
# kernel's client; what it makes there, a second guest mounts as its root, as the Pi would. And what is wrong with such
# a server is said.
#
#   tests/guest/external.sh
set -euo pipefail
. "$(dirname "$0")/cell.sh"

SERVER=10.0.2.2 # from a guest: this namespace's loopback
MOUNT_PORT=20048

prepare() {
    local loader
    (cd "$GUEST/../.." && cargo build --quiet --locked --bin piboot)
    # The guest has busybox and nothing else.
    cp "$GUEST/../../target/debug/piboot" "$work/"
    strip "$work/piboot"
    mkdir "$work/lib"
    loader=$(ldd "$work/piboot" | awk '$1 ~ /ld-linux/ { print $1 }')
    cp "$loader" "$work/lib/ld.so"
    ldd "$work/piboot" | awk '$3 ~ /^\// { print $3 }' | xargs -I{} cp {} "$work/lib/"
    image "$work/small.img"
}

# image FILE - laid out as Raspberry Pi OS is; its init is a program that this machine's guest can run.
image() {
    local file=$1 tree=$work/tree n
    mkdir -p "$tree/boot" "$tree/root/"{etc,bin,sbin,usr/bin,usr/lib,boot/firmware,dev,proc,run,sys,tmp}
    for n in kernel8.img start4.elf fixup4.dat bcm2711-rpi-4-b.dtb; do head -c 50000 /dev/urandom >"$tree/boot/$n"; done
    echo arm_64bit=1 >"$tree/boot/config.txt"
    echo "console=tty1 root=PARTUUID=4e639091-02 rootwait" >"$tree/boot/cmdline.txt"
    for n in {1..100}; do head -c $((n * 100)) /dev/urandom >"$tree/root/usr/lib/file-$n"; done
    cp /bin/busybox "$tree/root/bin/busybox"
    ln -s busybox "$tree/root/bin/sh"
    ln -s ../bin/busybox "$tree/root/sbin/init"
    cp /bin/busybox "$tree/root/usr/bin/ping"
    setfattr -n user.note -v lost "$tree/root/usr/lib/file-1"
    setcap cap_net_raw+ep "$tree/root/usr/bin/ping"
    chown 1000:1000 "$tree/root/usr/lib/file-2"
    mknod "$tree/root/dev/null" c 1 3
    echo raspberrypi >"$tree/root/etc/hostname"
    echo "PARTUUID=4e639091-02 / ext4 defaults 0 1" >"$tree/root/etc/fstab"
    truncate -s 64M "$file"
    printf 'label: dos\nlabel-id: 0x4e639091\nstart=2048, size=40960, type=c\nstart=43008, type=83\n' | sfdisk -q "$file"
    mkfs.vfat --offset 2048 "$file" 20480 >/dev/null 2>&1
    mcopy -s -i "$file@@1M" "$tree/boot/"* ::/
    mkfs.ext4 -q -d "$tree/root" -E offset=$((43008 * 512)) "$file" 43000k
}

# start_ganesha SQUASH - NFSv3 alone, over TCP, known to the portmapper as nfsd is.
start_ganesha() {
    cat >"$work/ganesha.conf" <<-CONF
		NFS_CORE_PARAM { Protocols = 3; NFS_Port = 2049; MNT_Port = $MOUNT_PORT; Enable_NLM = false;
		    Enable_RQUOTA = false; mount_path_pseudo = false; }
		EXPORT { Export_Id = 1; Path = $work/export; Pseudo = $work/export; Access_Type = RW; Squash = $1;
		    Protocols = 3; Transports = TCP; SecType = sys, none; FSAL { Name = VFS; } }
	CONF
    ganesha.nfsd -F -N EVENT -L "$work/ganesha.log" -f "$work/ganesha.conf" -p "$work/ganesha.pid" &
    ganesha=$!
    until rpcinfo -T tcp 127.0.0.1 nfs 3 >/dev/null 2>&1 && rpcinfo -T tcp 127.0.0.1 mountd 3 >/dev/null 2>&1; do
        kill -0 "$ganesha" 2>/dev/null || { tail -n 20 "$work/ganesha.log"; exit 1; }
        sleep 0.2
    done
}

stop_ganesha() {
    kill -9 "$ganesha"
    wait "$ganesha" 2>/dev/null || true
}

# router NAME - the guest that is the router, for what external_router.sh does under this name.
router() {
    echo "$work/export" >"$work/path"
    echo "$1" >"$work/act"
    "$GUEST/run.sh" --timeout 300 --log "$work/router.log" "$GUEST/external_router.sh" \
        "$work/piboot" "$work"/lib/* "$work/small.img" "$work/path" "$work/act" ||
        { echo "router $1: status $?"; tail -n 20 "$work/router.log"; return 1; }
}

inside() {
    mount -t tmpfs tmpfs /run # rpcbind's socket and lock
    mount --bind "$work" "$work"
    rpcbind -w 2>/dev/null || rpcbind
    mkdir "$work/export/piboot"
    start_ganesha No_Root_Squash
    router serve
    router again
    # What the router made there is what a Pi's kernel mounts by what the router wrote into its cmdline.txt.
    echo '[ "$(cat /etc/hostname)" = lion ] && [ "$(stat -c %u /usr/lib/file-2)" = 1000 ] && [ -c /dev/null ] &&
        [ -u /usr/bin/ping ] && touch /written && echo "the Pi: up"' >"$work/pi"
    root=$(sed -E 's/.*nfsroot=([^, ]+).*/\1/' "$work/export/piboot/devices/lion/boot/cmdline.txt")
    "$GUEST/run.sh" --mount "$root" --root --log "$work/pi.log" "$work/pi" || { tail -n 20 "$work/pi.log"; return 1; }
    [ -e "$work/export/piboot/devices/lion/root/written" ]
    stop_ganesha
    start_ganesha Root_Squash
    chmod 777 "$work/export/piboot" "$work/export/piboot/"*
    router squashed
    echo "external: passed"
}

cell "$@"
