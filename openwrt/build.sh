#!/bin/bash
# Builds the static piboot for routers, and checks what came out. Run as root after `tests/setup.sh router`.
#
#   openwrt/build.sh [TARGET...]     aarch64 armv7hf mipsel riscv64gc x86_64 (or Rust's own names); default: x86_64
#   openwrt/build.sh --name TARGET   Rust's name of it
#
# The binaries are in target/router/<target>/release. No container is needed: Debian's compiler builds the standard
# library from its source package, and zig supplies musl, a C compiler and a linker for each target.
# ROUTER_BUILDER=cross uses cross 0.2.5 and Cross.toml instead (needs Docker or Podman; not tested by us).
set -euo pipefail
cd "$(dirname "$0")/.."

RUST_MIN=1.95
OUT=target/router

say() { printf 'router: %s\n' "$*" >&2; }
die() { printf 'router: error: %s\n' "$*" >&2; exit 1; }

# full_name TARGET
full_name() {
    case $1 in
    x86_64 | aarch64 | mipsel | riscv64gc) printf '%s-unknown-linux-musl' "$1" ;;
    armv7hf | armv7) printf 'armv7-unknown-linux-musleabihf' ;;
    x86_64-unknown-linux-musl | aarch64-unknown-linux-musl | mipsel-unknown-linux-musl | \
        riscv64gc-unknown-linux-musl | armv7-unknown-linux-musleabihf) printf '%s' "$1" ;;
    *) die "unknown target '$1': aarch64, armv7hf, mipsel, riscv64gc or x86_64" ;;
    esac
}

# machine TARGET - as file(1) says it, up to the words that every result must have.
machine() {
    case $1 in
    x86_64-*) printf 'ELF 64-bit LSB .*, x86-64, ' ;;
    aarch64-*) printf 'ELF 64-bit LSB .*, ARM aarch64, ' ;;
    armv7-*) printf 'ELF 32-bit LSB .*, ARM, EABI5 ' ;;
    mipsel-*) printf 'ELF 32-bit LSB .*, MIPS, MIPS32 rel2 ' ;;
    riscv64gc-*) printf 'ELF 64-bit LSB .*, UCB RISC-V, .*double-float ABI, ' ;;
    esac
}

# on TARGET COMMAND... - runs a program that was built for the target.
on() {
    local target=$1
    shift
    case $target in
    x86_64-*) "$@" ;;
    armv7-*) qemu-arm-static "$@" ;;
    riscv64gc-*) qemu-riscv64-static "$@" ;;
    *) "qemu-${target%%-*}-static" "$@" ;;
    esac
}

build_with_zig() {
    local version flags=(
        -C link-self-contained=no        # Debian has no crt files for musl: they are zig's
        -C target-feature=+crt-static    # rustc's default for some of the targets only
        --cfg=libc_unstable_time64       # 64-bit time on 32-bit targets: this for our libc crate,
    )
    version=$(/usr/bin/rustc --version 2>/dev/null | awk '{print $2}')
    [ -n "$version" ] && [ -x .ci-zig/bin/cargo-zigbuild ] || die "run tests/setup.sh router first"
    dpkg --compare-versions "$version" ge "$RUST_MIN" ||
        die "/usr/bin/rustc is $version, piboot needs $RUST_MIN: run tests/setup.sh router"
    # The standard library's source belongs to this very compiler: nothing of rustup's may get in between.
    # RUST_LIBC_UNSTABLE_MUSL_V1_2_3 is 64-bit time for the libc crate inside the standard library.
    # Naming a feature of the standard library drops its default ones: backtraces, which a stripped binary cannot show.
    env -u RUSTUP_TOOLCHAIN -u CARGO_ENCODED_RUSTFLAGS -u RUSTC_WRAPPER -u CARGO_TARGET_DIR \
        PATH="$PWD/.ci-zig/bin:/usr/sbin:/usr/bin:/sbin:/bin" CARGO=/usr/bin/cargo RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
        RUSTFLAGS="${flags[*]}" RUST_LIBC_UNSTABLE_MUSL_V1_2_3=1 \
        /usr/bin/cargo zigbuild --release --locked --package piboot --target "$1" --target-dir "$OUT" \
        -Z build-std=std,panic_abort -Z build-std-features=optimize_for_size
}

# Where cross has no image for a target it builds on the host and says so in a warning only.
build_with_cross() {
    [ "$1" != riscv64gc-unknown-linux-musl ] || [ -n "${CROSS_TARGET_RISCV64GC_UNKNOWN_LINUX_MUSL_IMAGE:-}" ] ||
        die "cross 0.2.5 has no image for $1: name one in CROSS_TARGET_RISCV64GC_UNKNOWN_LINUX_MUSL_IMAGE"
    # A RUSTFLAGS of the caller's would replace those in Cross.toml.
    env -u RUSTFLAGS cross build --release --locked --package piboot --target "$1" --target-dir "$OUT"
}

# A binary that was built is not yet one that runs.
check() {
    local target=$1 program=$OUT/$1/release/piboot kind
    kind=$(file --brief "$program")
    grep -q "^$(machine "$target").*statically linked.*, stripped$" <<<"$kind" || die "$program is $kind"
    on "$target" "$program" --version >/dev/null || die "$program does not run"
    say "$target: $(stat -c %s "$program") bytes, $(gzip -9 <"$program" | wc -c) with gzip: $program"
}

if [ "${1:-}" = --name ]; then
    full_name "$2"
    exit
fi
[ $# -gt 0 ] || set -- x86_64
for target in "$@"; do
    target=$(full_name "$target")
    say "building for $target"
    "build_with_${ROUTER_BUILDER:-zig}" "$target"
    check "$target"
done
