#!/bin/bash
# make test, after the linters: everything, with the builds for routers in what is left of the processors meanwhile.
#
#   tests/all.sh TARGET...     the routers' targets to be tested
set -euo pipefail
cd "$(dirname "$0")/.."

log=target/router-builds.log
say() { printf 'test: %s\n' "$*" >&2; }

# Now, because packages are installed one at a time.
tests/setup.sh router
tests/setup.sh luci
mkdir -p target
say "building for routers meanwhile: $log"
setsid nice -n 19 openwrt/build.sh x86_64 "$@" >$log 2>&1 &
builds=$!
trap 'kill -- -$builds 2>/dev/null || true' EXIT

make unit luci guest
say "waiting for the builds for routers"
wait $builds || { cat $log >&2; exit 1; }
trap - EXIT
make packages powercut router-test
CARGO=${CARGO:-cargo} tests/demo/run.sh virt
