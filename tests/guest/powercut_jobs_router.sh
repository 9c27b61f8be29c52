#!/bin/sh
# Runs in the guest that is the router: its disk after a power cut is the one that the last guest left. Looks first
# whether all is there that it had said was done, and nothing by half; then works on until the power fails, or ends
# where it was started for the last time.
fail() {
    echo "ERROR: $*"
    tail -n 20 /tmp/log
    ls -lR /srv/piboot/scratch /srv/piboot/devices/*/device.json
    exit 1
}
piboot() { /guest/piboot "$@"; }
export PIBOOT_SOCKET=/tmp/piboot.sock

insmod /guest/overlay.ko || exit 1
mkdir /srv && mount -t ext4 /dev/vda /srv || exit 1
mkdir -p /srv/etc /srv/piboot
[ -s /srv/etc/piboot ] || {
    printf "config piboot 'main'\n\toption enabled '1'\n\tlist interface 'eth0'\n\toption data_dir '/srv/piboot'\n\toption dhcp 'off'\n" >/srv/etc/new
    sync && mv /srv/etc/new /srv/etc/piboot && sync
}
/guest/piboot serve --config /srv/etc/piboot 2>/tmp/log &
until piboot status >/dev/null 2>&1; do usleep 200000; done
# What was interrupted is tidied away, or done again.
settle() {
    until piboot --json status | grep -q '"jobs": 0,'; do usleep 200000; done
}
settle

# content DIRECTORY - the files of its trees, but for those that adapting writes.
content() {
    (cd "$1" && find boot root -type f ! -name cmdline.txt ! -name hostname ! -name hosts ! -name fstab \
        -exec sha256sum {} + | sort -k 2 | sha256sum)
}
# last SUBJECT - the last that was said of it.
last() { grep -E "^(begin|done) [a-z]+ $1\$" /guest/said | tail -n 1; }
# whole KIND NAME - as the one that was made in peace.
whole() { [ "$(content "/srv/piboot/$1/$2")" = "$(cat "/srv/etc/reference.$1")" ] || fail "$2 in $1 is not whole"; }

[ -z "$(ls -A /srv/piboot/scratch)" ] || fail "left in scratch: $(ls /srv/piboot/scratch)"
[ ! -e /srv/etc/.piboot.tmp ] || fail "left beside the configuration"
for image in /srv/piboot/images/*; do
    [ ! -e /srv/etc/reference.images ] || [ ! -d "$image" ] || whole images "${image##*/}"
done
for device in /srv/piboot/devices/*; do
    [ ! -e /srv/etc/reference.devices ] || [ ! -d "$device" ] || whole devices "${device##*/}"
done
for snapshot in /srv/piboot/snapshots/lion/*; do
    [ ! -d "$snapshot" ] || [ "$(content "$snapshot")" = "$(cat /srv/etc/reference.devices)" ] ||
        fail "snapshot ${snapshot##*/} is not whole"
done
case $(last a) in
"done import a") [ -d /srv/piboot/images/a ] || fail "image a is lost" ;;
"done remove a") [ ! -e /srv/piboot/images/a ] || fail "image a is back" ;;
esac
case $(last lion) in
"" | "begin enroll lion" | "begin unenroll lion") ;;
"done unenroll lion")
    [ ! -e /srv/piboot/devices/lion ] || fail "lion's files are back"
    ! piboot devices | grep -q lion || fail "lion is enrolled again"
    ;;
*)
    [ -d /srv/piboot/devices/lion ] || fail "lion's files are lost"
    piboot devices | grep -q lion || fail "lion is not enrolled any more"
    ;;
esac
if piboot devices | grep -q lion; then
    [ -d /srv/piboot/devices/lion ] || fail "lion was not made again: $(piboot devices)"
fi
echo checked
if [ -e /guest/last ]; then
    kill %1
    wait
    umount /srv
    exit
fi

step() {
    subject=$1 what=$2
    shift 2
    echo "begin $what $subject"
    piboot "$@" >/tmp/said 2>&1 || fail "$what $subject: $(cat /tmp/said)"
    echo "done $what $subject"
}
# enroll NAME MAC ROOT
enroll() { piboot devices | grep -q "$1" || step "$1" enroll enroll --mac "$2" --hostname "$1" --image a --root "$3"; }
if [ ! -e /srv/etc/reference.devices ]; then
    [ -d /srv/piboot/images/kept ] || step kept import image import /guest/small.img --name kept
    piboot devices | grep -q peace ||
        step peace enroll enroll --mac dc:a6:32:00:00:01 --hostname peace --image kept
    content /srv/piboot/images/kept >/srv/etc/reference.new
    mv /srv/etc/reference.new /srv/etc/reference.images
    content /srv/piboot/devices/peace >/srv/etc/reference.new && sync
    mv /srv/etc/reference.new /srv/etc/reference.devices && sync
fi
kind=overlay
while :; do
    [ -d /srv/piboot/images/a ] || step a import image import /guest/small.img --name a
    enroll lion dc:a6:32:00:00:02 $kind
    case $kind in overlay) kind=copy ;; *) kind=overlay ;; esac
    step lion reset device reset lion
    ! piboot snapshots lion | grep -q before || piboot snapshot remove lion before >/tmp/said || fail "$(cat /tmp/said)"
    step lion snapshot snapshot take lion --name before
    step lion rollback rollback lion before --discard
    rm -f /srv/lion.tar.zst
    step lion backup backup lion -o /srv/lion.tar.zst
    step lion restore restore /srv/lion.tar.zst --replace
    step lion unenroll unenroll lion --delete
    step a remove image remove a
done
