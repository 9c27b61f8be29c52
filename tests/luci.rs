//! The pages in LuCI, in a browser, with the real agent behind them.
//!
//! The client is a double of LuCI's (`tests/luci/double`); `LUCI=/path/to/a/checkout/of/luci` takes LuCI's own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_types, reason = "test code")]

mod support;

#[path = "support/openwrt/mod.rs"]
mod openwrt;

#[path = "support/luci/mod.rs"]
mod luci;

use emupi::{Model, Pi};
use luci::rights::Login;
use luci::{Bridge, Browser, Page};
use openwrt::OpenWrt;
use serde_json::json;
use support::image;

const OVERVIEW: &str = "admin/services/piboot/overview";

#[test]
fn first_light() {
    let Some(browser) = Browser::start() else { return };
    let mut router = OpenWrt::new();
    router.start_agent();
    let bridge = Bridge::start(&router);
    let page = browser.open(1200, 900);
    page.go(&bridge.page(OVERVIEW, Login::Admin, "light"));
    page.wait_text("Waiting to be enrolled");
    page.screenshot("first");
    page.assert_no_errors(&[]);
}
