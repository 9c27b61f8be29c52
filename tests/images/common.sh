# What the image builders share: the cache, its keys and its lock. Sourced.
# shellcheck shell=bash

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${PIBOOT_CACHE:-$HOME/.cache/piboot}

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
die() { say "error: $*"; exit 1; }

# key FILE... - a short hash of the inputs: an edited recipe never reuses what the old one built.
key() { cat "$@" | sha256sum | cut -c1-12; }

# once NAME COMMAND... - runs the command with the path of a new directory, unless $CACHE/NAME is there, and
# renames that directory to $CACHE/NAME: what has the name is complete. A second builder waits for the first.
once() {
    local name=$1 work
    shift
    [ ! -e "$CACHE/$name" ] || return 0
    mkdir -p "$CACHE"
    (
        # The descriptor is closed for the command's children (9>&-): a stray one must not keep the lock.
        flock -n 9 || { say "waiting for another builder of $name"; flock 9; }
        [ ! -e "$CACHE/$name" ] || exit 0
        rm -rf --one-file-system "$CACHE/$name".tmp.*
        work=$(mktemp -d "$CACHE/$name.tmp.XXXXXX")
        trap 'rm -rf --one-file-system "$work"' EXIT
        trap 'exit 130' INT TERM
        chmod 755 "$work"
        "$@" "$work" 9>&-
        mv "$work" "$CACHE/$name"
    ) 9>"$CACHE/.$name.lock"
}

# with_ticker MESSAGE COMMAND... - says every 15 seconds that a silent step is still at work.
with_ticker() {
    local message=$1 ticker started=$SECONDS status=0
    shift
    say "$message"
    # Reads from a pipe that stays empty: no sleep of its own outlives it and holds the caller's output open.
    (
        exec 8<> <(:) 9>&- >&2
        while kill -0 $$ 2>/dev/null; do
            read -rt 15 -u 8 || [ $? -gt 128 ] || exit 0
            say "$message: $((SECONDS - started)) s"
        done
    ) &
    ticker=$!
    "$@" || status=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    return "$status"
}
