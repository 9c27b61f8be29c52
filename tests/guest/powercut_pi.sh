#!/bin/sh
# Runs in the guest that is the Pi: works on /mnt, with its working directory and files open there all the time, until
# powercut.sh connects to port 9, then checks that nothing went wrong. It must not notice that the router's power fails.
stty 115200 <&1
errors=0 rounds=0
bad() { errors=$((errors + 1)); echo "ERROR round $rounds: $1"; }
mkdir -p /small /mnt/durable /mnt/held/deep && cd /mnt/held/deep || exit 1
nfsmount 10.9.0.1:/export /small vers=3,tcp,nolock,wsize=8192 || exit 1
head -c 2000000 /dev/urandom >/tmp/long
head -c 1500000 /dev/urandom >/tmp/short
echo held >open
sync open
exec 3<>open

(nc -l -p 9 </dev/null >/dev/null; touch /tmp/stop) &
# shellcheck disable=SC2046
/guest/durable /small/durable $(cat /guest/modes) &
durable=$!
# The same file over and over, shorter and longer: no byte of what it was before may come back.
while [ ! -e /tmp/stop ]; do
    rounds=$((rounds + 1))
    cp /tmp/long copy && sync copy && cmp /tmp/long copy || bad "long copy"
    cp /tmp/short copy && sync copy && cmp /tmp/short copy || bad "short copy"
    sleep 0.2
done
wait $durable || bad durable
sync
echo 3 >/proc/sys/vm/drop_caches
cmp /tmp/short copy || bad "copy in the end"
echo more >&3 && [ "$(cat open | tr '\n' ' ')" = "more " ] || bad "the open file: $(cat open)"
[ "$(ls | tr '\n' ' ')" = "copy open " ] || bad "the working directory: $(ls)"
/guest/durable --check /mnt/durable /tmp/said || bad "what durable wrote"
echo "pi: $rounds rounds, $errors errors"
[ $errors = 0 ]
