#!/bin/sh
# Runs in the guest that is the router: its disk after a power cut is the one that the last guest left. Looks first
# whether all is there that the Pi was promised, then serves it. Ends by itself only after the last cut.
mkdir /srv && mount -t ext4 /dev/vda /srv || exit 1
mkdir -p /srv/export /srv/key
/guest/durable --check /srv/export/durable /guest/said || [ ! -s /guest/said ] || exit 2
sync
if [ -e /guest/last ]; then umount /srv; exit; fi
# shellcheck disable=SC2046
/guest/nfsd --dir /srv/export --key /srv/key/key --portmap 111 --client 10.9.0.0/24 $(cat /guest/options) 2>/tmp/log &
server=$!
until grep -q ^ready /tmp/log; do
    kill -0 $server || { cat /tmp/log; exit 3; }
    usleep 100000
done
echo ready
while sleep 1; do
    # The kernel counts VmHWM roughly; what smaps_rollup adds up is right.
    awk '/^(VmHWM|Rss):/ { print "memory", $1, $2 }' /proc/$server/status /proc/$server/smaps_rollup || { tail -n 20 /tmp/log; exit 4; }
done
