# Everything a developer or a newcomer runs. On a fresh Debian 12, as root: `make demo`, `make test`.
#
#   make demo                 boot an emulated Raspberry Pi from the agent and show its timeline
#   make demo BOARD=raspi3b   the same on QEMU's Raspberry Pi 3B, with a small root (slow network)
#   make demo ROOT=ephemeral  a root that keeps what is changed in memory, booted twice
#   make test                 all tests, and the demo
#   make luci                 the pages in LuCI, in a browser, and their texts; part of make test
#   make screenshots LUCI=…   the pictures of README, taken in LuCI itself
#   make guest                the NFS server with the Linux kernel's client, in QEMU; part of make test
#   make powercut [JOBS_CUTS=3]   the router's power fails while it imports and enrols, in a QEMU guest; part of make test
#   make soak [CUTS=5]        the router's power fails under a Pi that writes, in two QEMU guests; minutes
#   make bench [AREA=tftp]    ratios against named peers, measured in the same run
#   make size                 size of the static binaries and packages, memory of the idle agent
#   make router [TARGET=…]    static binary for routers: aarch64 armv7hf mipsel riscv64gc x86_64 (the default)
#   make router-test [TARGETS=…]   binaries for routers, built and at work under emulation; part of make test
#   make packages             build the OpenWrt packages for x86_64 and look at them; part of make test
#   make fmt lint             what a change has to pass

BOARD ?= virt
ROOT ?= auto
AREA ?=
TARGET ?= x86_64
CUTS ?= 5
JOBS_CUTS ?= 3
TARGETS ?= aarch64 mipsel
GUEST_TESTS ?= nfs quota two_guests mounts pjdfstest root overlay restart external
CARGO := $(shell command -v cargo || echo /usr/bin/cargo)

.PHONY: demo test unit luci screenshots guest powercut soak bench size router router-test packages fmt lint setup clean
demo: setup
	@CARGO=$(CARGO) tests/demo/run.sh $(BOARD) $(ROOT)

test: setup lint
	@CARGO=$(CARGO) tests/all.sh $(TARGETS)

# The Linux kernel's own NFS client, in QEMU.
guest: setup
	@PATH="$(dir $(CARGO)):$$PATH" tests/guest/all.sh $(GUEST_TESTS)

soak: setup
	@PATH="$(dir $(CARGO)):$$PATH" tests/guest/powercut.sh $(CUTS)

powercut: setup
	@PATH="$(dir $(CARGO)):$$PATH" tests/guest/powercut_jobs.sh $(JOBS_CUTS)

unit: setup
	$(CARGO) test --locked --workspace

# `make luci LUCI=/path/to/a/checkout/of/luci` takes LuCI's own client instead of the double.
luci: setup
	@tests/setup.sh luci
	node --test --test-reporter=spec tests/luci/modules.test.mjs
	node tests/luci/translations.mjs check
	$(CARGO) test --locked --test luci -- --show-output

# README's pictures, from the running product.
screenshots: setup
	@tests/setup.sh luci
	LUCI=$(abspath $(LUCI)) $(CARGO) test --locked --test luci -- --ignored --show-output pictures_of_the_readme

bench: setup
	@tests/setup.sh bench
	$(CARGO) build --locked --release -p piboot -p piboot-bench
	target/release/piboot-bench $(AREA)

size: setup
	@CARGO=$(CARGO) tests/size.sh

router:
	@tests/setup.sh router
	@openwrt/build.sh $(TARGET)

# 64 and 32 bits, one of them a machine that nobody here has: about two minutes each to build.
router-test: setup
	@tests/router.sh $(TARGETS)

# What is in a package, and its scripts under busybox ash.
packages: setup
	@CARGO=$(CARGO) tests/package.sh

fmt:
	$(CARGO) fmt --all

# Debian's own cargo comes without the two; everything else works with it.
lint: setup
	@if $(CARGO) fmt --version >/dev/null 2>&1; then $(CARGO) fmt --all --check; else echo "lint: no rustfmt here, left out"; fi
	@if $(CARGO) clippy --version >/dev/null 2>&1; then $(CARGO) clippy --locked --workspace --all-targets --test luci -- -D warnings; \
	else echo "lint: no clippy here, left out"; fi

setup:
	@tests/setup.sh

clean:
	$(CARGO) clean
