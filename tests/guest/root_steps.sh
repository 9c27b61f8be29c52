#!/bin/bash
# Runs in the guest as process 1, on a Debian root that comes over NFS: what people do with a Debian. Each step's time
# is printed, and what a failing step said.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C DEBIAN_FRONTEND=noninteractive
failed=0

# step NAME COMMAND... - in a directory that stays.
step() {
    local name=$1 status=0 start end
    shift
    start=$(cut -d ' ' -f 1 /proc/uptime)
    # In the background, because to the left of "||" a shell goes on after errors, whatever it was told.
    (set -e; cd /var/tmp/work; "$@") >/tmp/step.log 2>&1 </dev/null &
    wait $! || status=$?
    end=$(cut -d ' ' -f 1 /proc/uptime)
    awk -v n="$name" -v s="$start" -v e="$end" 'BEGIN { printf "%6.1f s  %s\n", e - s, n }'
    [ "$status" = 0 ] && return
    echo "FAILED ($status): $name"
    tail -n 20 /tmp/step.log
    failed=$((failed + 1))
}

same() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'"; exit 1; }; }
refused() { ! "$@" || { echo "not refused: $*"; exit 1; }; }

is_nfs() { same "$(stat -f -c %T /)" nfs; }

install_packages() {
    [ "$(ls /debs/*.deb | wc -l)" -ge 15 ]
    # What has to be configured before another is unpacked: dpkg does not sort by itself.
    dpkg -i $(ls /debs/*.deb | grep -v -e /systemd-sysv_ -e /libpam-systemd_)
    dpkg -i /debs/systemd-sysv_*.deb /debs/libpam-systemd_*.deb
}

# Everything of the new packages is there, with the checksums that they promise; nothing is half installed.
check_packages() {
    local deb
    same "$(dpkg --audit)" ""
    for deb in /debs/*.deb; do dpkg-deb -W --showformat='${Package}\n' "$deb"; done >names
    same "$(xargs dpkg --verify <names)" ""
    same "$(xargs dpkg-query -W -f '${db:Status-Abbrev}\n' <names | sort -u)" "ii "
}

remove_package() {
    dpkg --purge nano
    refused test -e /bin/nano
}

compile() {
    mkdir c && cd c
    printf '#include <stdio.h>\nint main(void) { return puts("compiled") < 0; }\n' >hello.c
    printf 'hello: hello.c\n\tcc -O2 -o $@ $<\n' >Makefile
    make
    same "$(./hello)" compiled
    same "$(make)" "make: 'hello' is up to date."
}

use_git() {
    git config --global user.name guest && git config --global user.email guest@localhost
    git config --global init.defaultBranch main
    git init -q one && cd one
    cp -r /usr/share/perl/* /etc/pam.d .
    git add . && git commit -q -m first
    date >when && git add when && git commit -q -m second
    git gc -q
    cd .. && git clone -q one two
    git -C two fsck --full --strict
    same "$(git -C two rev-list --count HEAD)" 2
    same "$(git -C two status --porcelain)" ""
    diff -r --exclude=.git one two
}

# Each transaction is a journal made, synced and removed. (A write-ahead log is not for network file systems.)
use_sqlite() {
    {
        echo 'PRAGMA synchronous=FULL; PRAGMA journal_mode=DELETE; CREATE TABLE t (n INTEGER PRIMARY KEY, v BLOB);'
        for n in $(seq 150); do
            echo "BEGIN; INSERT INTO t VALUES ($n, randomblob(3000)); DELETE FROM t WHERE n % 10 = 1 AND n < $n; COMMIT;"
        done
    } | sqlite3 -bail base
    same "$(sqlite3 base 'PRAGMA integrity_check; SELECT count(*), sum(length(v)) FROM t')" "ok"$'\n'"135|405000"
    refused test -e base-journal
}

# passwd is setuid: it reads for the user what the user may not read.
setuid() {
    same "$(stat -c '%a %u %g' /usr/bin/passwd)" "4755 0 0"
    refused su nobody -s /bin/sh -c 'cat /etc/shadow'
    same "$(su nobody -s /bin/sh -c 'passwd -S' | cut -d ' ' -f 1,2)" "nobody L"
}

users() {
    useradd -m -G mail someone
    su someone -c 'cd && umask 027 && mkdir own && date >own/file && chgrp mail own/file'
    same "$(stat -c '%U %G %a' ~someone/own/file)" "someone mail 640"
    refused su nobody -s /bin/sh -c 'cat ~someone/own/file'
    refused su someone -c 'chown root ~/own/file'
}

links() {
    echo content >first && ln first second && ln -s first third && mkfifo pipe && mknod null c 1 3
    same "$(stat -c %h second)" 2
    same "$(stat -c %i first)" "$(stat -c %i second)"
    same "$(cat third)" content
    rm first
    refused cat third
    same "$(cat second; stat -c %h second)" "content"$'\n'1
    echo thrown away >null
    (echo through >pipe &) && same "$(cat pipe)" through
}

replace_running() {
    local running
    cp /bin/sleep busy
    ./busy 60 &
    running=$!
    sleep 1
    cp /bin/true new && mv new busy
    kill -0 "$running"
    ./busy
    rm busy && kill "$running"
    wait "$running" || true
    # The client hid what ran under another name while it ran.
    same "$(find . -name '.nfs*')" ""
}

archive() {
    tar -C /usr -cf tree.tar share/perl share/git-core sbin
    mkdir tree && tar -C tree -xpf tree.tar
    diff -r --no-dereference /usr/share/perl tree/share/perl
    same "$(tar -C /usr -df tree.tar)" ""
    (cd tree && flock -n lock true)
}

# A directory of the image's that is listed in several answers, and shrinks meanwhile.
remove_large() {
    [ "$(ls /var/lib/dpkg/info | wc -l)" -ge 500 ]
    rm -r /var/lib/dpkg/info
    refused test -e /var/lib/dpkg/info
}

remove_all() {
    rm -rf /var/tmp/work/* /debs
    same "$(ls -A /var/tmp/work)" ""
}

# Boots from here on with systemd, which runs the next script when all is up.
enable_report() {
    cat >/etc/systemd/system/report.service <<-'UNIT'
	[Unit]
	Description=What the test asked for
	[Service]
	ExecStart=/bin/sh -c '/run/guest/script; echo "guest: exit $?"; sleep 1; systemctl poweroff'
	StandardOutput=file:/dev/ttyS1
	StandardError=inherit
	[Install]
	WantedBy=multi-user.target
	UNIT
    systemctl enable report
    test -L /etc/systemd/system/multi-user.target.wants/report.service
}

mkdir -p /var/tmp/work
mount -t tmpfs tmpfs /tmp
step "the root is NFS" is_nfs
step "dpkg -i $(ls /debs | wc -l) packages" install_packages
step "dpkg --verify, --audit" check_packages
step "dpkg --purge" remove_package
step "compile and run" compile
step "git init, commit, gc, clone, fsck" use_git
step "sqlite, 150 synchronous transactions" use_sqlite
step "setuid, /etc/shadow refused" setuid
step "useradd, files of users" users
step "hard links, FIFO, device" links
step "replace a running program" replace_running
step "tar there and back" archive
step "ldconfig" ldconfig
step "enable a unit" enable_report
step "rm -r of a large directory" remove_large
step "rm -rf" remove_all
step "sync" sync
exit $failed
