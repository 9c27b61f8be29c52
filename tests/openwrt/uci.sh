#!/bin/bash
# Builds OpenWrt's own `uci` and prints its path.
#
#   tests/openwrt/uci.sh
#
# The C sources of libubox and uci come with a crate, so that cargo fetches them and checks their sums. The program is
# linked statically: it runs in whatever root a test mounts it into.
set -euo pipefail
. "$(dirname "$0")/../images/common.sh"

CRATE=libuci-sys VERSION=1.0.5

# Everything but the Lua binding; plain C, so that CMake and its checks are not needed.
UCI="cli libuci file util delta parse blob"
UBOX="blob blobmsg utils avl avl-cmp md5 vlist"

build() {
    local work=$1 crate name sources=()
    mkdir "$work/fetch" "$work/include"
    cat >"$work/fetch/Cargo.toml" <<END
[package]
name = "fetch"
version = "0.0.0"
edition = "2021"
[lib]
path = "/dev/null"
[dependencies]
$CRATE = "=$VERSION"
[workspace]
END
    say "fetching the sources of uci"
    (cd "$work/fetch" && "${CARGO:-cargo}" vendor --quiet vendor >/dev/null) || die "cargo could not fetch $CRATE $VERSION"
    crate=$work/fetch/vendor/$CRATE
    ln -s "$crate/libubox" "$work/include/libubox"
    : >"$work/include/uci_config.h" # what is chosen there is debugging
    for name in $UCI; do sources+=("$crate/uci/$name.c"); done
    for name in $UBOX; do sources+=("$crate/libubox/$name.c"); done
    say "building uci"
    gcc -static -Os -std=gnu99 -w -DUCI_PREFIX='""' -I"$work/include" -I"$crate/uci" -o "$work/uci" "${sources[@]}" >&2
    strip "$work/uci"
    rm -r "$work/fetch" "$work/include"
}

NAME=uci-$(key "$0")
once "$NAME" build
echo "$CACHE/$NAME/uci"
