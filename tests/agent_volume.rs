//! The SSD comes late, goes, and is another one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;

use emupi::{Model, Pi};
use support::disk::Disk;
use support::{Router, image};

#[test]
fn a_disk_that_comes_late_or_goes_is_noticed_as_it_does() {
    let disk = Disk::new(192);
    disk.unmount();
    let mut router = Router::with_data_dir(disk.path().join("piboot"));
    router.start_agent();
    let is_serving = |router: &Router| router.json(&["status"])["nfs"]["serving"] == true;
    router.assert_finding(&["error: storage", "does not exist", "mount the SSD"]);
    assert!(!is_serving(&router), "nobody is told that its root does not exist");
    for _ in 0..3 {
        for is_there in [true, false] {
            let told = router.said("something was mounted or unmounted");
            if is_there {
                disk.mount("disk")
            } else {
                disk.unmount()
            }
            let is_missing = || router.findings().iter().any(|finding| finding.contains("error: storage"));
            router.wait_until("the change to be told", || router.said("something was mounted or unmounted") > told);
            router.wait_until("the change to be seen", || is_missing() != is_there);
            assert!(is_serving(&router));
        }
    }
}

#[test]
fn another_disk_in_the_same_place_is_held_back_until_it_is_accepted() {
    const WELL: &str = "nothing stands in the way of a boot";
    let disk = Disk::new(192);
    let mut router = Router::with_data_dir(disk.path().join("piboot"));
    let remembered = router.scratch("piboot.conf.volume");
    let written = || remembered.metadata().map(|meta| (meta.ino(), meta.ctime_nsec())).ok();
    let id = || fs::read_to_string(disk.path().join("piboot/volume.id")).unwrap();

    // The first disk is the right one, whatever it is.
    assert_eq!(written(), None);
    router.start_agent();
    router.start_dnsmasq();
    let (first_id, first) = (id(), written());
    assert!(first.is_some() && fs::read_to_string(&remembered).unwrap().contains(first_id.trim()));
    let file = image::small(router.net.scratch());
    router.import(&file, "small");
    let (pi, link) = (Pi::new(Model::Pi4B, 0x5b15_4510), router.net.tap_link().unwrap());
    router.enroll(&pi, "lion");
    router.assert_refused(&["volume", "accept"], &["no other disk"]);
    let mine = disk.path().join("piboot/devices/lion/root/home/pi/work");
    fs::write(&mine, "of years").unwrap();

    // So it is at the next start, and nothing is written again.
    router.stop_agent();
    router.start_agent();
    assert_eq!(router.findings(), [WELL]);
    assert_eq!((id(), written()), (first_id.clone(), first));

    // Another one comes while the agent does not run.
    disk.make("other", 192);
    router.stop_agent();
    disk.unmount();
    disk.mount("other");
    router.start_agent();
    let expected = format!("disk {} (ext4, ", &first_id[..8]);
    router.assert_finding(&["error: storage", &expected, "Put that disk back", "piboot volume accept"]);
    assert_eq!(router.findings().len(), 1, "{:#?}", router.findings());
    let import = ["image", "import", file.to_str().unwrap(), "--name", "small"];
    router.assert_refused(&import, &["not on the disk that was used before"]);
    assert_eq!(router.json(&["device", "lion"])["state"], "blocked");
    let status = router.json(&["status"]);
    assert_eq!(status["nfs"]["serving"], false, "its Pi waits, and is not told that its root is gone: {status:#}");
    assert_eq!(fs::read_dir(router.data_dir()).unwrap().count(), 0, "nothing was put on it");
    assert_eq!(written(), first);

    // The right one comes back, under the agent.
    disk.unmount();
    disk.mount("disk");
    router.wait_until("the disk to be noticed", || router.findings() == [WELL]);
    assert_eq!(router.said("the disk in use is now"), 0);
    router.assert_boots(&pi, &link);

    // The other one again, also under the agent; this time it is to stay.
    disk.unmount();
    disk.mount("other");
    router.wait_until("the other to be noticed", || router.findings()[0].contains("not on the disk"));
    assert_eq!((fs::read_dir(router.data_dir()).unwrap().count(), written()), (0, first));
    router.piboot(&["volume", "accept"]).unwrap();
    router.assert_refused(&["volume", "accept"], &["no other disk"]);
    let second = written();
    assert!(id() != first_id && second != first && second.is_some());
    router.assert_finding(&["error: lion", "no image 'small'"]);
    router.import(&file, "small");
    router.wait_for(&["device", "lion"], "the device", |lion| lion["why"].is_null() && lion["job"].is_null());
    assert!(!mine.exists());
    router.stop_agent();
    router.start_agent();
    assert_eq!((router.findings(), written()), (vec![WELL.to_owned()], second));

    // And the old one, which has what is needed, is taken as it is.
    router.stop_agent();
    disk.unmount();
    disk.mount("disk");
    router.start_agent();
    assert_eq!((router.findings(), id()), (vec![WELL.to_owned()], first_id));
    assert_eq!(router.said("the disk in use is now"), 1);
    assert_eq!(fs::read_to_string(&mine).unwrap(), "of years");
    router.assert_boots(&pi, &link);
}

#[test]
fn without_enrolled_pis_or_in_another_place_any_disk_is_taken() {
    let disk = Disk::new(192);
    let mut router = Router::with_data_dir(disk.path().join("piboot"));
    router.start_agent();
    router.stop_agent();
    disk.make("other", 192);
    disk.unmount();
    disk.mount("other");
    router.start_agent();
    assert_eq!(router.findings(), ["nothing stands in the way of a boot"]);
    // An admin who names another directory means it.
    router.edit_config(|text| {
        let moved = text.replace("/piboot'", "/elsewhere'");
        moved + "config device 'bear'\n\toption mac 'dc:a6:32:00:00:09'\n\toption image 'small'\n"
    });
    router.reload();
    router.assert_finding(&["error: bear", "no image 'small'"]);
    assert!(disk.path().join("elsewhere/volume.id").exists());
}
