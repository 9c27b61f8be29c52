//! Whatever goes wrong is said, and gone when it is over.

use emupi::{Model, Pi};
use serde_json::json;

use crate::desk::*;
use crate::luci::Browser;
use crate::luci::rights::Login;

#[test]
fn whatever_fails_is_said_with_what_to_do() {
    let mut desk = Desk::new();
    let pi = lion();
    desk.import();
    desk.enroll(&pi, "lion");
    let bear = Pi::new(Model::Pi4B, SERIAL + 1);
    desk.router.offer(&desk.link, &bear);

    // The agent's own words, in the dialog; and the job's.
    let ghost = json!({ "images": [{ "name": "ghost", "os": null, "architecture": null, "source": "x", "imported_at": 0, "root_bytes": 1, "boot_bytes": 1, "used_by": [] }] });
    desk.bridge.instead("images", Some(ghost));
    {
        let page = desk.open(OVERVIEW, Login::Admin);
        page.click_button("#piboot-pending", "Enrol");
        page.wait("document.querySelector('#piboot-image').value == 'ghost'");
        page.click_button(".modal", "Enrol");
        page.wait_text("there is no image 'ghost'");
        page.assert_no_errors(&[]);
    }
    desk.bridge.instead("images", None);
    {
        let page = desk.open(IMAGES, Login::Admin);
        page.choose("#piboot-from", "file");
        page.fill("#piboot-source", "/mnt/ssd/nothing.img");
        page.click_button("#piboot-import", "Import");
        page.wait(
            "document.querySelector('#piboot-jobs .alert-message.error')?.innerText.includes('/mnt/ssd/nothing.img')",
        );
        page.screenshot("failed-import");
        page.assert_no_errors(&[]);
    }

    // A job that is over by the time it is to be cancelled.
    let job = json!({ "id": 99, "kind": "import", "subject": "lost", "state": "running", "bytes": 1, "total_bytes": 4, "files": 0, "total_files": 0, "message": "", "queued_ms": 0, "finished_ms": 0 });
    desk.bridge.instead("jobs", Some(json!({ "jobs": [job] })));
    {
        let page = desk.open(IMAGES, Login::Admin);
        page.wait("document.querySelector('#piboot-jobs').innerText.includes('25 %')");
        page.click_button("#piboot-jobs", "Cancel");
        page.wait_text("there is no job 99");
        page.assert_no_errors(&[]);
    }
    desk.bridge.instead("jobs", None);

    // The agent goes, and comes back: what was there stays, dimmed.
    desk.router.kill_agent();
    {
        let page = desk.open(OVERVIEW, Login::Admin);
        page.wait_text("The agent is not running.");
        page.screenshot("stopped");
        desk.router.uci(&["set", "piboot.main.enabled=0"]);
        desk.router.uci(&["commit", "piboot"]);
    }
    {
        let page = desk.open(OVERVIEW, Login::Admin);
        page.wait_text("Network boot is switched off. Switch it on in the settings.");
    }
    desk.router.uci(&["set", "piboot.main.enabled=1"]);
    desk.router.uci(&["commit", "piboot"]);
    desk.router.start_agent();
    {
        let page = desk.open(OVERVIEW, Login::Admin);
        page.wait("document.querySelector('#piboot-devices tr[data-key=lion]')");
        page.assert_no_errors(&[]);
        desk.bridge.expire(true);
        page.wait_text("Session expired");
        page.screenshot("expired");
    }
}

#[test]
fn a_page_that_is_open_gets_over_a_restart_of_the_agent() {
    let mut desk = Desk::new();
    desk.import();
    desk.enroll(&lion(), "lion");
    let browser = std::mem::replace(&mut desk.browser, Browser::start());
    let page = browser.open(1200, 900);
    page.go(&desk.bridge.page(OVERVIEW, Login::Admin, "light"));
    page.wait("document.querySelector('#piboot-devices tr[data-key=lion]')");
    page.eval("window.row = document.querySelector('#piboot-devices tr[data-key=lion]')");
    desk.router.kill_agent();
    page.wait_text("The agent is not running.");
    assert_eq!(rows(&page, "#piboot-devices").len(), 1);
    desk.router.start_agent();
    page.wait("!document.body.innerText.includes('The agent is not running.')");
    assert_eq!(page.eval("window.row === document.querySelector('#piboot-devices tr[data-key=lion]')"), true);
    page.assert_no_errors(&[]);
}
