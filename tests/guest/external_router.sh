#!/bin/sh
# Runs in the guest that is the router, for external.sh: /guest/act says which part.
server=10.0.2.2 path=$(cat /guest/path) act=$(cat /guest/act)
fail() {
    echo "ERROR: $act: $*"
    tail -n 30 /tmp/log
    exit 1
}
piboot() { /guest/ld.so --library-path /guest /guest/piboot "$@"; }
export PIBOOT_SOCKET=/tmp/piboot.sock

# configure DATA_DIR NFS_PATH
configure() {
    printf "config piboot 'main'\n\toption enabled '1'\n\tlist interface 'eth0'\n\toption dhcp 'off'\n\toption data_dir '%s'\n\toption nfs 'external'\n\toption nfs_server '%s'\n\toption nfs_path '%s'\n" \
        "$1" "$server" "$2" >/tmp/config
    [ ! -s /srv/devices.conf ] || cat /srv/devices.conf >>/tmp/config
}
start() {
    /guest/ld.so --library-path /guest /guest/piboot serve --config /tmp/config 2>>/tmp/log &
    agent=$!
    until piboot status >/dev/null 2>&1; do usleep 200000; done
}
# found WORDS - a finding with these words, now or soon.
found() {
    tries=0
    until piboot check 2>&1 | grep -q "$1"; do
        tries=$((tries + 1))
        [ $tries -lt 150 ] || fail "no finding says '$1': $(piboot check 2>&1)"
        usleep 200000
    done
}
mkdir -p /srv /plain
mount -t tmpfs tmpfs /plain
nfsmount "$server:$path" /srv vers=3,tcp,nolock || fail "the router cannot mount"

case $act in
serve)
    configure /srv/piboot "$path/piboot"
    start
    piboot check | grep -i nfs && fail "something is found: $(piboot check)"
    piboot status | grep -q "on $server:$path/piboot" || fail "$(piboot status)"
    piboot image import /guest/small.img --name small >/tmp/said 2>&1 || fail "import: $(cat /tmp/said)"
    piboot enroll --mac dc:a6:32:00:00:01 --hostname lion --image small >/tmp/said 2>&1 ||
        fail "enroll: $(cat /tmp/said)"
    for words in "nfsroot=$server:$path/piboot/devices/lion/root,vers=3,tcp" "root=/dev/nfs"; do
        grep -q "$words" /srv/piboot/devices/lion/boot/cmdline.txt || fail "$(cat /srv/piboot/devices/lion/boot/cmdline.txt)"
    done
    grep -q "^$server:$path/piboot/devices/lion/boot /boot/firmware nfs" /srv/piboot/devices/lion/root/etc/fstab ||
        fail "$(cat /srv/piboot/devices/lion/root/etc/fstab)"
    # It has no NFS server and no portmapper of its own; its TFTP serves what lies there.
    netstat -tln | grep -E ':(111|2049) ' && fail "it listens for NFS"
    netstat -uln | grep -q ':69 ' || fail "no TFTP"
    [ -f /srv/piboot/piboot.db ] || fail "no database"
    [ ! -e /srv/piboot/piboot.db-shm ] || fail "SQLite shares memory over NFS"
    sed -n '/^config device/,$p' /tmp/config >/srv/devices.conf
    piboot --json jobs | grep -c '"id"' >/srv/jobs
    # In the middle of whatever it does.
    kill -9 $agent
    ;;
again)
    # Another machine, after the first one died: the history is there, and nothing is made anew.
    configure /srv/piboot "$path/piboot"
    start
    [ "$(piboot --json jobs | grep -c '"id"')" -ge "$(cat /srv/jobs)" ] || fail "the history is lost: $(piboot jobs)"
    piboot devices | grep -q 'lion.*ready' || fail "$(piboot devices)"
    # What cannot be done there in one step is not begun.
    piboot snapshot take lion --name before >/tmp/said 2>&1 || fail "snapshot: $(cat /tmp/said)"
    for words in "device reset lion" "device switch lion small" "rollback lion before"; do
        # shellcheck disable=SC2086
        piboot $words >/tmp/said 2>&1 && fail "$words: $(cat /tmp/said)"
        grep -q "cannot take the place of others in one step" /tmp/said || fail "$words: $(cat /tmp/said)"
    done
    # What is said of another place.
    kill $agent && wait $agent
    configure /srv/piboot "$path/elsewhere"
    start
    found "it is $path/piboot there"
    kill $agent && wait $agent
    mkdir /plain/data
    configure /plain/data "$path/piboot"
    start
    found "it is on tmpfs"
    ;;
squashed)
    configure /srv/piboot "$path/piboot"
    start
    found "has to have no_root_squash"
    ;;
esac
kill $agent 2>/dev/null
exit 0
