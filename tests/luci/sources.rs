//! Images from wherever they are: this computer, the web, a list, a disk.

use std::net::TcpListener;
use std::path::PathBuf;

use serde_json::json;

use crate::desk::*;
use crate::luci::Page;
use crate::luci::rights::Login;
use crate::support::image;
use crate::support::web::Web;

/// A web server on the router's network.
fn web(desk: &Desk) -> Web {
    let address = (desk.router.net.address(), 0);
    Web::start(desk.router.net.enter(|| TcpListener::bind(address).unwrap()).unwrap())
}

/// A file of the computer with the browser.
fn file_here(desk: &Desk) -> PathBuf {
    image::small(desk.router.net.scratch())
}

fn shown(page: &Page, name: &str) -> String {
    page.wait(&format!("document.querySelector('#piboot-images tr[data-key=\"{name}\"]')"));
    rows(page, "#piboot-images").into_iter().find(|row| row.starts_with(name)).unwrap()
}

#[test]
fn a_file_of_this_computer_is_uploaded_whatever_breaks_on_the_way() {
    let desk = Desk::new();
    let file = file_here(&desk);
    let page = desk.open(IMAGES, Login::Admin);
    page.click_button("#piboot-import", "Import");
    page.wait_text("Choose a file.");
    assert_eq!(desk.bridge.uploads(), 0);
    page.choose_file("#piboot-upload", &file);
    page.wait("document.querySelector('#piboot-name').value == 'small'");
    page.screenshot("upload-chosen");
    page.eval("document.querySelector('#piboot-from').focus()");

    // Two of the requests do not get through: one is asked again, the other sent again.
    desk.bridge.fail_uploads(2);
    page.click_button("#piboot-import", "Import");
    page.wait_text("It is tried again.");
    page.screenshot("upload");
    let row = shown(&page, "small");
    assert!(row.contains("Debian GNU/Linux 12 (bookworm)") && row.contains("small.img"), "{row}");
    page.wait("!document.querySelector('.piboot-upload')");
    assert!(desk.bridge.uploads() > 20, "{} requests", desk.bridge.uploads());

    // It is what a file on the router gives.
    desk.router.piboot(&["image", "import", file.to_str().unwrap(), "--name", "other"]).unwrap();
    let images = desk.router.json(&["images"]);
    assert_eq!(images["images"][0]["sha256"], images["images"][1]["sha256"]);
    assert_eq!(images["images"][0]["root_entries"], images["images"][1]["root_entries"]);

    // No second of the same name: the agent's words, where it was asked.
    page.choose_file("#piboot-upload", &file);
    page.click_button("#piboot-import", "Import");
    page.wait("document.querySelector('#piboot-import .alert-message')?.innerText.includes('the name small')");
    // A request that broke off, and one that was refused.
    page.assert_no_errors(&["ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET", "409"]);
}

#[test]
fn an_upload_is_cancelled_by_clicking_and_leaves_nothing() {
    let desk = Desk::new();
    let file = file_here(&desk);
    let page = desk.open(IMAGES, Login::Admin);
    page.choose_file("#piboot-upload", &file);
    // So that it does not end before it is cancelled: what breaks off is waited for.
    page.wait("document.querySelector('#piboot-name').value == 'small'");
    desk.bridge.fail_uploads(1000);
    page.click_button("#piboot-import", "Import");
    page.wait_text("It is tried again.");
    page.screenshot("upload-broken");
    page.click_button(".piboot-upload", "Cancel");
    page.wait("!document.querySelector('.piboot-upload')");
    desk.router.wait_until("the end of the job", || desk.router.json(&["status"])["jobs"] == 0);
    let jobs = desk.router.json(&["jobs"]);
    assert_eq!(jobs["jobs"][0]["state"], "cancelled", "{jobs:#}");
    let left =
        |directory: &str| std::fs::read_dir(desk.router.path("/mnt/ssd/piboot").join(directory)).unwrap().count();
    assert_eq!((left("images"), left("scratch")), (0, 0));
    page.wait_text("There is no image yet.");
}

#[test]
fn an_image_comes_from_the_web_by_address_or_from_the_list() {
    let desk = Desk::new();
    let bytes = std::fs::read(file_here(&desk)).unwrap();
    let web = web(&desk);
    let address = web.serve("/small.img", bytes.clone());
    let list = include_str!("../data/os_list.json").replace(
        "https://downloads.raspberrypi.com/raspios_lite_armhf/images/raspios_lite_armhf-2026-06-19/2026-06-18-raspios-trixie-armhf-lite.img.xz",
        &address,
    );
    // The size in the list is wrong for this one.
    let list = web.serve("/list.json", list.replace("549086704", &bytes.len().to_string()).into_bytes());
    desk.router.uci(&["set", &format!("piboot.main.os_list={list}")]);
    desk.router.commit_and_reload("piboot");
    desk.router.wait_until("the agent to read it", || desk.router.said("read again") > 0);

    let page = desk.open(IMAGES, Login::Admin);
    page.choose("#piboot-from", "address");
    page.fill("#piboot-url", "ftp://x/y");
    page.wait_text("Give an address that begins with");
    page.fill("#piboot-url", &address);
    page.wait("document.querySelector('#piboot-name').value == 'small'");
    page.fill("#piboot-sha256", &"0".repeat(64));
    page.click_button("#piboot-import", "Import");
    page.wait("document.querySelector('#piboot-jobs .alert-message.error')?.innerText.includes('this is not the file that was asked for')");
    page.screenshot("import-wrong-digest");

    // Cancelled in the middle, by clicking.
    web.hold_after("/small.img", Some(bytes.len() / 2));
    page.fill("#piboot-url", &address);
    page.fill("#piboot-name", "cancelled");
    page.click_button("#piboot-import", "Import");
    web.wait_held();
    let bar = "[...document.querySelectorAll('.piboot-job')].find(e => e.innerText.includes('\"cancelled\"'))";
    page.wait(&format!("/ %, .*MB/.test({bar}.innerText)"));
    page.screenshot("import-running");
    page.click_on(&format!("{bar}.querySelector('button')"));
    web.wait_left();
    page.wait(&format!("{bar}.innerText.includes('cancelled:')"));
    web.hold_after("/small.img", None);

    // From the list, for a board.
    page.choose("#piboot-from", "online");
    page.wait("document.querySelectorAll('#piboot-system option').length > 4");
    page.choose("#piboot-board", "Raspberry Pi 1");
    page.wait("document.querySelectorAll('#piboot-system option').length == 2");
    page.choose("#piboot-system", &address);
    page.wait_text("A port of Debian Trixie with no desktop environment");
    page.wait("document.querySelector('#piboot-name').value == 'small'");
    page.screenshot("import-online");
    page.click_button("#piboot-import", "Import");
    shown(&page, "small");
    page.assert_no_errors(&[]);

    // A list that cannot be had.
    desk.bridge.instead(
        "os_list",
        Some(json!({ "state": "failed", "why": "<b>no route</b>", "url": "http://x/", "boards": [], "systems": [] })),
    );
    let page = desk.open(IMAGES, Login::Admin);
    page.choose("#piboot-from", "online");
    page.wait_text("The list of systems cannot be had from http://x/: <b>no route</b>");
    desk.bridge.instead("os_list", None);
    page.click_button("#piboot-import", "Try again");
    page.wait("document.querySelectorAll('#piboot-system option').length > 4");
    page.assert_no_errors(&[]);
    desk.pictures("import", IMAGES, "#piboot-import button.important");
}

#[test]
fn a_disk_is_chosen_from_those_in_the_router() {
    let desk = Desk::new();
    let disk = |path: &str, is_data: bool, mounted: &[&str]| json!({ "path": path, "model": "<b>Card", "bytes": 31_914_983_424u64, "removable": true, "partitions": [], "mounted": mounted, "is_data": is_data });
    desk.bridge.instead("disks", Some(json!({ "disks": [] })));
    let page = desk.open(IMAGES, Login::Admin);
    page.choose("#piboot-from", "disk");
    page.wait_text("There is no other disk in the router.");
    let disks = [disk("/dev/sda", true, &["/mnt/ssd"]), disk("/dev/sdx", false, &["/mnt/card"])];
    desk.bridge.instead("disks", Some(json!({ "disks": disks })));
    page.click_button("#piboot-import", "Look again");
    page.wait("document.querySelectorAll('#piboot-disk option').length == 2");
    let label = page.eval("document.querySelector('#piboot-disk').options[1].text");
    assert_eq!(label, "/dev/sdx, <b>Card, 32 GB, mounted at /mnt/card");
    page.choose("#piboot-disk", "/dev/sdx");
    page.wait("document.querySelector('#piboot-name').value == 'card'");
    page.click_button("#piboot-import", "Import");
    page.wait("document.querySelector('#piboot-jobs .alert-message.error')?.innerText.includes('/dev/sdx')");
    page.assert_no_errors(&[]);
}

#[test]
fn who_may_not_import_gets_no_upload_through() {
    let desk = Desk::new();
    let page = desk.open(IMAGES, Login::Reader);
    page.wait_text("There is no image yet.");
    assert!(!page.text("body").contains("Import an image"));
    let post = |session: &str, query: &str| {
        let answer = page.eval(&format!(
            "fetch('/cgi-bin/piboot-upload?{query}', {{ method: 'POST', body: 'x', headers: {session} }}).then(async r => [ r.status, (await r.json()).error?.code ])"
        ));
        (answer[0].as_u64().unwrap(), answer[1].as_str().unwrap_or_default().to_owned())
    };
    let bearer = |session: &str| json!({ "Authorization": format!("Bearer {session}") }).to_string();
    let query = "name=x&size=7";
    let denied = (403, "denied".to_owned());
    // A session that may read only, one that nobody knows, none, and one in a cookie, which a browser would send for anybody.
    assert_eq!(post(&bearer(&Login::Reader.session()), query), denied);
    assert_eq!(post(&bearer(&Login::Stranger.session()), query), denied);
    assert_eq!(post(&bearer(&"7".repeat(32)), query), denied);
    assert_eq!(post("{}", query), denied);
    page.eval(&format!("document.cookie = 'sysauth={}; path=/'", Login::Admin.session()));
    assert_eq!(post("{}", query), denied);
    assert_eq!(post("{}", &format!("{query}&session={}", Login::Admin.session())), denied);
    assert_eq!(post(&bearer(&Login::Admin.session()), "job=1&offset=x"), (400, "invalid_argument".to_owned()));
    assert_eq!(post(&bearer(&Login::Admin.session()), "job=1&offset=0"), (409, "failed".to_owned()));
    desk.bridge.deny("image_import");
    assert_eq!(post(&bearer(&Login::Admin.session()), query), denied);
    let jobs = desk.router.json(&["jobs"]);
    assert_eq!(jobs["jobs"], json!([]));
}

#[test]
fn an_upload_says_so_when_session_or_agent_are_gone() {
    let mut desk = Desk::new();
    let file = file_here(&desk);
    {
        let page = desk.open(IMAGES, Login::Admin);
        page.choose_file("#piboot-upload", &file);
        page.eval("L.env.sessionid = 'f'.repeat(32)");
        page.click_button("#piboot-import", "Import");
        page.wait("document.querySelector('#piboot-import .alert-message')?.innerText.includes('the session has expired: log in again')");
        page.screenshot("upload-expired");
    }
    desk.router.kill_agent();
    {
        let page = desk.browser.open(1200, 900);
        page.go(&desk.bridge.page(IMAGES, Login::Admin, "light"));
        page.wait_text("The agent is not running.");
        let said = page.eval(&format!(
            "fetch('/cgi-bin/piboot-upload?name=x&size=7', {{ method: 'POST', headers: {{ Authorization: 'Bearer {}' }} }}).then(async r => r.status + (await r.json()).error.message)",
            Login::Admin.session()
        ));
        assert_eq!(said, "503the agent is not running: start it, and begin again");
    }
}
