#!/bin/bash
# make demo: builds the program and, beside it, the image; then boots a Pi from them.
set -uo pipefail
cd "$(dirname "$0")/../.."
board=${1:-virt} root=${2:-auto}
logs=$PWD/target/demo-logs
case $board in
    virt) variant= ;;
    raspi3b) variant=slim ;;
    *) echo "demo: FAILED in stage 'set-up': '$board' is no board: virt or raspi3b"; exit 1 ;;
esac
mkdir -p "$logs"

fail() {
    echo "demo: FAILED in stage '$1': $2"
    echo "demo: logs are in $logs"
    exit 1
}

echo "==> build and image: the program is compiled while the image is made (both are kept for the next time)"
# shellcheck disable=SC2086 # no variant is no argument
tests/images/real.sh $variant >"$logs/image-path" 2> >(tee "$logs/image.log" | sed -u 's/^/image: /' >&2) &
image=$!
"${CARGO:-cargo}" build --locked --release -p piboot -p piboot-demo 2>&1 | tee "$logs/build.log" | sed -u 's/^/build: /'
[ "${PIPESTATUS[0]}" = 0 ] || { kill "$image"; fail build "cargo ended with an error, see build.log"; }
wait "$image" || fail image "tests/images/real.sh $variant ended with an error, see image.log"
exec target/release/piboot-demo --board "$board" --root "$root" --piboot target/release/piboot \
    --image "$(tail -n 1 "$logs/image-path")" --logs "$logs"
