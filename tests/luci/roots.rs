//! Snapshots of a Pi, the way back, and another Pi that begins as it.

use emupi::{Model, Pi};

use crate::desk::*;
use crate::luci::rights::Login;

#[test]
fn a_pi_goes_back_to_a_snapshot_and_another_begins_as_one() {
    let desk = Desk::new();
    desk.import();
    let (lion, tiger) = (lion(), Pi::new(Model::Pi4B, SERIAL + 1));
    desk.enroll(&lion, "lion");
    let root = |id: &str, path: &str| desk.router.path("/mnt/ssd/piboot/devices").join(id).join("root").join(path);
    let note = root("lion", "home/pi/note");
    std::fs::write(&note, "one").unwrap();
    desk.router.offer(&desk.link, &tiger);

    let page = desk.open(OVERVIEW, Login::Admin);
    page.wait(&format!("document.querySelector('#piboot-pending tr[data-key=\"{}\"]')", tiger.mac));
    page.click_button("#piboot-devices tr[data-key=lion]", "Snapshots");
    page.wait_text("There is no snapshot of this Pi yet.");
    page.fill("#piboot-snapshot", "Not This");
    page.wait_text("A snapshot name has 1 to 63");
    page.click_button(".modal", "Take a snapshot");
    assert_eq!(desk.bridge.calls("snapshot"), 0, "what cannot be right is not sent");
    page.fill("#piboot-snapshot", "works");
    page.click_button(".modal", "Take a snapshot");
    page.wait("document.querySelector('#piboot-snapshots tr[data-key=works]')");
    page.wait("!document.querySelector('#piboot-snapshots tr[data-key=works] button').disabled");
    page.screenshot("snapshots");

    std::fs::write(&note, "two").unwrap();
    page.click_button("#piboot-snapshots tr[data-key=works]", "Roll back");
    page.wait_text("Everything on this Pi becomes what it was in the snapshot \"works\".");
    page.click_button(".modal", "Cancel");
    page.wait("document.querySelector('#piboot-snapshots tr[data-key=works]')");
    assert_eq!(std::fs::read_to_string(&note).unwrap(), "two");
    page.click_button("#piboot-snapshots tr[data-key=works]", "Roll back");
    page.click_button(".modal", "Roll back");
    page.wait_text("done: lion is rolled back to snapshot works");
    page.wait("document.querySelector('#piboot-snapshots tr[data-key=before-rollback]')");
    assert_eq!(std::fs::read_to_string(&note).unwrap(), "one");
    page.screenshot("rolled-back");
    page.click_button("#piboot-snapshots tr[data-key=before-rollback]", "Remove");
    page.click_button(".modal", "Remove");
    page.wait("document.querySelector('#piboot-snapshots tr[data-key=works]') && !document.querySelector('#piboot-snapshots tr[data-key=before-rollback]')");

    page.click_button("#piboot-snapshots tr[data-key=works]", "Clone");
    page.wait(&format!("document.querySelector('#piboot-mac').value == '{}'", tiger.mac));
    page.wait("document.querySelector('#piboot-origin').value == 'works'");
    page.fill("#piboot-hostname", "lion");
    page.wait_text("Another Pi has this name.");
    page.fill("#piboot-hostname", "tiger");
    page.screenshot("clone");
    page.click_button(".modal", "Clone");
    page.wait_text("It can boot now");
    page.click_button(".modal", "Close");
    page.wait("document.querySelector('#piboot-devices tr[data-key=tiger]')");
    assert_eq!(std::fs::read_to_string(root("tiger", "home/pi/note")).unwrap(), "one");
    assert_eq!(std::fs::read_to_string(root("tiger", "etc/hostname")).unwrap(), "tiger\n");
    assert!(desk.router.uci(&["export", "piboot"]).contains("clone_of 'lion@works'"));
    page.assert_no_errors(&[]);
}
