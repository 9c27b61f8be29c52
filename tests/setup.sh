#!/bin/bash
# Installs what `make demo`, `make test` and `make bench` need on a Debian 12 machine. Run as root.
#
#   tests/setup.sh          packages for the demo and the tests
#   tests/setup.sh bench    the same: the server that piboot is measured against is one of them
#   tests/setup.sh luci     and a browser and node for the pages in LuCI
#   tests/setup.sh router   what openwrt/build.sh needs to build for routers, and nothing else
#
# Idempotent: asks dpkg what is there, and returns at once when nothing is missing. Newer suites are added as
# files of their own (/etc/apt/sources.list.d/piboot-*.sources), with the URI and the key of the machine's own
# sources, so that a machine with a mirror or a proxy goes on using it.
set -euo pipefail

# QEMU from this version on boots every guest of the tests; bookworm's own 7.2 cannot be installed beside a
# qemu-utils that came from backports.
QEMU_MIN=1:9
RUST_MIN=1.95

DEMO="mmdebstrap arch-test debian-archive-keyring busybox-static cpio kmod xz-utils zstd zip
      e2fsprogs btrfs-progs xfsprogs dosfstools mtools fdisk gdisk acl attr libcap2-bin
      dnsmasq-base iproute2 tcpdump curl ca-certificates
      gcc libc6-dev make pkg-config
      klibc-utils libnfs-utils rpcbind openssh-client nfs-ganesha nfs-ganesha-vfs"
QEMU="qemu-system-arm qemu-system-x86 qemu-user-static"
BROWSER="chromium fonts-dejavu-core"
NODE_MIN=18
# Debian's compiler for the web browsers is the one whose standard library comes with complete sources: no prebuilt
# library for any router is to be had without rustup.
ROUTER="gcc libc6-dev make file python3-venv"
ROUTER_RUST="rustc-web cargo-web rust-web-src libstd-rust-web-dev"
ROUTER_ZIG="ziglang==0.14.1 cargo-zigbuild==0.24.0" # newer zig wants parts of its own C library linked in

. "$(dirname "$0")/apt-source.sh"

LOG=${TMPDIR:-/tmp}/piboot-setup.log
export DEBIAN_FRONTEND=noninteractive

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

# --- what is missing -------------------------------------------------------------------------------------------

# missing PACKAGE... - those that are not installed and configured.
missing() {
    { dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true; } |
        awk -v want="$*" '$2 == "installed" { have[$1] = 1 }
            END { n = split(want, w); for (i = 1; i <= n; i++) if (!have[w[i]]) printf "%s ", w[i] }'
}

missing_qemu() {
    local name version
    for name in $QEMU; do
        version=$(dpkg-query -W -f '${Version}' "$name" 2>/dev/null || true)
        [ -n "$version" ] && [ -z "$(missing "$name")" ] && dpkg --compare-versions "$version" ge "$QEMU_MIN" ||
            printf '%s ' "$name"
    done
}

# rust_ok COMMAND - a cargo that is new enough.
rust_ok() {
    local version
    version=$("$1" --version 2>/dev/null | awk '{print $2}') && [ -n "$version" ] &&
        dpkg --compare-versions "$version" ge "$RUST_MIN"
}

have_node() {
    local version
    version=$(node --version 2>/dev/null) && version=${version#v} && [ "${version%%.*}" -ge $NODE_MIN ]
}

have_rust() { rust_ok cargo || rust_ok "$HOME/.cargo/bin/cargo" || rust_ok /usr/bin/cargo; }

binfmt_ready() { grep -qs '^enabled' /proc/sys/fs/binfmt_misc/qemu-aarch64; }

# --- apt -------------------------------------------------------------------------------------------------------

apt_get() { apt-get -o DPkg::Lock::Timeout=600 "$@" >>"$LOG" 2>&1; }

# A mirror in the middle of its own update fails, and is right again moments later.
update() {
    local try
    for try in 1 2 3 4 5; do
        say "updating the package lists${1:+ ($1)}"
        apt_get -o APT::Update::Error-Mode=any update && return
        say "apt-get update failed (try $try of 5)"
        sleep $((try * 5))
    done
    die "apt-get update failed: see $LOG"
}

# Installs packages without starting their services: a portmapper of the machine's own would hold port 111.
install() {
    [ -n "$*" ] || return 0
    say "installing $*"
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
    fi
    apt_get install -y --no-install-recommends "$@" || { tail -n 5 "$LOG" >&2; die "apt-get install failed: see $LOG"; }
}

# And not after the next start of the machine either.
disable_services() {
    [ -d /run/systemd/system ] || return 0
    systemctl disable rpcbind.service rpcbind.socket nfs-ganesha.service nfs-ganesha-lock.service >>"$LOG" 2>&1 || true
}

# add_suite SUITE FILE [SED-FOR-THE-URI] - unless apt knows the suite already.
add_suite() {
    apt-cache policy | grep -q "n=$1\(,\|\$\)" && return
    say "adding the suite $1 in $2"
    debian_source "$1" main "${3:-}" >"$2.new" || die "apt knows no source for $(codename)/main"
    mv "$2.new" "$2"
    update "$1"
}

install_qemu() {
    local name from=()
    for name in $1; do
        dpkg --compare-versions "$(apt-cache policy "$name" | awk '$1 == "Candidate:" {print $2}')" ge "$QEMU_MIN" && continue
        add_suite "$(codename)-backports" /etc/apt/sources.list.d/piboot-backports.sources
        from=(-t "$(codename)-backports")
        break
    done
    # shellcheck disable=SC2086
    install "${from[@]}" $1
}

# install_rust PACKAGE... - of Debian's Rust for web browsers.
install_rust() {
    # bookworm itself has cargo-web at 1.85, its security suite the new one.
    add_suite "$(codename)-security" /etc/apt/sources.list.d/piboot-security.sources 's,/debian/*$,/debian-security,'
    install "$@"
    rust_ok /usr/bin/cargo || die "cargo $RUST_MIN or newer is needed; Debian has $(/usr/bin/cargo --version)"
}

# --- zig -------------------------------------------------------------------------------------------------------

ZIG_VENV=$(cd "$(dirname "$0")/.." && pwd)/.ci-zig

zig_ready() {
    local pin
    [ -x "$ZIG_VENV/bin/cargo-zigbuild" ] || return
    for pin in ${ROUTER_ZIG//==/-}; do
        pin=${pin//-/_} # as pip names its records: cargo_zigbuild-0.24.0.dist-info
        compgen -G "$ZIG_VENV/lib/python3*/site-packages/${pin%_*}-${pin##*_}.dist-info" >/dev/null || return
    done
}

install_zig() {
    say "installing $ROUTER_ZIG in $ZIG_VENV"
    # shellcheck disable=SC2086
    { python3 -m venv --clear "$ZIG_VENV" && "$ZIG_VENV/bin/pip" install --quiet $ROUTER_ZIG; } >>"$LOG" 2>&1 ||
        { tail -n 5 "$LOG" >&2; die "pip could not install $ROUTER_ZIG: see $LOG"; }
    zig_ready || die "$ZIG_VENV is not what it should be: see $LOG"
}

# --- binfmt ----------------------------------------------------------------------------------------------------

# Lets the kernel run arm64 programs (inside a chroot as well: flag F opens the interpreter now).
enable_binfmt() {
    say "registering qemu-aarch64 with binfmt_misc"
    [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    binfmt_ready && return
    if [ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
        echo 1 >/proc/sys/fs/binfmt_misc/qemu-aarch64
    elif [ -e /usr/lib/binfmt.d/qemu-aarch64.conf ]; then
        cat /usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register
    else
        update-binfmts --enable qemu-aarch64 >>"$LOG" 2>&1 || true
    fi
    binfmt_ready || die "binfmt_misc does not know qemu-aarch64: arm64 programs cannot be run"
}

# ---------------------------------------------------------------------------------------------------------------

[ "$(id -u)" = 0 ] || die "run as root: packages, network namespaces and chroots need it"
case ${1:-} in
'') WANT=$DEMO ;;
bench) WANT=$DEMO ;;
luci) WANT="$DEMO $BROWSER"; have_node || WANT="$WANT nodejs" ;;
router) WANT=$ROUTER QEMU=qemu-user-static ;;
*) die "usage: tests/setup.sh [bench | luci | router]" ;;
esac

command -v apt-get >/dev/null || die "this machine has no apt-get: install by hand: $DEMO $QEMU"

# shellcheck disable=SC2086
packages=$(missing $WANT)
qemu=$(missing_qemu)
rust=
if [ "${1:-}" = router ]; then
    # shellcheck disable=SC2086
    rust=$(missing $ROUTER_RUST)
    rust_ok /usr/bin/cargo || rust=$ROUTER_RUST
else
    rust=; have_rust || rust="cargo-web rustc-web"
fi

# The image builders fetch packages as well: without package lists they would find nothing.
lists=; [ -n "$(own_source "$(codename)")" ] || lists=yes

if [ -n "$packages$qemu$rust$lists" ]; then
    : >"$LOG"
    update
    # shellcheck disable=SC2086
    install $packages
    case $packages in *nfs-ganesha* | *rpcbind*) disable_services ;; esac
    [ -z "$qemu" ] || install_qemu "$qemu"
    # shellcheck disable=SC2086
    [ -z "$rust" ] || install_rust $rust
fi
if [ "${1:-}" = router ]; then
    zig_ready || install_zig
else
    binfmt_ready || enable_binfmt
fi
say "everything is there"
