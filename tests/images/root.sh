#!/bin/bash
# Builds (once) a Debian arm64 root with what Raspberry Pi OS uses to boot: systemd, initramfs-tools with klibc's
# nfsmount, a kernel with the Pi device trees, nfs-common, ssh. Prints the directory; in it are
#   root/   the tree, owners and attributes as installed
#   debs/   raspi-firmware and a few arm64 packages to install inside a guest
set -euo pipefail
. "$(dirname "$0")/common.sh"
. "$HERE/../apt-source.sh"

SUITE=bookworm
PACKAGES=systemd-sysv,udev,kmod,initramfs-tools,busybox,linux-image-arm64,nfs-common,openssh-server
PACKAGES+=,iproute2,iputils-ping,libcap2-bin,netbase,sudo
DEBS="raspi-firmware busybox-static hello less nano"

# The initramfs is generated under emulation: with a list of modules in seconds, with MODULES=most in minutes.
INITRAMFS_MODULES="nfs nfsv3 virtio_pci virtio_mmio virtio_net dwc2 phy_generic cdc_ether usbnet
                   smsc95xx lan78xx bcmgenet mdio_bcm_unimac broadcom"

# Left out when packages are unpacked: documentation, translations, and drivers for hardware no Pi has. The
# dpkg inside the image goes by the same rules.
excludes() {
    cat <<-'RULES'
	path-exclude=/usr/share/doc/*
	path-exclude=/usr/share/man/*
	path-exclude=/usr/share/info/*
	path-exclude=/usr/share/locale/*
	path-exclude=/usr/share/lintian/*
	path-exclude=/usr/lib/linux-image-*/*
	path-include=/usr/lib/linux-image-*/broadcom/bcm2*
	path-exclude=/lib/modules/*/kernel/sound/*
	path-exclude=/lib/modules/*/kernel/drivers/*
	path-exclude=/lib/modules/*/kernel/fs/ocfs2/*
	path-exclude=/lib/modules/*/kernel/fs/gfs2/*
	path-exclude=/lib/modules/*/kernel/fs/ceph/*
	path-exclude=/lib/modules/*/kernel/fs/xfs/*
	path-exclude=/lib/modules/*/kernel/fs/btrfs/*
	path-include=/lib/modules/*/kernel/drivers/virtio/*
	path-include=/lib/modules/*/kernel/drivers/block/loop.ko
	path-include=/lib/modules/*/kernel/drivers/block/virtio_blk.ko
	path-include=/lib/modules/*/kernel/drivers/char/hw_random/*
	path-include=/lib/modules/*/kernel/drivers/mmc/*
	path-include=/lib/modules/*/kernel/drivers/net/mdio.ko
	path-include=/lib/modules/*/kernel/drivers/net/mii.ko
	path-include=/lib/modules/*/kernel/drivers/net/net_failover.ko
	path-include=/lib/modules/*/kernel/drivers/net/tun.ko
	path-include=/lib/modules/*/kernel/drivers/net/veth.ko
	path-include=/lib/modules/*/kernel/drivers/net/virtio_net.ko
	path-include=/lib/modules/*/kernel/drivers/net/phy/*
	path-include=/lib/modules/*/kernel/drivers/net/mdio/*
	path-include=/lib/modules/*/kernel/drivers/net/usb/*
	path-include=/lib/modules/*/kernel/drivers/net/ethernet/broadcom/genet/*
	path-include=/lib/modules/*/kernel/drivers/reset/*
	path-include=/lib/modules/*/kernel/drivers/thermal/*
	path-include=/lib/modules/*/kernel/drivers/usb/common/*
	path-include=/lib/modules/*/kernel/drivers/usb/core/*
	path-include=/lib/modules/*/kernel/drivers/usb/dwc2/*
	path-include=/lib/modules/*/kernel/drivers/usb/gadget/udc/*
	path-include=/lib/modules/*/kernel/drivers/usb/host/*
	path-include=/lib/modules/*/kernel/drivers/usb/phy/*
	path-include=/lib/modules/*/kernel/drivers/usb/roles/*
	path-include=/lib/modules/*/kernel/drivers/usb/storage/*
	path-include=/lib/modules/*/kernel/drivers/watchdog/bcm2835_wdt.ko
	RULES
}

# What must be in the tree before the first package is configured.
prepare() {
    local root=$1
    mkdir -p "$root/etc/initramfs-tools/conf.d" "$root/usr/share/initramfs-tools/modules.d" "$root/etc/systemd/network"
    printf 'MODULES=list\nCOMPRESS=gzip\n' >"$root/etc/initramfs-tools/conf.d/piboot"
    tr -s ' ' '\n' <<<"$INITRAMFS_MODULES" >"$root/usr/share/initramfs-tools/modules.d/piboot"
    # The first interface is eth0, as on Raspberry Pi OS.
    ln -s /dev/null "$root/etc/systemd/network/99-default.link"
    ln -s /dev/null "$root/etc/systemd/network/73-usb-net-by-mac.link"
    # QEMU's USB network adapter gives the guest another MAC address than the one it was told (its first byte
    # becomes 40). The Pi's firmware names the right one on the kernel's command line, for the board's own adapter.
    mkdir -p "$root/etc/initramfs-tools/scripts/init-premount"
    install -m 755 "$HERE/initramfs-macaddr" "$root/etc/initramfs-tools/scripts/init-premount/macaddr"
}

# What is done once, when all is configured.
finish() {
    local root=$1 debs=$2 version
    version=$(basename "$root"/boot/vmlinuz-*)
    version=${version#vmlinuz-}
    with_ticker "generating the initramfs of $version under emulation" \
        chroot "$root" update-initramfs -c -k "$version" >&2
    say "fetching $DEBS"
    # shellcheck disable=SC2086
    (cd "$debs" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq -o APT::Sandbox::User=root download $DEBS >&2)
}

build() {
    local out=$1
    mkdir "$out/debs"
    excludes >"$out/excludes"
    debian_source "$SUITE" "main non-free-firmware" >"$out/debian.sources" || die "apt knows no Debian source; run tests/setup.sh"
    # INITRD=No: the kernel's hook would generate an initramfs, and the packages' triggers again.
    INITRD=No with_ticker "installing Debian $SUITE arm64 under emulation (about three minutes)" \
        mmdebstrap --quiet --mode=root --architectures=arm64 --variant=minbase --include="$PACKAGES" \
        --aptopt='Acquire::Retries "5"' --aptopt='Acquire::Languages "none"' \
        --dpkgopt="$out/excludes" --dpkgopt=force-unsafe-io \
        --setup-hook="$HERE/root.sh --prepare \"\$1\"" \
        --customize-hook="$HERE/root.sh --finish \"\$1\" '$out/debs'" \
        "$SUITE" "$out/root" "$out/debian.sources" >&2
    # Only for the build: a guest's dpkg must sync as on every Debian.
    sed -i '/force-unsafe-io/d' "$out"/root/etc/dpkg/dpkg.cfg.d/*
    rm -f "$out/root/etc/apt/apt.conf.d/99mmdebstrap" "$out/excludes" "$out/debian.sources"
    du -sm "$out/root" | { read -r mb _; say "root: $mb MB"; }
}

case ${1:-} in
--prepare) prepare "$2" ;;
--finish) finish "$2" "$3" ;;
'')
    name=root-$(key "$HERE/root.sh" "$HERE/initramfs-macaddr")
    once "$name" build
    echo "$CACHE/$name"
    ;;
*) die "usage: root.sh" ;;
esac
