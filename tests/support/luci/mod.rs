//! LuCI's side of a router for tests: what uhttpd does between a browser and ubus, and a browser.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_types,
    dead_code,
    unreachable_pub,
    reason = "helpers of tests"
)]

pub mod bridge;
pub mod browser;
mod cgi;
mod http;
mod page;
pub mod rights;
mod uci;

pub use bridge::Bridge;
pub use browser::{Browser, Page};

/// Where the pages are.
pub const APP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/luci-app");
