#!/bin/sh
# piboot: this root is read-only and may be many Pis' own. What this one changes is kept in its memory, and gone at its next
# boot. Started in the place of init, by the kernel or by an initramfs: mounts memory over the root (overlayfs) and goes on
# with the system's init in there. Whatever fails is said, and the system starts on the root as it is.
#   piboot.init=PROGRAM   on the kernel's command line: that instead of /sbin/init
#   piboot.memory=SIZE    how much may be changed, as tmpfs takes it (200m, 25%); half of the memory if there is none
# Afterwards what is below is at /usr/lib/piboot/image, and what was changed in /usr/lib/piboot/memory/upper.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
here=/usr/lib/piboot
init='' size='' why=''
umask 022
set -f

# say LEVEL TEXT - on the console, and to who listens to the kernel's messages: its log, a network console.
say() {
    echo "piboot: $2"
    [ ! -c /dev/kmsg ] || echo "<$1>piboot: $2" >/dev/kmsg
}

# mounted PLACE - the kind of file system that is mounted there, as $kind.
mounted() {
    kind=
    while read -r _ place type _; do
        [ "$place" != "$1" ] || kind=$type
    done </proc/self/mounts
    [ -n "$kind" ]
}

knows_overlay() {
    while read -r first second; do
        [ "$first" != overlay ] && [ "$second" != overlay ] || return 0
    done </proc/filesystems
    return 1
}

# Mounts memory and the overlay. What the root is now stays what it is.
prepare() {
    why='the kernel has no overlay file system, and modprobe found none'
    knows_overlay || modprobe overlay
    knows_overlay || return
    why="no memory could be mounted at $here/memory"
    mount -n -t tmpfs -o "mode=0755${size:+,size=$size}" piboot $here/memory || return
    why='the overlay could not be mounted'
    if ! mkdir $here/memory/upper $here/memory/work ||
        ! mount -n -t overlay -o "lowerdir=/,upperdir=$here/memory/upper,workdir=$here/memory/work" overlay $here/root; then
        umount -n $here/memory
        return 1
    fi
}

# Makes the overlay the root.
enter() {
    why='the overlay could not be made the root (pivot_root)'
    if ! cd $here/root || ! pivot_root . usr/lib/piboot/image; then
        cd /
        umount -n $here/root
        umount -n $here/memory
        return 1
    fi
    cd /
}

# bring PLACE MOUNT-ARGUMENT... - what was mounted there before, or else that anew.
bring() {
    place=$1
    shift
    mount -n --move $here/image"$place" "$place" 2>/dev/null || mount -n "$@" "$place" || say 3 "cannot mount $place"
}

ephemeral() {
    # The image's own initramfs may have done the same.
    ! mounted / || [ "$kind" != overlay ] || return 0
    prepare && enter || return
    if [ -n "$run" ]; then bring /run -t tmpfs -o mode=0755,nosuid,nodev tmpfs; fi
    bring /dev -t devtmpfs -o mode=0755,nosuid devtmpfs
    bring /sys -t sysfs -o nosuid,nodev,noexec sysfs
    bring /proc -t proc -o nosuid,nodev,noexec proc
    bring $here/memory -t tmpfs piboot
    say 6 'what this system changes is kept in memory until its next boot'
}

[ -e /proc/self/mounts ] || mount -n -t proc -o nosuid,nodev,noexec proc /proc
[ -c /dev/null ] || mount -n -t devtmpfs -o mode=0755,nosuid devtmpfs /dev
mounted /run && run=yes || run=
words=
[ ! -r /proc/cmdline ] || read -r words </proc/cmdline
for word in $words; do
    case $word in
    piboot.init=*) init=${word#*=} ;;
    piboot.memory=*) size=${word#*=} ;;
    esac
done
# It would be started for ever.
[ "$init" != $here/ephemeral-init ] || init=
ephemeral || say 3 "changes are not kept in memory, the system starts on a read-only root: $why"
for program in "$init" /sbin/init /usr/lib/systemd/systemd /lib/systemd/systemd /bin/init /bin/sh; do
    [ ! -x "$program" ] || exec "$program" "$@"
done
say 3 'there is no init'
