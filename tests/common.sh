# Sourced by tests that need a static piboot for this machine. Wants say() and CARGO (default: cargo).

# current PROGRAM - built after the last change of what it is built from.
current() { [ -z "$(find src Cargo.toml Cargo.lock .cargo openwrt/build.sh -newer "$1" -type f -print -quit)" ]; }

# Sets PROGRAM: the musl build, or where that is not to be had, static glibc, which is a megabyte larger.
static_x86_64() {
    local target=x86_64-unknown-linux-musl
    PROGRAM=target/router/$target/release/piboot
    if [ -x "$PROGRAM" ] && current "$PROGRAM"; then return; fi
    if tests/setup.sh router && openwrt/build.sh $target; then return; fi
    say "NOTE: there is no musl build (see above): static glibc instead, about 1 MB larger on disk and in memory"
    target=x86_64-unknown-linux-gnu
    RUSTFLAGS='-C target-feature=+crt-static' "${CARGO:-cargo}" build --release --locked --package piboot \
        --target $target --target-dir target/router
    PROGRAM=target/router/$target/release/piboot
}
