# shellcheck shell=bash
# Sourced by tests of what is built for routers. Wants say() and CARGO (default: cargo), and for an agent die(), WORK,
# WAIT (seconds for anything) and PROGRAM, which may be an emulator with its program.

# current PROGRAM - built after the last change of what it is built from.
current() { [ -z "$(find src Cargo.toml Cargo.lock .cargo openwrt/build.sh -newer "$1" -type f -print -quit)" ]; }

# Sets PROGRAM: the musl build, or where that is not to be had, static glibc, which is a megabyte larger.
static_x86_64() {
    local target=x86_64-unknown-linux-musl
    PROGRAM=target/router/$target/release/piboot
    if [ -x "$PROGRAM" ] && current "$PROGRAM"; then return; fi
    if tests/setup.sh router && openwrt/build.sh $target; then return; fi
    say "NOTE: there is no musl build (see above): static glibc instead, about 1 MB larger on disk and in memory"
    target=x86_64-unknown-linux-gnu
    RUSTFLAGS='-C target-feature=+crt-static' "${CARGO:-cargo}" build --release --locked --package piboot \
        --target $target --target-dir target/router
    PROGRAM=target/router/$target/release/piboot
}

# make_card DIR - the least that is laid out like an SD card of Raspberry Pi OS: DIR/card.img, and its files in
# DIR/boot and DIR/root.
make_card() {
    local dir=$1 root=$1/root boot=$1/boot
    mkdir -p "$root"/etc "$boot"
    printf 'PARTUUID=4e639091-02 / ext4 defaults 0 1\n' >"$root/etc/fstab"
    printf 'raspberrypi\n' >"$root/etc/hostname"
    printf '127.0.1.1 raspberrypi\n' >"$root/etc/hosts"
    touch -d 2100-02-03T04:05:06Z "$root/etc/motd" # more seconds than fit 32 bits with a sign
    printf 'console=serial0,115200 root=PARTUUID=4e639091-02 rootwait\n' >"$boot/cmdline.txt"
    printf 'arm_64bit=1\n' >"$boot/config.txt"
    head -c 50000 /dev/zero >"$boot/bootcode.bin"
    truncate -s 16M "$dir/root.ext4"
    mke2fs -q -F -t ext4 -d "$root" "$dir/root.ext4"
    # mke2fs -d leaves out the bits beyond 2038.
    debugfs -w -R "set_inode_field /etc/motd mtime_extra 0x1" "$dir/root.ext4" 2>/dev/null
    mkfs.vfat -C "$dir/boot.fat" 16384 >/dev/null
    mcopy -i "$dir/boot.fat" "$boot"/* ::
    truncate -s 34M "$dir/card.img"
    printf 'label: dos\nlabel-id: 0x4e639091\nstart=2048,size=32768,type=c\nstart=34816,size=32768,type=83\n' |
        sfdisk -q "$dir/card.img"
    dd if="$dir/boot.fat" of="$dir/card.img" bs=1M seek=1 conv=notrunc,sparse status=none
    dd if="$dir/root.ext4" of="$dir/card.img" bs=1M seek=17 conv=notrunc,sparse status=none
}

# --- an agent, in WORK -----------------------------------------------------------------------------------------

# shellcheck disable=SC2086
piboot() { $PROGRAM --socket "$WORK/run/piboot.sock" "$@"; }

start_agent() {
    # shellcheck disable=SC2086
    $PROGRAM --socket "$WORK/run/piboot.sock" serve --config "$WORK/piboot.conf" 2>>"$WORK/agent.log" &
    AGENT=$!
}

stop_agent() {
    kill -TERM "$AGENT"
    wait "$AGENT" || die "the agent ended with an error: see $WORK/agent.log"
}

# wait_for WHAT COMMAND...
wait_for() {
    local what=$1 until=$((SECONDS + WAIT))
    shift
    until "$@"; do
        kill -0 "$AGENT" 2>/dev/null || die "the agent ended before $what: see $WORK/agent.log"
        [ $SECONDS -lt $until ] || die "$what took more than $WAIT s: see $WORK/agent.log"
        sleep 0.2
    done
}

answers() { piboot --json status >"$WORK/status.json" 2>/dev/null; }
