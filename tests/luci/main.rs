//! The pages in LuCI, in a browser, with the real agent behind them.
//!
//! The client is a double of LuCI's (`double/`); `LUCI=/path/to/a/checkout/of/luci` takes LuCI's own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_types,
    clippy::print_stderr,
    unreachable_pub,
    reason = "test code"
)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/openwrt/mod.rs"]
mod openwrt;

#[path = "../support/luci/mod.rs"]
mod luci;

mod acts;
mod desk;
mod devices;
mod failures;
mod looks;
mod pictures;
mod roots;
mod safety;
mod sources;
mod story;
