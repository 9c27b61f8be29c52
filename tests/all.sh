#!/bin/bash
# make test, after the linters: everything, with the builds for routers and the demo in what is left of the processors meanwhile.
#
#   tests/all.sh TARGET...     the routers' targets to be tested
set -euo pipefail
cd "$(dirname "$0")/.."

log=target/builds.log
export CARGO=${CARGO:-cargo}
say() { printf 'test: %s\n' "$*" >&2; }

# Now, because packages are installed one at a time.
tests/setup.sh router
tests/setup.sh luci
mkdir -p target
say "building for routers and the demo meanwhile: $log"
# shellcheck disable=SC2016
setsid nice -n 19 bash -c 'openwrt/build.sh x86_64 "$@" && "$CARGO" build --locked --release -p piboot -p piboot-demo' \
    builds "$@" >$log 2>&1 &
builds=$!
trap 'kill -- -$builds 2>/dev/null || true' EXIT

make unit luci guest
say "waiting for the builds"
wait $builds || { cat $log >&2; exit 1; }
trap - EXIT
make packages powercut router-test
tests/demo/run.sh virt
