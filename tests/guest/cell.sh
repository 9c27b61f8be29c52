# The server under test and its guest, in namespaces of their own: ports do not matter, and whatever is left running
# ends with the script. Needs root. Sourced by a script that defines
#   prepare   (optional) outside, where the network is: what the test needs, into $work; with the arguments of the script
#   inside    the test; its status is the script's
# and ends with: cell "$@"
# shellcheck shell=bash

GUEST=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$GUEST/../images/common.sh"
nfsd=$GUEST/../../target/debug/examples/nfsd
work='' server=''

cell() {
    if [ "${1:-}" = --inside ]; then
        work=$2
        shift 2
        ip link set lo up
        inside "$@"
        return
    fi
    (cd "$GUEST/../.." && cargo build --quiet --locked --example nfsd)
    "$GUEST/x86.sh" >/dev/null
    work=$(mktemp -d)
    trap 'rm -rf --one-file-system "$work"' EXIT
    mkdir "$work/export"
    if declare -F prepare >/dev/null; then prepare "$@"; fi
    unshare --net --mount --pid --fork --mount-proc --kill-child bash "$0" --inside "$work" "$@"
}

# lay_over - mounts layers on $work/export, over $work/lower, as roots by overlay are: each file of the lower layer has
# one more link.
lay_over() {
    if [ ! -d "$work/held" ]; then
        cp -al "$work/lower" "$work/held"
        mkdir "$work/upper" "$work/work"
        chmod --reference="$work/lower" "$work/upper"
    fi
    mount -t overlay -o "nosuid,nodev,lowerdir=$work/lower,upperdir=$work/upper,workdir=$work/work" \
        -o index=on,nfs_export=on,redirect_dir=on,metacopy=off piboot "$work/export"
}

# start_server [OPTION...] - nfsd on $work/export, always with the same key; without options where clients look for it.
# Returns when it serves; $work/log is what it says.
start_server() {
    [ $# -gt 0 ] || set -- --portmap 111
    : >"$work/log"
    "$nfsd" --dir "$work/export" --key "$work/key" "$@" 2>"$work/log" &
    server=$!
    until grep -q '^ready' "$work/log"; do
        kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
        sleep 0.1
    done
}

kill_server() {
    kill -9 "$server"
    wait "$server" 2>/dev/null || true
}
