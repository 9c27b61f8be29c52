#!/bin/bash
# Builds (once) the x86-64 guest that tests NFS with the kernel's client, and prints its directory: vmlinuz and
# initramfs, Debian's kernel and a static busybox. It is up in seconds under emulation. tests/guest/run.sh starts it;
# tests/guest/init says what it understands. Fetches the kernel: the first run needs the network, so it is not to be
# the one inside a network namespace.
set -euo pipefail
GUEST=$(cd "$(dirname "$0")" && pwd)
. "$GUEST/../images/common.sh"

MODULES="virtio_pci virtio_net virtio_blk crc32c_generic ext4 nfs nfsv3"
# For roots that load what they need themselves: in root-modules/, as they have them in their lib/.
ROOT_MODULES="overlay"

# vmlinuz, and in modules/ the modules with a file that gives the order in which they can be inserted.
build_kernel() {
    local out=$1 package version module path
    # The metapackage's first dependency is the release's current kernel.
    package=$(apt-cache depends --no-recommends --no-suggests linux-image-amd64 |
        awk '$1 == "Depends:" { print $2; exit }')
    [ -n "$package" ] || die "apt knows no linux-image-amd64; run tests/setup.sh"
    with_ticker "fetching $package" fetch "$out" "$package"
    say "unpacking it"
    dpkg-deb -x "$out/$package"_*.deb "$out/kernel"
    version=${package#linux-image-}
    cp "$out/kernel/boot/vmlinuz-$version" "$out/vmlinuz"
    depmod -b "$out/kernel" "$version"
    mkdir "$out/modules"
    for module in $MODULES; do
        modprobe -d "$out/kernel" -S "$version" --show-depends "$module" || die "the kernel has no module $module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$out/paths"
    while read -r path; do
        cp "$path" "$out/modules/"
        basename "$path"
    done <"$out/paths" >"$out/order"
    mv "$out/order" "$out/modules/order"
    for module in $ROOT_MODULES; do
        modprobe -d "$out/kernel" -S "$version" --show-depends "$module" || die "the kernel has no module $module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$out/paths"
    while read -r path; do
        install -D -m 644 "$path" "$out/root-modules/lib/modules/$version/kernel/$(basename "$path")"
    done <"$out/paths"
    touch "$out/root-modules/lib/modules/$version"/modules.{order,builtin,builtin.modinfo}
    depmod -b "$out/root-modules" "$version"
    rm -rf "$out/kernel" "$out/paths" "$out"/*.deb
}

fetch() { (cd "$1" && apt-get -qq -o APT::Sandbox::User=root download "$2" >&2); }

build_guest() {
    local kernel=$1 out=$2 tree=$2/tree
    mkdir -p "$tree/bin" "$tree/guest"
    cp -r "$kernel/modules" "$tree/modules"
    cp /bin/busybox "$tree/bin/busybox"
    ln -s busybox "$tree/bin/sh"
    install -m 755 "$GUEST/init" "$tree/init"
    gcc -static -Os -Wall -Werror -o "$tree/bin/nfsmount" "$GUEST/nfsmount.c"
    (cd "$tree" && find . | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$out/initramfs"
    cp "$kernel/vmlinuz" "$out/vmlinuz"
    cp -r "$kernel/root-modules" "$out/root-modules"
    rm -rf "$tree"
    say "vmlinuz $(du -k "$out/vmlinuz" | cut -f1) KB, initramfs $(du -k "$out/initramfs" | cut -f1) KB"
}

[ "$(dpkg --print-architecture)" = amd64 ] || die "the guest's kernel is fetched from this machine's own sources: amd64 only"
kernel=x86-kernel-$(key <(echo "$MODULES" "$ROOT_MODULES"))
once "$kernel" build_kernel
guest=x86-guest-$(key "$GUEST/x86.sh" "$GUEST/init" "$GUEST/nfsmount.c")
once "$guest" build_guest "$CACHE/$kernel"
echo "$CACHE/$guest"
