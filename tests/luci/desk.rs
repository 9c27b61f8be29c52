//! A router with LuCI, and a browser before it.

use std::path::PathBuf;

use emupi::{Link, Model, Pi};

use crate::luci::rights::Login;
use crate::luci::{self, Bridge, Browser, Page};
use crate::openwrt::OpenWrt;
use crate::support::image;

pub const OVERVIEW: &str = "admin/services/piboot/overview";
pub const IMAGES: &str = "admin/services/piboot/images";
pub const BOOTS: &str = "admin/services/piboot/boots";
pub const SETTINGS: &str = "admin/services/piboot/settings";
pub const SERIAL: u64 = 0x1000_0000_5b15_4510;
pub const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5QmDtsYk2mJYtwFsNDVvxRCQQ5ZQDbCk7l8NvVgBHr me@home";

/// A router whose agent runs, with LuCI and a browser before it.
pub struct Desk {
    pub browser: Browser,
    pub bridge: Bridge,
    pub link: Link,
    pub router: OpenWrt,
}

impl Desk {
    pub fn new() -> Self {
        let browser = Browser::start();
        let mut router = OpenWrt::new();
        router.start_agent();
        let bridge = Bridge::start(&router);
        let link = router.net.tap_link().unwrap();
        Self { browser, bridge, link, router }
    }

    pub fn open(&self, path: &str, login: Login) -> Page<'_> {
        let page = self.browser.open(1200, 900);
        page.go(&self.address(path, login, "light"));
        page.wait("document.querySelector('#view h2')");
        page
    }

    fn address(&self, path: &str, login: Login, scheme: &str) -> String {
        let (path, fragment) = path.split_once('#').unwrap_or((path, ""));
        format!("{}#{fragment}", self.bridge.page(path, login, scheme))
    }

    /// Pictures of a page, for people, once an element is there: light, dark, and on a phone, where nothing is too wide.
    pub fn pictures(&self, name: &str, path: &str, element: &str) {
        for (scheme, width, phone) in [("light", 1200, false), ("dark", 1200, false), ("phone", 390, true)] {
            let page = self.browser.open(width, 900);
            page.resize(width, 900, phone);
            page.go(&self.address(path, Login::Admin, scheme));
            page.wait(&format!("document.querySelector('{element}')?.offsetParent"));
            let too_wide = page.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth");
            page.screenshot(&format!("{name}-{scheme}"));
            assert!(
                !luci::bridge::is_real() || too_wide.as_i64().unwrap() <= 0,
                "{name} is {too_wide} pixels too wide ({scheme})"
            );
            page.assert_no_errors(&[]);
        }
    }

    /// An image file where the agent sees it, by its path there.
    pub fn image_file(&self) -> PathBuf {
        let made = image::small(&self.router.net.scratch().join("mnt/ssd"));
        PathBuf::from("/mnt/ssd").join(made.file_name().unwrap())
    }

    pub fn import(&self) {
        let file = self.image_file();
        let said = self.router.piboot(&["image", "import", file.to_str().unwrap(), "--name", "small"]);
        assert!(said.is_ok(), "{said:?}");
    }

    /// Enrols a Pi, and waits until dnsmasq knows it: it is away for a moment.
    pub fn enroll(&self, pi: &Pi, hostname: &str) {
        let known = || self.router.said("dnsmasq has the boot options");
        let before = known();
        let mac = pi.mac.to_string();
        let said = self.router.piboot(&["enroll", "--mac", &mac, "--hostname", hostname, "--image", "small"]);
        assert!(said.is_ok(), "{said:?}");
        self.router.wait_until("the boot options", || known() > before);
        self.router.procd.wait_until_settled();
    }
}

pub fn lion() -> Pi {
    Pi::new(Model::Pi4B, SERIAL)
}

/// The rows of a table as text.
pub fn rows(page: &Page, within: &str) -> Vec<String> {
    let rows = page.eval(&format!(
        "[...document.querySelectorAll('{within} tr[data-key]')].map(row => [...row.cells].map(cell => cell.innerText.trim()).join(' | '))"
    ));
    serde_json::from_value(rows).unwrap()
}
