//! The pictures of README, taken from the running product: `make screenshots LUCI=/path/to/a/checkout/of/luci`.

use std::path::Path;

use emupi::{BootOptions, Model, Pi};

use crate::desk::*;
use crate::luci::rights::Login;
use crate::luci::{Page, bridge};
use crate::openwrt::LAN;
use crate::support::{self, nfs};

/// Wide enough for every column, narrow enough to be read in README.
const WIDTH: u32 = 1100;

#[test]
#[ignore = "writes files of the project: `make screenshots`"]
fn pictures_of_the_readme() {
    assert!(bridge::is_real(), "README shows LuCI as it is: name a checkout of it, LUCI=/path");
    let desk = Desk::new();
    let (router, link) = (&desk.router, &desk.link);
    desk.import();
    let (lion, tiger) = (lion(), Pi::new(Model::Pi5, SERIAL + 0x23));
    for (pi, name) in
        [(&lion, "running-lion"), (&tiger, "lazy-tiger"), (&Pi::new(Model::Pi4B, SERIAL + 7), "new-panda")]
    {
        desk.enroll(pi, name);
    }
    // Its cable is plugged in now, and it waits as long as a real one does.
    let cable = router.net.tap_link().unwrap();
    let booted = emupi::boot(&lion, &cable, &BootOptions::default(), None).unwrap();
    assert!(booted.ready().is_some(), "{}", booted.outcome);
    let host = router.net.add_host(lion.mac, booted.ip.unwrap()).unwrap();
    nfs::start(LAN, &host, "/running_lion/root");
    std::fs::remove_file(router.path("/mnt/ssd/piboot/devices/lazy_tiger/boot/config.txt")).unwrap();
    assert!(!emupi::boot(&tiger, link, &support::hurried(), None).unwrap().ok());
    let stranger = Pi::new(Model::Pi3BPlus, SERIAL + 0x51);
    for pi in [&stranger, &Pi::new(Model::Pi5, SERIAL + 0x60)] {
        router.offer(link, pi);
    }

    let page = open(&desk, OVERVIEW);
    page.wait("document.querySelector('#piboot-devices tr[data-key=running_lion]').innerText.toLowerCase().includes('running')");
    page.wait(
        "document.querySelector('#piboot-devices tr[data-key=lazy_tiger]').innerText.toLowerCase().includes('stuck')",
    );
    save(&page, "overview");
    page.click_button(&format!("#piboot-pending tr[data-key=\"{}\"]", stranger.mac), "Enrol");
    page.wait("document.querySelector('#piboot-hostname')");
    page.fill("#piboot-hostname", "happy-otter");
    page.fill("#piboot-keys", KEY);
    save(&page, "enrol");
    let boot = &router.json(&["boots", "lazy_tiger"])["boots"][0]["id"];
    let page = open(&desk, &format!("{BOOTS}#boot={boot}"));
    page.wait("document.querySelector('.piboot-finding')");
    save(&page, "stuck");
}

fn open<'a>(desk: &'a Desk, path: &str) -> Page<'a> {
    let page = desk.open(path, Login::Admin);
    page.resize(WIDTH, 700, false);
    page
}

fn save(page: &Page<'_>, name: &str) {
    let height = page.eval("document.documentElement.scrollHeight").as_u64().unwrap();
    page.resize(WIDTH, u32::try_from(height).unwrap(), false);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures");
    std::fs::create_dir_all(&directory).unwrap();
    page.save(&directory.join(format!("{name}.png")));
}
