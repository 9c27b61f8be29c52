#!/bin/sh
# Runs in the guest: works on /mnt for a minute, then checks that nothing went wrong and nothing is missing. Meanwhile
# the server is killed and started again, by restart.sh; what durable prints is for that script as well.
seconds=60 # as long as restart.sh kills
stty 115200 <&1
mkdir -p /mnt/durable /small
# A mount of its own, with writes so small that an fsync takes several, and a COMMIT.
nfsmount 10.0.2.2:/export /small vers=3,tcp,nolock,wsize=8192 || exit 1
/guest/durable /small/durable fsync stable file name &
durable=$!

cd /mnt && mkdir writer && cd writer || exit 1
head -c 8388608 /dev/urandom >/tmp/reference
errors=0 rounds=0
bad() { errors=$((errors + 1)); echo "round $rounds: $1 failed"; }
exec 3>log
end=$(($(date +%s) + seconds))
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
touch /tmp/stop
wait $durable || bad durable
sync
echo 3 >/proc/sys/vm/drop_caches
/guest/durable --check /mnt/durable /tmp/said || bad "what durable wrote"
for copy in copy.*; do cmp /tmp/reference "$copy" || bad "comparing $copy"; done
[ "$(wc -l <log)" = $rounds ] || bad "log: $(wc -l <log) lines"
[ "$(ls | wc -l)" = 5 ] || bad "listing: $(ls)"
cd .. && rm -rf writer || bad "removing all"
commits=$(awk '/ mounted on \/small / { on = 1 } on && $1 == "COMMIT:" { print $2; exit }' /proc/self/mountstats)
echo "writer: $rounds rounds, $errors errors, $commits commits"
[ $errors = 0 ] && [ $rounds -gt 3 ] && [ "$commits" -gt 3 ]
