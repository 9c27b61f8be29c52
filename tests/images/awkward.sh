#!/bin/bash
# Builds small disk images whose root file system holds everything that is awkward about ext4.
#
#   awkward.sh VARIANT DIRECTORY    makes DIRECTORY/VARIANT.img and DIRECTORY/VARIANT.img.xz
#
# Needs root and a loop device (the odd content is written through the kernel's own ext4), and the packages
# e2fsprogs dosfstools mtools fdisk acl attr libcap2-bin xz-utils.
set -euo pipefail
variant=$1 out=$2
export LC_ALL=C TZ=UTC MTOOLS_SKIP_CHECK=1

case $variant in
    inline)   options='-t ext4 -b 4096 -O 64bit,metadata_csum,inline_data' ;;
    pigen | shallow) options='-t ext4 -b 4096 -O ^64bit,^huge_file,metadata_csum' ;;
    indirect) options='-t ext3 -b 1024 -I 128' ;;
    large)    options='-t ext4 -b 2048 -I 512 -O inline_data' ;;
    trixie)   options='-t ext4 -b 4096 -O orphan_file,metadata_csum_seed,metadata_csum,ea_inode,large_dir' ;;
    metabg)   options='-t ext4 -b 1024 -g 1024 -G 4 -O meta_bg,^resize_inode,64bit' ;;
    ext2)     options='-t ext2 -b 4096 -r 1 -O ^dir_index,^filetype' ;;
    *) echo "awkward.sh: no variant '$variant'" >&2; exit 2 ;;
esac

work=$(mktemp -d "$out/.work.XXXXXX")
cleanup() {
    mountpoint -q "$work/mnt" && umount "$work/mnt"
    rm -rf "$work"
}
trap cleanup EXIT
mkdir "$work/mnt" "$work/fat"
# What a command says is of interest only if it fails.
quietly() { "$@" > "$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }; }

# --- root ------------------------------------------------------------------------------------------------------
root_mb=96 boot_mb=40
truncate -s ${root_mb}M "$work/root.ext4"
# shellcheck disable=SC2086 # the options are words
quietly mke2fs -q -F $options -N 9000 -L rootfs -m 0 "$work/root.ext4"
mount -o loop "$work/root.ext4" "$work/mnt"

fill_root() {
    cd "$work/mnt"
    mkdir -p etc usr/lib/systemd usr/sbin usr/bin boot/firmware home/pi proc
    ln -s usr/lib lib; ln -s usr/sbin sbin; ln -s usr/bin bin
    printf 'PRETTY_NAME="Raspberry Pi OS (awkward)"\nVERSION_CODENAME=bookworm\n' > usr/lib/os-release
    ln -s ../usr/lib/os-release etc/os-release
    # The header of an aarch64 program is all that the importer looks at.
    perl -e 'print "\x7fELF\x02\x01\x01", "\0" x 9, pack("vv", 2, 183), "\0" x 44' > usr/lib/systemd/systemd
    ln -s /lib/systemd/systemd usr/sbin/init
    printf 'PARTUUID=4e639091-02 / ext4 defaults,noatime 0 1\n' > etc/fstab
    mkdir odd; cd odd

    # Modes, owners, device nodes.
    for mode in 0000 0400 0644 0755 1777 2755 4755 6755 7777; do echo $mode > mode-$mode; chmod $mode mode-$mode; done
    for id in 1 70000 4294967290; do echo $id > owner-$id; chown $id:$id owner-$id; chmod 4755 owner-$id; done
    mkdir dir-2775; chown 70000:70000 dir-2775; chmod 2775 dir-2775; echo inherit > dir-2775/file
    mknod char c 511 300000; mknod block b 179 2; mknod null c 1 3; mknod fifo p
    chmod 0640 char; chown 0:6 block
    perl -MSocket -e 'socket(my $s, AF_UNIX, SOCK_STREAM, 0); bind($s, sockaddr_un("socket")) or die'

    # Extended attributes and ACLs.
    echo acl > acl; setfacl -m u:70000:r,g:70000:rwx,u:4294967290:x acl
    mkdir acl-default; setfacl -m d:u:1000:rwx,d:g:70000:rx,u:1000:rx acl-default; echo plain > acl-default/inherits
    mkdir acl-default/sub
    echo x > xattr; setfattr -n user.small -v value xattr; setfattr -n user.empty xattr
    setfattr -n trusted.nul -v 0x00ff00 xattr; setfattr -n security.odd -v 0xdeadbeef xattr
    echo x > xattr-large; size=3000; [ "$variant" = indirect ] || [ "$variant" = metabg ] && size=700
    [ "$variant" = large ] && size=1500
    setfattr -n user.large -v "$(perl -e "print 'v' x $size")" xattr-large
    if [ "$variant" = trixie ]; then
        echo x > xattr-inode; setfattr -n user.huge -v "$(perl -e "print 'h' x 40000")" xattr-inode
    fi
    cp /bin/true ping; setcap cap_net_raw+ep ping; chown 0:0 ping
    ln -s xattr symlink-xattr; setfattr -h -n trusted.link -v yes symlink-xattr
    setfattr -n trusted.dev -v node char; setfattr -n trusted.fifo -v pipe fifo

    # Links.
    mkdir links links/deep; echo shared > links/a; ln links/a links/deep/b; ln links/a c-shared
    ln -P symlink-xattr links/to-symlink; ln char links/to-char; ln fifo links/to-fifo
    ln -s "$(perl -e 'print "s" x 59')" symlink-59; ln -s "$(perl -e 'print "s" x 60')" symlink-60
    ln -s /absolute/../../../etc/passwd symlink-absolute
    long=4000; [ "$variant" = indirect ] || [ "$variant" = metabg ] && long=1000; [ "$variant" = large ] && long=2000
    perl -e 'symlink("t" x $ARGV[0], "symlink-long") or die' $long
    perl -e 'symlink("raw\xff\xfe", "symlink-bytes") or die'

    # Names.
    perl -e 'for my $n ("raw\xff\xfename", "new\nline", " blanks ", "back\\slash", "n" x 255, "\xc3\xa4\xc3\xb6", "tab\t", "-rf", "...") {
        open(my $f, ">", $n) or die "$n: $!"; print $f "named"; close $f }'

    # Sizes, holes, extents.
    : > size-0
    for n in 1 40 59 60 61 130 200 1023 1024 1025 4095 4096 4097 70000; do perl -e 'print "z" x $ARGV[0]' $n > size-$n; done
    perl -e 'open(my $f, ">", "sparse-1g") or die; for my $at (0, 70_000_000, 500_000_001, 1_073_741_000) { seek $f, $at, 0; print $f "island $at" } truncate $f, 1<<30'
    perl -e 'open(my $f, ">", "sparse-5g") or die; for my $at (300_000, 4_294_967_290, 5_000_000_000) { seek $f, $at, 0; print $f "island $at" } truncate $f, 5 * (1<<30)'
    truncate -s 10M hole-only
    perl -e 'open(my $f, ">", "many-extents") or die; for my $i (0 .. 1499) { seek $f, $i * 8192, 0; print $f "extent $i" }'
    if [ "$variant" != indirect ] && [ "$variant" != ext2 ]; then
        fallocate -l 2M preallocated; perl -e 'open(my $f, "+<", "preallocated") or die; seek $f, 1_000_000, 0; print $f "middle"'
        echo begin > beyond-eof; fallocate --keep-size -l 1M beyond-eof
        perl -e 'open(my $f, ">", "written-beyond") or die; print $f "k" x 20_000; truncate $f, 5000'
    fi
    perl -e 'srand 7; open(my $f, ">", "random") or die; print $f pack("C*", map { int rand 256 } 1 .. 65536) for 1 .. 24'

    # Directories: hashed, with holes from removed entries; deep.
    mkdir many; perl -e 'for (1 .. 3000) { my $n = sprintf "many/%05d-%s", $_, "x" x ($_ % 60); open(my $f, ">", $n) or die "$n: $!"; print $f $_ if $_ % 5 == 0 }
        for (1 .. 3000) { unlink sprintf "many/%05d-%s", $_, "x" x ($_ % 60) if $_ % 7 == 0 }'
    mkdir tiny-dir empty-dir; echo 1 > tiny-dir/a; echo 2 > tiny-dir/b
    mkdir inline-spill; for n in 1 2 3 4 5; do echo $n > inline-spill/entry-number-$n; done
    # A path longer than PATH_MAX; cp cannot copy it.
    [ "$variant" = shallow ] || perl -e 'for (1 .. 40) { my $n = "deep" . ("d" x 150); mkdir $n or die; chdir $n or die } open(my $f, ">", "bottom") or die; print $f "deep"; link "bottom", "bottom-link" or die'

    # Times.
    for t in 1902-01-01T00:00:00.5 1922-02-03T04:05:06 1969-12-31T23:59:59.999999999 1970-01-01T00:00:00 \
        2024-02-29T12:34:56.123456789 2037-12-31T00:00:00; do touch -d "$t" "time-$t"; done
    if [ "$variant" != indirect ]; then
        for t in 2040-01-01T00:00:00.25 2200-06-07T08:09:10.000000001; do touch -d "$t" "time-$t"; done
    fi
    touch -h -d 1999-12-31T23:59:59.25 symlink-59
    touch -d 2001-02-03T04:05:06 dir-2775 many acl-default char fifo socket
    chattr +i size-1; chattr +a size-40; chattr +A size-59
    cd /
}
(fill_root)
umount "$work/mnt"
quietly e2fsck -fn "$work/root.ext4"

# --- boot ------------------------------------------------------------------------------------------------------
truncate -s ${boot_mb}M "$work/boot.fat"
fat_bits=32; [ "$variant" = pigen ] && fat_bits=16; [ "$variant" = ext2 ] && fat_bits=12
cluster=1; [ $fat_bits = 16 ] && cluster=4; [ $fat_bits = 12 ] && cluster=32
quietly mkfs.vfat -F $fat_bits -s $cluster -n bootfs "$work/boot.fat"
mkdir -p "$work/fat/overlays/deep/er"
printf 'console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 fsck.repair=yes rootwait quiet init=/usr/lib/raspberrypi-sys-mods/firstboot\n' > "$work/fat/cmdline.txt"
printf 'auto_initramfs=1\narm_64bit=1\n[cm4]\notg_mode=1\n' > "$work/fat/config.txt"
perl -e 'chdir shift; srand 11; sub f { my ($n, $s) = @_; open(my $f, ">", $n) or die; print $f pack("C*", map { int rand 256 } 1 .. $s) }
    f("kernel8.img", 300_001); f("initramfs8", 100_000); f("start4.elf", 65_536); f("fixup4.dat", 5_000); f("bootcode.bin", 52_476);
    f("bcm2711-rpi-4-b.dtb", 54_321); f("README", 511); f("overlays/overlay-with-a-rather-long-name-$_.dtbo", 100 + $_ * 37) for 1 .. 60;
    f("overlays/deep/er/UPPER.TXT", 3); f("gr\xc3\xbc\xc3\x9f.txt", 1); f("empty", 0); f("a b", 512)' "$work/fat"
find "$work/fat" -exec touch -d 2024-02-29T12:34:56 {} +
# Interleave, so that cluster chains are scattered.
mcopy -m -i "$work/boot.fat" "$work/fat/kernel8.img" ::filler
mcopy -s -m -i "$work/boot.fat" "$work/fat/overlays" ::
mdel -i "$work/boot.fat" ::filler
(cd "$work/fat"; for f in *; do [ "$f" = overlays ] || mcopy -m -i "$work/boot.fat" "$f" "::$f"; done)

# --- disk ------------------------------------------------------------------------------------------------------
start_boot=8192
start_root=$((start_boot + boot_mb * 2048))
truncate -s $((start_root * 512 + root_mb * 1024 * 1024)) "$work/disk.img"
printf 'label: dos\nlabel-id: 0x4e639091\nstart=%d, size=%d, type=c\nstart=%d, size=%d, type=83\n' \
    $start_boot $((boot_mb * 2048)) $start_root $((root_mb * 2048)) | sfdisk -q "$work/disk.img"
dd if="$work/boot.fat" of="$work/disk.img" bs=512 seek=$start_boot conv=notrunc,sparse status=none
dd if="$work/root.ext4" of="$work/disk.img" bs=512 seek=$start_root conv=notrunc,sparse status=none
xz -1 -k --threads=1 --block-size=16MiB "$work/disk.img"
mv "$work/disk.img.xz" "$out/$variant.img.xz"
mv "$work/disk.img" "$out/$variant.img"
