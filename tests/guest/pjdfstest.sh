#!/bin/bash
# pjdfstest, the conformance tests for POSIX file systems, on an NFS mount in the guest. What fails has to be exactly
# what pjdfstest.expected lists. With the argument overlay the server's file system is an overlay, and
# pjdfstest.overlay.expected counts as well.
set -euo pipefail
. "$(dirname "$0")/cell.sh"

VERSION=0.2.2
# Fewer than these 382 and two would mean that tests were left out, for a feature or a user that is not there.
AT_LEAST=384

# Static: the guest has nothing but busybox. With a target of its own cargo leaves build scripts out of that.
build() {
    RUSTFLAGS='-C target-feature=+crt-static' with_ticker "building pjdfstest $VERSION" \
        cargo install --quiet --locked --target x86_64-unknown-linux-gnu --root "$1" --version "=$VERSION" pjdfstest
}

expected() { awk '!/^#/ && NF { print $1 }' "$GUEST/pjdfstest.expected" ${1:+"$GUEST/pjdfstest.$1.expected"}; }

prepare() {
    local name
    name=pjdfstest-$(key <(echo "$VERSION" && declare -f build))
    once "$name" build
    cp "$CACHE/$name/bin/pjdfstest" "$work/"
    cat >"$work/config.toml" <<-CONFIG
	[features]
	utime_now = {}
	utimensat = {}
	rename_ctime = {}
	posix_fallocate = {}
	[settings]
	naptime = 0.01
	expected_failures = [$(expected "$@" | sed 's/.*/"&",/' | tr '\n' ' ')]
	CONFIG
    # The second file system is the guest's own memory.
    cat >"$work/script" <<-'SCRIPT'
	id=3000
	for user in tests pjdfstest; do
	    id=$((id + 1))
	    echo "$user:x:$id:$id::/:/bin/sh" >>/etc/passwd
	    echo "$user:x:$id:" >>/etc/group
	done
	echo nobody:x:65534:65534::/:/bin/sh >>/etc/passwd
	echo nobody:x:65534: >>/etc/group
	mkdir /second && mount -t tmpfs tmpfs /second || exit
	NO_COLOR=1 exec /guest/pjdfstest -c /guest/config.toml -p /mnt -s /second
	SCRIPT
}

inside() {
    local status=0 failed skipped passed foreseen
    if [ "${1:-}" = overlay ]; then mkdir "$work/lower" && chmod 755 "$work/lower" && lay_over; fi
    chmod 755 "$work/export"
    start_server
    "$GUEST/run.sh" --mount 10.0.2.2:/export "$work/script" "$work/pjdfstest" "$work/config.toml" >"$work/out" ||
        status=$?
    grep -A 4 -e ' FAILED$' -e ' PASSED UNEXPECTEDLY$' "$work/out" || true
    # Summary: 0 failed, 14 skipped, 382 passed, 2 expected failures, 398 total
    read -r failed skipped passed foreseen < <(awk '/^Summary:/ { print $2, $4, $6, $8 }' "$work/out") ||
        { tail -n 5 "$work/out"; return 1; }
    echo "pjdfstest: $passed passed, $foreseen failed as expected, $failed failed otherwise, $skipped skipped"
    [ "$foreseen" = "$(expected "$@" | wc -l)" ] ||
        { say "pjdfstest.expected names tests that do not exist or do pass"; return 1; }
    [ $((passed + foreseen + failed)) -ge $AT_LEAST ] || { say "fewer than $AT_LEAST tests ran"; return 1; }
    return "$status"
}

cell "$@"
