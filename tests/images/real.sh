#!/bin/bash
# Builds (once) an SD-card image laid out as Raspberry Pi OS lays out its own, and prints the path of its .img.xz.
#
#   tests/images/real.sh         Debian arm64 with systemd, kernel, initramfs, ssh; the real Pi firmware
#   tests/images/real.sh slim    the same kernel, initramfs and firmware over a busybox root of a few MB
#
# Log in as root or pi (uid 1000), password raspberry, on the serial console. In /var/cache/piboot-demo of the
# full image are packages to install without a network.
set -euo pipefail
. "$(dirname "$0")/common.sh"

FILES=$HERE/files
DISK_ID=4e639091
SECTOR=512
BOOT_START=8192                        # sectors; where pi-gen starts the boot partition
BOOT_SECTORS=$((256 * 1024 * 2))       # 256 MiB: FAT32 with 2 KiB clusters
PASSWORD='$6$piboot$MS/gr7lYHvw4w9GxYd9wXNzqT/97x4e7A2/072OU0FRSGVhDNDQ1JUX7mw9lyzMkgtzEwIWyVFhMlwgDxLAjC1' # raspberry
XZ_PRESET=2

# --- the boot partition ----------------------------------------------------------------------------------------

# An empty device-tree overlay: valid, and without effect.
empty_overlay() {
    # Header of 40 bytes, one empty reservation entry (16), a root node without properties (16): 72 bytes.
    printf '\xd0\x0d\xfe\xed\0\0\0\x48\0\0\0\x38\0\0\0\x48\0\0\0\x28\0\0\0\x11\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\x10'
    printf '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\x09'
}

# make_boot BASE DIR - what the FAT partition holds.
make_boot() {
    local base=$1 boot=$2 firmware dtb name overlay
    mkdir -p "$boot/overlays"
    firmware=$(mktemp -d "$boot.XXXXXX")
    dpkg-deb -x "$base"/debs/raspi-firmware_*.deb "$firmware"
    cp "$firmware"/usr/lib/raspi-firmware/{bootcode.bin,start*.elf,fixup*.dat} "$boot"
    rm -rf "$firmware"

    # Raspberry Pi OS ships its kernels compressed; the firmware (and QEMU) unpack them.
    gzip -6nc "$base"/root/boot/vmlinuz-* >"$boot/kernel8.img"
    cp "$boot/kernel8.img" "$boot/kernel_2712.img"
    cp "$base"/root/boot/initrd.img-* "$boot/initramfs8"
    cp "$boot/initramfs8" "$boot/initramfs_2712"

    # The firmware asks for the Pi 2 and 3 by the name of the downstream kernel: bcm2710.
    for dtb in "$base"/root/usr/lib/linux-image-*/broadcom/*.dtb; do
        name=$(basename "$dtb")
        cp "$dtb" "$boot/$name"
        [ "$name" = "${name/bcm2837-/}" ] || cp "$dtb" "$boot/${name/bcm2837-/bcm2710-}"
    done
    # Linux 6.1 has none for the Pi 5; so that its bootloader's list is complete, the Pi 4's stands in.
    cp "$boot/bcm2711-rpi-4-b.dtb" "$boot/bcm2712-rpi-5-b.dtb"

    for overlay in overlay_map.dtb vc4-kms-v3d.dtbo vc4-kms-v3d-pi4.dtbo vc4-kms-v3d-pi5.dtbo disable-bt.dtbo dwc2.dtbo; do
        empty_overlay >"$boot/overlays/$overlay"
    done
    cp "$FILES/config.txt" "$boot"
    printf 'console=serial0,115200 console=tty1 root=PARTUUID=%s-02 rootfstype=ext4 fsck.repair=yes rootwait%s\n' \
        "$DISK_ID" "${FIRSTBOOT:+ init=$FIRSTBOOT}" >"$boot/cmdline.txt"
}

# --- the roots -------------------------------------------------------------------------------------------------

# What both roots have of Raspberry Pi OS.
common_root() {
    local root=$1
    mkdir -p "$root/boot/firmware"
    {
        printf 'proc            /proc           proc    defaults          0       0\n'
        printf 'PARTUUID=%s-01  /boot/firmware  vfat    defaults          0       2\n' "$DISK_ID"
        printf 'PARTUUID=%s-02  /               ext4    defaults,noatime  0       1\n' "$DISK_ID"
    } >"$root/etc/fstab"
    echo raspberrypi >"$root/etc/hostname"
    printf '127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\n\n127.0.1.1\traspberrypi\n' >"$root/etc/hosts"
    rm -f "$root/etc/resolv.conf"
}

full_root() {
    local base=$1 root=$2
    say "copying the root"
    cp -a "$base/root" "$root"
    common_root "$root"

    say "adding the user pi and what Raspberry Pi OS does at its first boot"
    chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash --groups sudo,video,users pi
    sed -Ei "s,^(root|pi):[^:]*:,\1:$PASSWORD:," "$root/etc/shadow"
    install -D -m 755 "$FILES/firstboot" "$root$FIRSTBOOT"
    install -m 755 "$FILES/resize2fs_once" "$root/etc/init.d/resize2fs_once"
    ln -s ../init.d/resize2fs_once "$root/etc/rc3.d/S01resize2fs_once"
    install -m 644 "$FILES/regenerate_ssh_host_keys.service" "$root/usr/lib/systemd/system"
    rm -f "$root"/etc/ssh/ssh_host_*_key* "$root/etc/systemd/system/sshd.service" \
        "$root/etc/systemd/system/multi-user.target.wants/ssh.service"
    # It can do nothing without D-Bus, which this root does not have, and would be started again and again.
    ln -sf /dev/null "$root/etc/systemd/system/systemd-logind.service"
    ln -sf /dev/null "$root/etc/systemd/system/getty-static.service"
    # A machine-id to be made at first boot makes systemd enable units by preset as well, where Debian's is "all":
    # networkd, which takes eth0 from under the root, for one. What the packages enabled is enabled.
    mkdir -p "$root/etc/systemd/system-preset"
    echo 'disable *' >"$root/etc/systemd/system-preset/00-as-installed.preset"
    echo uninitialized >"$root/etc/machine-id"

    install -d "$root/var/cache/piboot-demo"
    cp "$base"/debs/{hello,less,nano}_*.deb "$root/var/cache/piboot-demo"
    rm -f "$root"/boot/initrd.img-* "$root"/boot/vmlinuz-* "$root/initrd.img"* "$root/vmlinuz"*
}

slim_root() {
    local base=$1 root=$2 applet
    say "making the busybox root"
    mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,tmp,root,etc/init.d,home/pi,usr/bin,usr/sbin,var/cache,var/log,mnt}
    chmod 1777 "$root/tmp"
    chmod 700 "$root/root"
    chown 1000:1000 "$root/home/pi"
    dpkg-deb -x "$base"/debs/busybox-static_*.deb "$root"
    rm -rf "${root:?}/usr/share"
    [ -e "$root/bin/busybox" ] || mv "$root/usr/bin/busybox" "$root/bin/busybox"
    for applet in $(chroot "$root" /bin/busybox --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    ln -s ../bin/busybox "$root/sbin/init"
    for applet in getty reboot poweroff; do ln -s ../bin/busybox "$root/sbin/$applet"; done
    common_root "$root"
    printf 'root:x:0:0:root:/root:/bin/sh\npi:x:1000:1000::/home/pi:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\ntty:x:5:\npi:x:1000:\n' >"$root/etc/group"
    printf 'root:%s:19700:0:99999:7:::\npi:%s:19700:0:99999:7:::\n' "$PASSWORD" "$PASSWORD" >"$root/etc/shadow"
    chmod 640 "$root/etc/shadow"
    cp "$FILES/inittab" "$root/etc/inittab"
    cp "$FILES/rcS" "$FILES/login" "$root/etc/init.d"
    printf 'Debian GNU/Linux 12 \\n \\l\n\n' >"$root/etc/issue"
}

# --- the image -------------------------------------------------------------------------------------------------

# make_image BOOT ROOT IMAGE - partition table and both file systems, without a mount.
make_image() {
    local boot=$1 root=$2 image=$3 root_start root_mib
    root_start=$((BOOT_START + BOOT_SECTORS))
    # As pi-gen: a fifth and 200 MB more than the files take.
    root_mib=$(($(du -sm "$root" | cut -f1) * 6 / 5 + 200))
    say "writing the file systems (root of $root_mib MiB)"
    truncate -s $((root_start * SECTOR + root_mib * 1024 * 1024)) "$image"
    sfdisk --quiet "$image" <<-TABLE
		label: dos
		label-id: 0x$DISK_ID
		start=$BOOT_START, size=$BOOT_SECTORS, type=c
		start=$root_start, type=83
	TABLE
    mkfs.vfat -F 32 -s 4 -n bootfs --offset "$BOOT_START" "$image" $((BOOT_SECTORS / 2)) >/dev/null 2>"$image.log" ||
        { cat "$image.log" >&2; die "mkfs.vfat failed"; }
    rm "$image.log"
    mcopy -s -i "$image@@$((BOOT_START * SECTOR))" "$boot"/* ::
    mke2fs -q -t ext4 -L rootfs -O '^64bit,^huge_file,metadata_csum' -b 4096 -d "$root" \
        -E "offset=$((root_start * SECTOR))" "$image" "${root_mib}M"
}

build() {
    local base=$1 out=$2
    "$ROOT_OF" "$base" "$out/root"
    make_boot "$base" "$out/boot"
    make_image "$out/boot" "$out/root" "$out/$IMAGE"
    say "root $(du -sm "$out/root" | cut -f1) MB, boot $(du -sm "$out/boot" | cut -f1) MB"
    rm -rf "${out:?}/root" "$out/boot"
    with_ticker "compressing (xz -$XZ_PRESET)" xz -T2 "-$XZ_PRESET" "$out/$IMAGE"
    say "$(du -m "$out/$IMAGE.xz" | cut -f1) MB"
}

FIRSTBOOT=
case ${1:-} in
'')
    IMAGE=piboot-real.img ROOT_OF=full_root
    # The init that Raspberry Pi OS starts once from a new card.
    FIRSTBOOT=/usr/lib/raspberrypi-sys-mods/firstboot
    ;;
slim) IMAGE=piboot-slim.img ROOT_OF=slim_root ;;
*) die "usage: real.sh [slim]" ;;
esac

base=$("$HERE/root.sh")
name=${IMAGE%.img}-$( (key "$HERE/real.sh" "$FILES"/*; echo "$base") | sha256sum | cut -c1-12)
once "$name" build "$base"
echo "$CACHE/$name/$IMAGE.xz"
