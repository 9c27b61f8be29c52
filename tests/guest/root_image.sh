#!/bin/bash
# Builds (once) what root.sh exports, and prints the directory; in it are
#   root/   a small Debian for amd64 with a compiler, git and sqlite3, and without an init
#   debs/   packages that it does not have: systemd, dbus, openssh-client and all that they need
set -euo pipefail
GUEST=$(cd "$(dirname "$0")" && pwd)
. "$GUEST/../images/common.sh"
. "$GUEST/../apt-source.sh"

SUITE=bookworm
PACKAGES=gcc,libc6-dev,make,git,sqlite3
DEBS="systemd systemd-sysv udev dbus libpam-systemd openssh-client less nano"

excludes() {
    printf 'path-exclude=/usr/share/%s/*\n' doc man info locale lintian
}

# Runs inside mmdebstrap, the only time that apt knows this root. That apt knows what the root has, it fetches the rest.
fetch() {
    # shellcheck disable=SC2086
    APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq -y -o APT::Sandbox::User=root -o Dir::Cache::Archives="$1" \
        --no-install-recommends --download-only install $DEBS >&2
    rm -rf "$1/partial" "$1/lock"
}

build() {
    local out=$1
    mkdir -p "$out/debs/partial"
    excludes >"$out/excludes"
    debian_source "$SUITE" main >"$out/debian.sources" || die "apt knows no Debian source; run tests/setup.sh"
    with_ticker "installing Debian $SUITE amd64 (about a minute)" \
        mmdebstrap --quiet --mode=root --architectures=amd64 --variant=minbase --include="$PACKAGES" \
        --aptopt='Acquire::Retries "5"' --aptopt='Acquire::Languages "none"' \
        --dpkgopt="$out/excludes" --dpkgopt=force-unsafe-io \
        --customize-hook="$GUEST/root_image.sh --fetch '$out/debs'" \
        "$SUITE" "$out/root" "$out/debian.sources" >&2
    # Only for the build: dpkg in the guest is to sync, and to install all files of a package.
    rm -f "$out"/root/etc/dpkg/dpkg.cfg.d/* "$out/root/etc/apt/apt.conf.d/99mmdebstrap" "$out/excludes" "$out/debian.sources"
    du -sm "$out/root" | { read -r mb _; say "root: $mb MB, $(ls "$out/debs" | wc -l) packages to install"; }
}

case ${1:-} in
--fetch) fetch "$2" ;;
'')
    name=x86-root-$(key "$GUEST/root_image.sh")
    once "$name" build
    echo "$CACHE/$name"
    ;;
*) die "usage: root_image.sh" ;;
esac
