#!/bin/bash
# make packages: builds the packages and looks at them as a router would.
#
#   tests/package.sh [BINARY]     a static program for this machine; default: the musl build, made if need be
#
# The .ipk is unpacked and its scripts and the init script run under busybox ash, in a root with stand-ins for what
# OpenWrt brings: lib/functions.sh, rc.common and procd.sh, which write down what they are asked for. That is no
# substitute for a router. Where apk-tools 3 is installed (or named by APK), the .apk is installed and removed by it.
# Run as root: chroot.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/common.sh

APK=${APK:-apk}
ARCH=x86_64
WORK=$PWD/target/package-test
ROOT=$WORK/root

say() { printf 'package test: %s\n' "$*" >&2; }
die() { printf 'package test: error: %s\n' "$*" >&2; exit 1; }

# same WHAT EXPECTED FOUND
same() {
    [ "$2" = "$3" ] && return
    say "$1:"
    diff <(printf '%s\n' "$2") <(printf '%s\n' "$3") >&2 || true
    die "$1 (< expected, > found)"
}

# --- the .ipk itself -------------------------------------------------------------------------------------------

build() {
    openwrt/package.sh -o "$WORK/first" -b "$BINARY" $ARCH >"$WORK/list"
    sleep 1 # times in the archives would differ
    openwrt/package.sh -o "$WORK/second" -b "$BINARY" $ARCH >/dev/null
    IPK=$(sed -n '/\/piboot_.*\.ipk$/p' "$WORK/list")
    PACKAGE=$(sed -n '/\/piboot-.*\.apk$/p' "$WORK/list")
    PAGES_IPK=$(sed -n '/\/luci-app-piboot_.*\.ipk$/p' "$WORK/list")
    GERMAN_IPK=$(sed -n '/\/luci-i18n-piboot-de_.*\.ipk$/p' "$WORK/list")
    PAGES_PACKAGE=$(sed -n '/\/luci-app-piboot-.*\.apk$/p' "$WORK/list")
    diff -r "$WORK/first" "$WORK/second" || die "two builds of the same are not the same"
}

# unpack IPK DIR
unpack() {
    mkdir -p "$2/data" "$2/control"
    tar -xzf "$1" -C "$2"
    tar -xzpf "$2/data.tar.gz" -C "$2/data"
    tar -xzpf "$2/control.tar.gz" -C "$2/control"
}

# members ARCHIVE - mode, owner, name; no times and sizes.
members() { tar --numeric-owner -tvzf "$1" | awk '{ print $1, $2, $NF }'; }

check_content() {
    same "what is in the .ipk" "drwxr-xr-x 0/0 ./
-rw-r--r-- 0/0 ./control.tar.gz
-rw-r--r-- 0/0 ./data.tar.gz
-rw-r--r-- 0/0 ./debian-binary" "$(members "$IPK")"
    same "debian-binary" 2.0 "$(cat "$WORK/ipk/debian-binary")"
    same "the files" "drwxr-xr-x 0/0 ./
drwxr-xr-x 0/0 ./etc/
drwxr-xr-x 0/0 ./etc/config/
-rw------- 0/0 ./etc/config/piboot
drwxr-xr-x 0/0 ./etc/init.d/
-rwxr-xr-x 0/0 ./etc/init.d/piboot
drwxr-xr-x 0/0 ./lib/
drwxr-xr-x 0/0 ./lib/upgrade/
drwxr-xr-x 0/0 ./lib/upgrade/keep.d/
-rw-r--r-- 0/0 ./lib/upgrade/keep.d/piboot
drwxr-xr-x 0/0 ./usr/
drwxr-xr-x 0/0 ./usr/sbin/
-rwxr-xr-x 0/0 ./usr/sbin/piboot" "$(members "$WORK/ipk/data.tar.gz")"
    same "the control files" "drwxr-xr-x 0/0 ./
-rw-r--r-- 0/0 ./conffiles
-rw-r--r-- 0/0 ./control
-rwxr-xr-x 0/0 ./postinst
-rwxr-xr-x 0/0 ./prerm
-rwxr-xr-x 0/0 ./prerm-pkg" "$(members "$WORK/ipk/control.tar.gz")"
    same "conffiles" /etc/config/piboot "$(cat "$WORK/ipk/control/conffiles")"
    cmp "$BINARY" "$WORK/ipk/data/usr/sbin/piboot"
    # What OpenWrt's checks of packages ask of every program.
    same "the program's version" "piboot $VERSION" "$("$WORK/ipk/data/usr/sbin/piboot" --version)"
}

# has_fields DIR FIELD... - of the package that is unpacked there.
has_fields() {
    local dir=$1 control=$1/control/control line
    shift
    while read -r line; do
        [[ $line =~ ^[A-Za-z-]+:\ .*[^\ ]$ ]] || die "control: a field without a value, which opkg cannot take: '$line'"
    done <"$control"
    for line in "Version: $VERSION-r1" "License: MIT OR Apache-2.0" "Maintainer: piboot developers" "$@"; do
        grep -qxF "$line" "$control" || die "control lacks '$line'"
    done
    same "Installed-Size" "$(gzip -dc "$dir/data.tar.gz" | wc -c)" "$(sed -n 's/^Installed-Size: //p' "$control")"
}

check_control() {
    has_fields "$WORK/ipk" "Package: piboot" "Architecture: $ARCH" "Section: net"
    ! grep -q '^Depends' "$WORK/ipk/control/control" || die "a static program depends on nothing"
    [[ $(basename "$IPK") == piboot_$VERSION-r1_$ARCH.ipk ]] || die "the name $IPK is not what opkg expects"
}

# The feed's Makefile says some of it again.
check_feed() {
    local makefile=openwrt/piboot/Makefile
    same "version in $makefile" "$VERSION" "$(sed -n 's/^PKG_VERSION:=//p' $makefile)"
    same "prerm in $makefile" "$(cat "$WORK/ipk/control/prerm-pkg")" \
        "$(sed -n '/^define Package\/piboot\/prerm$/,/^endef$/p' $makefile | sed '1d;$d;s/\$\$/$/g')"
    same "conffiles in $makefile" "$(cat "$WORK/ipk/control/conffiles")" \
        "$(sed -n '/^define Package\/piboot\/conffiles$/,/^endef$/p' $makefile | sed '1d;$d')"
    # The feed's CI runs this with the package's program, by the name that it has there; it may not be silent.
    PATH=$WORK/ipk/data/usr/sbin:$PATH busybox sh openwrt/piboot/test.sh piboot "$VERSION" >"$WORK/feed-test" ||
        die "openwrt/piboot/test.sh fails: $(cat "$WORK/feed-test")"
    [ -s "$WORK/feed-test" ] || die "openwrt/piboot/test.sh shows nothing of what it saw"
}

# --- the pages in LuCI -----------------------------------------------------------------------------------------

# luci.mk's postinst, by its text.
check_pages() {
    local dir=$WORK/pages makefile=luci-app/Makefile
    unpack "$PAGES_IPK" "$dir"
    same "the files of the pages" "$({ cd luci-app && find htdocs root -type f; } | sed 's,^htdocs,/www,; s,^root,,' | sort)" \
        "$(cd "$dir/data" && find . -type f | sed 's,^\.,,' | sort)"
    # The program that takes uploads is piboot itself, by the name of this link.
    same "links" "lrwxrwxrwx 0/0 ./www/cgi-bin/piboot-upload -> ../../usr/sbin/piboot" "$(tar --numeric-owner -tvzf "$dir/data.tar.gz" | awk '/^l/ { print $1, $2, $(NF-2), $(NF-1), $NF }')"
    [ -z "$(tar --numeric-owner -tvzf "$dir/data.tar.gz" | grep -v '^-rw-r--r-- 0/0\|^drwxr-xr-x 0/0\|^lrwxrwxrwx 0/0')" ] ||
        die "owners or modes of the pages are not those of luci.mk"
    diff -r --no-dereference luci-app/htdocs "$dir/data/www" || die "the pages are not the sources"
    same "the control files of the pages" "drwxr-xr-x 0/0 ./
-rw-r--r-- 0/0 ./control
-rwxr-xr-x 0/0 ./postinst
-rwxr-xr-x 0/0 ./postinst-pkg
-rwxr-xr-x 0/0 ./prerm" "$(members "$dir/control.tar.gz")"
    has_fields "$dir" "Package: luci-app-piboot" "Architecture: all" "Section: luci" "Depends: luci-base, piboot"
    [[ $(basename "$PAGES_IPK") == luci-app-piboot_$VERSION-r1_all.ipk ]] || die "the name $PAGES_IPK is not what opkg expects"
    same "version in $makefile" "$VERSION" "$(sed -n 's/^PKG_VERSION:=//p' $makefile)"
    same "dependencies in $makefile" "+luci-base +piboot" "$(sed -n 's/^LUCI_DEPENDS:=//p' $makefile)"

    # After its installation LuCI forgets its menu, and rpcd reads the rights anew. What fails there must not matter.
    touch "$ROOT/tmp/luci-indexcache.0.json"
    mkdir -p "$ROOT/tmp/luci-modulecache"
    touch "$ROOT/tmp/luci-modulecache/x"
    printf '#!/bin/sh\necho "rpcd $*" >>/log\n[ ! -e /fail ]\n' >"$ROOT/etc/init.d/rpcd"
    chmod 755 "$ROOT/etc/init.d/rpcd"
    cp "$dir/control/postinst-pkg" "$ROOT/pages-postinst"
    on_router /pages-postinst
    same "postinst of the pages" "rpcd reload" "$LOG"
    same "what LuCI remembers" "" "$(ls "$ROOT/tmp")"
    touch "$ROOT/fail"
    on_router /pages-postinst
    rm "$ROOT/fail"
    on_router IPKG_INSTROOT=/nowhere /pages-postinst
    same "postinst of the pages for another root" "" "$LOG"
    rm "$ROOT/pages-postinst" "$ROOT/etc/init.d/rpcd"
    say "$(basename "$PAGES_IPK"): $(stat -c %s "$PAGES_IPK") bytes"
}

# What LuCI's own po2lmo makes of translation_sample: every length modulo four, quotes, and letters beyond ASCII.
LMO=$(tr -d '\n' <<'END'
6e706c7572616c733d323b20706c7572616c3d6e20213d20313b0000c3a400007820227922207a0064726569e280a600
53797374656d20e296b820e280a600000000000000000000000000000000001a115ea782000000010000001c00000002
1b8a017f00000001000000300000000e4c5310aa00000001000000280000000758115c91000000010000002000000007
00000040
END
)

translation_sample() {
    cat <<'END'
msgid ""
msgstr ""
"Language: de\n"
"Plural-Forms: nplurals=2; plural=n != 1;\n"

msgid "a"
msgstr "ä"

msgid "aü"
msgstr "x \"y\" z"

msgid "abcü"
msgstr "drei…"

msgid "System ▸"
msgstr "System ▸ …"

msgid "NFS"
msgstr "NFS"

msgid "none yet"
msgstr ""
END
}

check_translation() {
    local dir=$WORK/german found
    found=$(translation_sample | openwrt/lmo.pl | od -An -v -tx1 | tr -d ' \n')
    same "lmo.pl" "$LMO" "$found"

    unpack "$GERMAN_IPK" "$dir"
    same "the files of the translation" "-rw-r--r-- 0/0 ./etc/uci-defaults/luci-i18n-piboot-de
-rw-r--r-- 0/0 ./usr/lib/lua/luci/i18n/piboot.de.lmo" "$(members "$dir/data.tar.gz" | grep ^-)"
    has_fields "$dir" "Package: luci-i18n-piboot-de" "Architecture: all" "Depends: luci-app-piboot"
    same "how it makes itself known" "uci set luci.languages.de='Deutsch (German)'; uci commit luci" \
        "$(cat "$dir/data/etc/uci-defaults/luci-i18n-piboot-de")"
    grep -q 'Warten auf Aufnahme' "$dir/data/usr/lib/lua/luci/i18n/piboot.de.lmo" || die "German is not in the .lmo"
}

# --- a root for the scripts ------------------------------------------------------------------------------------

# Everything is written down in /log of the root. UCI's text is, by design, a shell script of config, option and list.
make_root() {
    mkdir -p "$ROOT"/{bin,lib,etc/config,etc/init.d,usr/lib/opkg/info,usr/sbin,tmp,dev}
    : >"$ROOT/dev/null"
    cp "$(command -v busybox)" "$ROOT/bin/busybox"
    chroot "$ROOT" /bin/busybox --install -s /bin
    cp -a "$WORK/ipk/data/." "$ROOT/"
    for file in conffiles control postinst prerm prerm-pkg; do
        cp -a "$WORK/ipk/control/$file" "$ROOT/usr/lib/opkg/info/piboot.$file"
    done
    tar -tzf "$WORK/ipk/data.tar.gz" | sed -n 's,^\.\(/.*[^/]\)$,\1,p' >"$ROOT/usr/lib/opkg/info/piboot.list"
    printf '#!/bin/sh\necho "piboot $*" >>/log\n[ ! -e /fail ]\n' >"$ROOT/usr/sbin/piboot"
    rm "$ROOT/bin/logger"
    printf '#!/bin/sh\necho "logger $*" >>/log\n' >"$ROOT/bin/logger"
    chmod 755 "$ROOT/usr/sbin/piboot" "$ROOT/bin/logger"

    cat >"$ROOT/lib/functions.sh" <<'END'
config_load() {
	unset $(set | sed -n 's/^\(CONFIG_[^=]*\)=.*/\1/p')
	. "/etc/config/$1"
}
config() { SECTION=${2:-anonymous}; }
option() { eval "CONFIG_${SECTION}_$1=\$2"; }
list() { eval "CONFIG_${SECTION}_$1=\"\${CONFIG_${SECTION}_$1:+\$CONFIG_${SECTION}_$1 }\$2\""; }
config_get() { eval "$1=\${CONFIG_${2}_$3:-\$4}"; }
config_get_bool() {
	config_get "$@"
	eval "case \$$1 in 1 | on | true | yes | enabled) $1=1 ;; *) $1=0 ;; esac"
}
add_group_and_user() { :; }
# The two as in OpenWrt, as far as they matter here.
installed() { cat /lib/apk/packages/piboot.list /usr/lib/opkg/info/piboot.list 2>/dev/null | grep '^/etc/init.d/' | sort -u; }
default_postinst() {
	echo "default_postinst $* (${pkgname:-opkg})" >>/log
	[ "$PKG_UPGRADE" = 1 ] || $(installed) enable
	$(installed) start
}
default_prerm() {
	echo "default_prerm $* (${pkgname:-opkg})" >>/log
	local ret=0
	if [ -f /usr/lib/opkg/info/piboot.prerm-pkg ]; then
		( . /usr/lib/opkg/info/piboot.prerm-pkg )
		ret=$?
	fi
	[ "$PKG_UPGRADE" = 1 ] || $(installed) disable
	$(installed) stop
	return $ret
}
END
    cat >"$ROOT/etc/rc.common" <<'END'
. /lib/functions.sh
initscript=$1
action=$2
shift 2
note() { echo "$*" >>/log; }
extra_command() { note extra_command "$1"; }
for name in procd_open_instance procd_set_param procd_append_param procd_close_instance procd_add_reload_trigger \
	procd_add_reload_interface_trigger procd_add_jail procd_send_signal; do
	eval "$name() { note $name \"\$@\"; }"
done
procd_running() { [ -e /running ]; }
procd_kill() { note procd_kill "$1"; }
enable() { note "enable S$START K$STOP procd=$USE_PROCD"; }
disable() { note disable; }
. "$initscript"
start() {
	start_service "$@"
	service_triggers
	note set
	service_started
}
stop() {
	procd_kill piboot
	service_stopped
}
reload() { reload_service "$@"; }
$action "$@"
END
}

# configure LINE... - the package's own configuration with these options of piboot.main instead.
configure() {
    { printf "config piboot 'main'\n"; printf '\t%s\n' "$@"; } >"$ROOT/etc/config/piboot"
}

# on_router COMMAND... - and sets LOG to what was written down, but for what loading the init script always says.
on_router() {
    : >"$ROOT/log"
    chroot "$ROOT" /bin/env -i PATH=/bin "$@" || die "'$*' failed"
    LOG=$(grep -vx 'extra_command check' "$ROOT/log" || true)
}

# --- init script -----------------------------------------------------------------------------------------------

TRIGGERS="procd_add_reload_trigger piboot dhcp network
procd_add_reload_interface_trigger lan"
INSTANCE="procd_open_instance piboot
procd_set_param command /usr/sbin/piboot serve
procd_set_param file /etc/config/piboot
procd_set_param reload_signal HUP
procd_set_param respawn 3600 5 0
procd_set_param limits nofile=8192 8192
procd_set_param stdout 1
procd_set_param stderr 1
procd_set_param term_timeout 20
procd_close_instance"

check_init() {
    local init=/etc/init.d/piboot
    # As it is installed: disabled.
    cp "$WORK/ipk/data/etc/config/piboot" "$ROOT/etc/config/piboot"
    on_router $init start
    same "start, disabled" "$TRIGGERS
set
piboot withdraw" "$LOG"
    on_router $init reload
    same "reload, disabled" "$TRIGGERS
set
piboot withdraw" "$LOG"
    on_router $init stop
    same "stop, disabled" "procd_kill piboot
piboot withdraw" "$LOG"
    touch "$ROOT/fail" # an agent that cannot withdraw must not stop the script, and says so
    on_router $init stop
    [[ $LOG == *"logger -t piboot"*"sections piboot_"* ]] || die "nobody was told that withdrawing failed: $LOG"
    rm "$ROOT/fail"

    configure "option enabled '1'" "list interface 'lan'" "list interface 'pis'"
    on_router $init start
    same "start, enabled" "$INSTANCE
$TRIGGERS
procd_add_reload_interface_trigger pis
set" "$LOG"
    on_router $init stop
    same "stop, enabled" "procd_kill piboot" "$LOG"

    # A list that was written as an option, and none at all.
    configure "option enabled 'on'" "option interface 'lan pis'"
    on_router $init reload
    same "reload, enabled, not running" "$INSTANCE
$TRIGGERS
procd_add_reload_interface_trigger pis
set" "$LOG"
    configure "option enabled '1'"
    touch "$ROOT/running"
    on_router $init reload
    same "reload, running" "$INSTANCE
$TRIGGERS
set
procd_send_signal piboot * HUP" "$LOG"
    configure "option enabled '0'"
    on_router $init reload
    same "reload, running and to be disabled" "$TRIGGERS
set
piboot withdraw" "$LOG"
    rm "$ROOT/running"
    configure
    on_router $init start
    same "start without any option" "$TRIGGERS
set
piboot withdraw" "$LOG"
    on_router $init check
    same "check" "piboot check" "$LOG"
}

# --- scripts of the package ------------------------------------------------------------------------------------

check_scripts() {
    local info=/usr/lib/opkg/info script
    for script in postinst prerm prerm-pkg; do
        busybox ash -n "$WORK/ipk/control/$script"
    done
    configure "option enabled '1'"
    on_router $info/piboot.postinst configure
    same "postinst" "default_postinst $info/piboot.postinst configure (opkg)
enable S21 K10 procd=1
$INSTANCE
$TRIGGERS
set" "$LOG"
    on_router PKG_UPGRADE=1 $info/piboot.postinst configure
    [[ $LOG != *enable\ S* ]] || die "postinst enables at an upgrade what may have been disabled"
    for script in postinst prerm; do
        on_router IPKG_NO_SCRIPT=1 $info/piboot.$script
        same "$script with IPKG_NO_SCRIPT" "" "$LOG"
        on_router IPKG_INSTROOT=/nowhere $info/piboot.$script
        same "$script for a root without functions.sh" "" "$LOG"
    done

    on_router PKG_UPGRADE=0 $info/piboot.prerm remove
    same "prerm, removal" "default_prerm $info/piboot.prerm remove (opkg)
procd_kill piboot
piboot withdraw
disable
procd_kill piboot" "$LOG"
    on_router PKG_UPGRADE=1 $info/piboot.prerm upgrade 0.2.0-r1
    same "prerm, upgrade" "default_prerm $info/piboot.prerm upgrade 0.2.0-r1 (opkg)
procd_kill piboot" "$LOG"
    on_router $info/piboot.prerm upgrade 0.2.0-r1
    [[ $LOG != *withdraw* ]] || die "an upgrade withdraws, where opkg does not set PKG_UPGRADE"
    touch "$ROOT/fail" # and yet the package has to go
    on_router PKG_UPGRADE=0 $info/piboot.prerm remove >"$WORK/said"
    grep -q 'sections piboot_' "$WORK/said" || die "nobody is told what a failed removal leaves"
    rm "$ROOT/fail"
}

# --- .apk ------------------------------------------------------------------------------------------------------

apk() { "$APK" --root "$ROOT" --no-network --allow-untrusted --arch $ARCH "$@" >>"$WORK/apk.log" 2>&1; }

check_apk() {
    local lists=$ROOT/lib/apk/packages
    if [ -z "$PACKAGE" ]; then
        say "NOTE: the .apk was not made and not tested: apk-tools 3 is not here, and neither Debian nor PyPI has it"
        return
    fi
    rm -r "$ROOT/usr/lib/opkg" "$ROOT/etc/config" "$ROOT/etc/init.d" "$ROOT/usr/sbin/piboot"
    : >"$ROOT/log"
    apk --initdb add "$PACKAGE" || die "apk add failed: see $WORK/apk.log"
    LOG=$(grep -v extra_command "$ROOT/log")
    [[ $LOG == "default_postinst  (piboot)"*"enable S21"* ]] || die "apk add: $LOG"
    same "owners and modes by apk" "600 0:0 /etc/config/piboot
755 0:0 /etc/init.d/piboot
644 0:0 /lib/upgrade/keep.d/piboot
755 0:0 /usr/sbin/piboot" "$(cd "$ROOT" && stat -c '%a %u:%g /%n' etc/config/piboot etc/init.d/piboot lib/upgrade/keep.d/piboot usr/sbin/piboot)"
    same "piboot.list" "$(tar -tzf "$WORK/ipk/data.tar.gz" | sed -n 's,^\.\(/.*[^/]\)$,\1,p')" "$(cat "$lists/piboot.list")"
    same "piboot.conffiles_static" "/etc/config/piboot $(sha256sum <files/etc/config/piboot | cut -d ' ' -f 1)" \
        "$(cat "$lists/piboot.conffiles_static")"
    cp "$ROOT/bin/logger" "$ROOT/usr/sbin/piboot" # what writes down that it was called
    sed -i s/logger/piboot/ "$ROOT/usr/sbin/piboot"
    : >"$ROOT/log"
    apk del piboot || die "apk del failed: see $WORK/apk.log"
    LOG=$(grep -v extra_command "$ROOT/log")
    [[ $LOG == "default_prerm  (piboot)"*"procd_kill piboot"*"piboot withdraw" ]] || die "apk del: $LOG"
    [ ! -e "$ROOT/etc/init.d/piboot" ] || die "apk del left the init script"
    say "$(basename "$PACKAGE"): $(stat -c %s "$PACKAGE") bytes; installed and removed by $("$APK" --version)"
    # Its dependencies are not here: made, and not installed.
    [[ $(basename "$PAGES_PACKAGE") == luci-app-piboot-$VERSION-r1-noarch.apk ]] || die "no .apk of the pages was made"
}

# ---------------------------------------------------------------------------------------------------------------

[ "$(id -u)" = 0 ] || die "run as root: chroot"
BINARY=${1:-}
[ -n "$BINARY" ] || { static_x86_64; BINARY=$PROGRAM; }
VERSION=$(sed -n '/^\[package\]/,/^\[/ s/^version = "\(.*\)"$/\1/p' Cargo.toml)
rm -rf "$WORK"
mkdir -p "$WORK"
build
unpack "$IPK" "$WORK/ipk"
check_content
check_control
check_feed
make_root
check_init
check_scripts
check_pages
check_translation
say "$(basename "$IPK"): $(stat -c %s "$IPK") bytes; content, scripts and init script are as they should be"
check_apk
