#!/bin/sh
# Runs in the guest: works on /mnt for 40 s, then checks that nothing went wrong and nothing is missing. The server is
# killed and started again meanwhile: see nfs.sh.
cd /mnt && rm -rf writer && mkdir writer && cd writer || exit 1
head -c 8388608 /dev/urandom >/tmp/reference
errors=0 rounds=0
bad() { errors=$((errors + 1)); echo "round $rounds: $1 failed"; }
exec 3>log
end=$(($(date +%s) + 40))
while [ "$(date +%s)" -lt $end ]; do
    rounds=$((rounds + 1))
    echo "line $rounds" >&3 || bad append
    cp /tmp/reference copy.$((rounds % 4)) || bad cp
    ln copy.$((rounds % 4)) link || bad ln
    mv link moved || bad mv
    rm moved || bad rm
    mkdir dir && rmdir dir || bad "mkdir and rmdir"
    sync log || bad sync
done
exec 3>&-
sync
echo 3 >/proc/sys/vm/drop_caches
for copy in copy.*; do cmp /tmp/reference "$copy" || bad "comparing $copy"; done
[ "$(wc -l <log)" = $rounds ] || bad "log: $(wc -l <log) lines"
[ "$(ls | wc -l)" = 5 ] || bad "listing: $(ls)"
cd .. && rm -rf writer || bad "removing all"
echo "writer: $rounds rounds, $errors errors"
[ $errors = 0 ] && [ $rounds -gt 3 ]
