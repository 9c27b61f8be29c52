#!/bin/bash
# Makes packages for OpenWrt without its SDK: .ipk for opkg (24.10), .apk for apk (25.12). They are piboot, from a static
# binary, and luci-app-piboot with its translations, the same for all routers.
#
#   openwrt/package.sh [-o DIR] TARGET...        packages for every OpenWrt architecture of targets that are built
#                                                (openwrt/build.sh): aarch64 armv7hf mipsel riscv64gc x86_64
#   openwrt/package.sh [-o DIR] -b BINARY ARCH...   packages from this binary, for these architectures; a router says
#                                                its own: . /etc/os-release; echo $OPENWRT_ARCH
#
# Packages go to target/packages, their paths to standard output. Same sources, same bytes: times are
# SOURCE_DATE_EPOCH, or those of the last commit. An .apk is made where apk-tools 3 is installed (or named by APK) and
# signed where APK_KEY names a private key.
set -euo pipefail
umask 022
export LC_ALL=C
TOP=$(cd "$(dirname "$0")/.." && pwd)

RELEASE=1
MAINTAINER="piboot developers"
OUT=$TOP/target/packages
APK=${APK:-apk}

say() { printf 'package: %s\n' "$*" >&2; }
die() { printf 'package: error: %s\n' "$*" >&2; exit 1; }

# architectures TARGET - the binary's ABI has to fit: armv7hf is VFPv3 with 16 registers and without NEON, mipsel is
# release 2 with soft float. arm_cortex-a9 and arm_cortex-a7 without a suffix have no FPU and are left out.
architectures() {
    case $1 in
    aarch64-unknown-linux-musl) echo aarch64_generic aarch64_cortex-a53 aarch64_cortex-a72 aarch64_cortex-a76 ;;
    armv7-unknown-linux-musleabihf) echo arm_cortex-a5_vfpv4 arm_cortex-a7_neon-vfpv4 arm_cortex-a7_vfpv4 \
        arm_cortex-a8_vfpv3 arm_cortex-a9_neon arm_cortex-a9_vfpv3-d16 arm_cortex-a15_neon-vfpv4 ;;
    mipsel-unknown-linux-musl) echo mipsel_24kc mipsel_74kc ;;
    riscv64gc-unknown-linux-musl) echo riscv64_generic riscv64_riscv64 ;; # 25.12's name, 24.10's name
    x86_64-unknown-linux-musl) echo x86_64 ;;
    esac
}

full_name() {
    case $1 in
    x86_64 | aarch64 | mipsel | riscv64gc) printf '%s-unknown-linux-musl' "$1" ;;
    armv7hf | armv7) printf 'armv7-unknown-linux-musleabihf' ;;
    *-unknown-linux-musl*) printf '%s' "$1" ;;
    *) die "unknown target '$1': aarch64, armv7hf, mipsel, riscv64gc or x86_64 (or -b BINARY and OpenWrt's architectures)" ;;
    esac
}

# field NAME - of the package in Cargo.toml.
field() { sed -n "/^\[package\]/,/^\[/ s/^$1 = \"\(.*\)\"\$/\1/p" "$TOP/Cargo.toml"; }

# --- what is in a package --------------------------------------------------------------------------------------

# Each sets NAME, SECTION, DESCRIPTION, DEPENDS (names with blanks between them) and CONFFILES, names the functions
# that print what the scripts do besides OpenWrt's own, and puts the files into $WORK/data.

# agent BINARY
agent() {
    NAME=piboot SECTION=net DESCRIPTION=$(field description)
    DEPENDS= # the binary is static
    CONFFILES=/etc/config/piboot INSTALLATION= REMOVAL=agent_removal
    rm -rf "$WORK/data"
    install -D -m 0755 "$1" "$WORK/data/usr/sbin/piboot"
    install -D -m 0755 "$TOP/files/etc/init.d/piboot" "$WORK/data/etc/init.d/piboot"
    install -D -m 0600 "$TOP/files/etc/config/piboot" "$WORK/data/etc/config/piboot"
    install -D -m 0644 "$TOP/files/lib/upgrade/keep.d/piboot" "$WORK/data/lib/upgrade/keep.d/piboot"
}

# As luci.mk does, but for minifying.
pages() {
    NAME=luci-app-piboot SECTION=luci DESCRIPTION=$(sed -n 's/^LUCI_TITLE:=//p' "$TOP/luci-app/Makefile")
    DEPENDS="luci-base piboot"
    CONFFILES= INSTALLATION=pages_installation REMOVAL=
    rm -rf "$WORK/data"
    mkdir -p "$WORK/data/www"
    cp -R "$TOP/luci-app/htdocs/." "$WORK/data/www/"
    cp -R "$TOP/luci-app/root/." "$WORK/data/"
    find "$WORK/data" -type d -exec chmod 0755 {} + -o -type f -exec chmod 0644 {} +
}

# translation LANGUAGE NAME - as luci.mk does. The name is what LuCI's list of languages calls it.
translation() {
    local i18n=$WORK/data/usr/lib/lua/luci/i18n defaults=$WORK/data/etc/uci-defaults
    NAME=luci-i18n-piboot-$1 SECTION=luci DESCRIPTION="luci-app-piboot - $1 translation"
    DEPENDS=luci-app-piboot
    CONFFILES= INSTALLATION= REMOVAL=
    rm -rf "$WORK/data"
    mkdir -p "$i18n" "$defaults"
    "$TOP/openwrt/lmo.pl" "$TOP/luci-app/po/$1/piboot.po" >"$i18n/piboot.$1.lmo"
    echo "uci set luci.languages.$1='$2'; uci commit luci" >"$defaults/$NAME"
}

conffiles() { [ -z "$CONFFILES" ] || printf '%s\n' "$CONFFILES"; }

# LuCI keeps its menu, and rpcd its access rights, until they are told.
pages_installation() {
    cat <<'END'
[ -n "${IPKG_INSTROOT}" ] || {
	rm -f /tmp/luci-indexcache.*
	rm -rf /tmp/luci-modulecache/
	/etc/init.d/rpcd reload 2>/dev/null
	exit 0
}
END
}

# What the agent's package has to do before its files go. The running agent would put back what is withdrawn, so it is
# stopped first. An upgrade keeps the boot options: the new agent needs the same. Failing here would keep the package
# from being removed.
# In opkg this is sourced by default_prerm, whose arguments are the path of prerm and what opkg passed on; in apk it
# follows default_prerm, and is not run by upgrades at all.
agent_removal() {
    cat <<'END'
[ "${PKG_UPGRADE}" = "1" ] || [ "$2" = "upgrade" ] || [ -n "${IPKG_INSTROOT}" ] || {
	/etc/init.d/piboot stop
	/usr/sbin/piboot withdraw || echo "piboot: remove the sections piboot_* from /etc/config/dhcp by hand"
}
END
}

# As OpenWrt's build system writes them.
guards() {
    cat <<'END'
#!/bin/sh
[ "${IPKG_NO_SCRIPT}" = "1" ] && exit 0
[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
. ${IPKG_INSTROOT}/lib/functions.sh
END
}

# --- .ipk ------------------------------------------------------------------------------------------------------

# archive DIR - everything in it as a tar that depends on nothing but its content.
archive() {
    tar --create --format=gnu --numeric-owner --owner=0 --group=0 --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
        --directory "$1" . | gzip -9 -n
}

# control ARCH SIZE - without Depends where there are none: opkg crashes on the field without a value.
control() {
    printf 'Package: %s\nVersion: %s\n' "$NAME" "$VERSION"
    [ -z "$DEPENDS" ] || printf 'Depends: %s\n' "${DEPENDS// /, }"
    cat <<END
License: $LICENSE
Section: $SECTION
SourceDateEpoch: $SOURCE_DATE_EPOCH
Maintainer: $MAINTAINER
Architecture: $1
Installed-Size: $2
Description:  $DESCRIPTION
END
}

# make_ipk ARCH
make_ipk() {
    local package=$OUT/${NAME}_${VERSION}_$1.ipk dir=$WORK/ipk
    rm -rf "$dir"
    mkdir -p "$dir/control" "$dir/package"
    archive "$WORK/data" >"$dir/package/data.tar.gz"
    control "$1" "$(gzip -dc "$dir/package/data.tar.gz" | wc -c)" >"$dir/control/control"
    [ -z "$CONFFILES" ] || conffiles >"$dir/control/conffiles"
    { guards; echo 'default_postinst $0 $@'; } >"$dir/control/postinst"
    { guards; echo 'default_prerm $0 $@'; } >"$dir/control/prerm"
    [ -z "$INSTALLATION" ] || { echo '#!/bin/sh'; $INSTALLATION; } >"$dir/control/postinst-pkg"
    [ -z "$REMOVAL" ] || { echo '#!/bin/sh'; $REMOVAL; } >"$dir/control/prerm-pkg"
    chmod 0755 "$dir"/control/p*
    archive "$dir/control" >"$dir/package/control.tar.gz"
    echo 2.0 >"$dir/package/debian-binary"
    archive "$dir/package" >"$package"
    printf '%s\n' "$package"
}

# --- .apk ------------------------------------------------------------------------------------------------------

# What is missing for making an .apk; nothing if it can be made.
apk_missing() {
    local version
    version=$("$APK" --version 2>/dev/null | sed -n 's/^apk-tools \([0-9]*\)\..*/\1/p')
    if [ "${version:-0}" -lt 3 ]; then
        echo "apk-tools 3 (Alpine and OpenWrt's SDK have it, Debian has not; APK=/path/to/apk names one)"
    elif [ "$(id -u)" != 0 ]; then
        echo "root, or fakeroot: the files in an .apk have the owners they have here"
    fi
}

# make_apk ARCH - apk writes the container; the lists that default_postinst, default_prerm and sysupgrade read inside
# of it are OpenWrt's own idea.
make_apk() {
    local package=$OUT/$NAME-$VERSION-$1.apk dir=$WORK/apk lists=$WORK/apk/root/lib/apk/packages file more=()
    rm -rf "$dir"
    mkdir -p "$dir"
    cp -a "$WORK/data" "$dir/root"
    mkdir -p "$lists"
    (cd "$dir/root" && find . \( -type f -o -type l \) -printf '/%P\n' | sort) >"$WORK/list"
    mv "$WORK/list" "$lists/$NAME.list"
    if [ -n "$CONFFILES" ]; then
        conffiles >"$lists/$NAME.conffiles"
        conffiles | while read -r file; do
            printf '%s %s\n' "$file" "$(sha256sum <"$dir/root$file" | cut -d ' ' -f 1)"
        done >"$lists/$NAME.conffiles_static"
    fi
    chown -R 0:0 "$dir/root"
    find "$dir/root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

    { guards; apk_installation; } >"$dir/post-install"
    { guards; echo 'export PKG_UPGRADE=1'; apk_installation; } >"$dir/post-upgrade"
    { guards; apk_names; echo 'default_prerm'; $REMOVAL; } >"$dir/pre-deinstall"
    [ -z "${APK_KEY:-}" ] || more+=(--sign "$APK_KEY")
    [ -z "$DEPENDS" ] || more+=(--info "depends:$DEPENDS")
    "$APK" mkpkg --info "name:$NAME" --info "version:$VERSION" --info "description:$DESCRIPTION" --info "arch:$1" \
        --info "license:$LICENSE" --info "origin:$NAME" --info "maintainer:$MAINTAINER" \
        --info "tags:openwrt:section=$SECTION" --files "$dir/root" "${more[@]}" \
        --script "post-install:$dir/post-install" --script "post-upgrade:$dir/post-upgrade" \
        --script "pre-deinstall:$dir/pre-deinstall" --output "$package" >&2
    printf '%s\n' "$package"
}

apk_names() {
    cat <<END
export root="\${IPKG_INSTROOT}"
export pkgname="$NAME"
END
}

apk_installation() {
    apk_names
    printf 'add_group_and_user\ndefault_postinst\n'
    $INSTALLATION
}

# ---------------------------------------------------------------------------------------------------------------

# make_package IPK-ARCH [APK-ARCH] - of what is in $WORK/data.
make_package() {
    make_ipk "$1"
    [ -n "$NO_APK" ] || make_apk "${2:-$1}"
}

# make_packages BINARY ARCH...
make_packages() {
    local binary=$1 arch
    shift
    [ -f "$binary" ] || die "$binary is not there: build it first (openwrt/build.sh)"
    # A router of another release may have another C library.
    case $(file --brief "$binary") in
    ELF*"statically linked"* | ELF*"static-pie linked"*) ;;
    *) die "$binary is not a static program" ;;
    esac
    agent "$binary"
    for arch in "$@"; do
        make_package "$arch"
    done
}

BINARY=
while getopts o:b: option; do
    case $option in
    o) OUT=$OPTARG ;;
    b) BINARY=$OPTARG ;;
    *) die "usage: openwrt/package.sh [-o DIR] TARGET... | [-o DIR] -b BINARY ARCH..." ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || die "usage: openwrt/package.sh [-o DIR] TARGET... | [-o DIR] -b BINARY ARCH..."

VERSION=$(field version)-r$RELEASE
LICENSE=$(field license)
# What both package managers sort right; apk takes no other.
[[ $VERSION =~ ^[0-9]+(\.[0-9]+)*-r[0-9]+$ ]] || die "'$VERSION' is no version that apk accepts"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$TOP" log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

mkdir -p "$OUT"
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
NO_APK=$(apk_missing)
if [ -n "$BINARY" ]; then
    make_packages "$BINARY" "$@"
else
    for target in "$@"; do
        target=$(full_name "$target")
        # shellcheck disable=SC2046
        make_packages "$TOP/target/router/$target/release/piboot" $(architectures "$target")
    done
fi
pages
make_package all noarch
translation de 'Deutsch (German)'
make_package all noarch
[ -z "$NO_APK" ] || say "only .ipk packages were made; .apk packages need $NO_APK"
