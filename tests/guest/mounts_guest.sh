#!/bin/sh
# Runs in the guest, for mounts.sh: the ways of mounting, each with a file read and one written. PORTS is "standard"
# (everything where clients look without being told), "moved" (NFS on port 12049 with a portmapper that says so) or
# "alone" (NFS on port 12049 and no portmapper).
PORTS=$(cat /guest/ports)
server=10.0.2.2:/export failed=0 count=0
# The program of klibc finds its library at one place only.
mkdir -p /lib && cp /guest/klibc-*.so /lib/ && mv /guest/nfsmount /guest/klibc-nfsmount

fail() { failed=1; echo "FAIL $PORTS: $*"; }

# works COMMAND... - mounts the export on /mnt.
works() {
    count=$((count + 1))
    timeout 60 "$@" >/tmp/said 2>&1 || { fail "$*: $(cat /tmp/said)"; return; }
    options=$(awk '$2 == "/mnt" { print $4 }' /proc/mounts)
    [ "$(cat /mnt/hello)" = "hello from $PORTS" ] || fail "$*: read $(cat /mnt/hello)"
    echo "$*" >"/mnt/mount.$count" && sync "/mnt/mount.$count" || fail "$*: writing"
    case $options in
    *vers=3*proto=tcp*) ;;
    *) fail "$*: mounted with $options" ;;
    esac
    umount /mnt || fail "$*: umount"
    echo "works with ports $PORTS: $*"
}

# refused COMMAND... - has to give up within a minute.
refused() {
    timeout 60 "$@" >/tmp/said 2>&1
    status=$?
    case $status in
    0) fail "$*: mounted"; umount /mnt ;;
    124 | 137 | 143) fail "$*: hung" ;;
    *) echo "refused with ports $PORTS: $*: $(tail -n 1 /tmp/said)" ;;
    esac
}

kernel() { "$1" nfsmount "$server" /mnt "$2"; }
busybox_mount() { "$1" busybox mount -t nfs -o "$2" "$server" /mnt; }
klibc() { "$1" /guest/klibc-nfsmount -o "$2" "$server" /mnt; }

# What finds its way without being told a port.
unaided() {
    kernel "$1" vers=3,tcp,nolock
    kernel "$1" vers=3,nolock
    busybox_mount "$1" nolock,vers=3,tcp
    klibc "$1" nolock
}

# What has been told all ports. klibc cannot be: of MOUNT's it asks the portmapper, always.
aided() {
    for form in "port=$1,mountport=$1" "mountport=$1,port=$1,mountproto=tcp,proto=tcp"; do
        kernel works "vers=3,tcp,nolock,$form"
        busybox_mount works "nolock,vers=3,tcp,$form"
    done
}

case $PORTS in
standard)
    unaided works
    kernel works nolock
    klibc works nolock,tcp,v3
    kernel works vers=3,tcp,nolock,port=2049
    kernel works vers=3,tcp,nolock,mountport=2049
    klibc works nolock,port=2049
    aided 2049
    server=10.0.2.2:/export/
    unaided works
    server=10.0.2.2:/other
    unaided refused
    ;;
moved)
    unaided works
    kernel works vers=3,tcp,nolock,port=12049
    kernel works vers=3,tcp,nolock,mountport=12049
    klibc works nolock,port=12049
    aided 12049
    kernel refused vers=3,tcp,nolock,port=2049
    ;;
alone)
    aided 12049
    # Without klibc, which goes on asking for longer than anybody would wait.
    kernel refused vers=3,tcp,nolock
    kernel refused vers=3,tcp,nolock,port=12049
    busybox_mount refused nolock,vers=3,tcp
    ;;
esac
exit $failed
