//! Long work that is interrupted, by whatever, leaves nothing half done, and can be done again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use emupi::{Model, Pi};
use support::disk::Disk;
use support::{Router, image};

const MB: u64 = 1 << 20;

#[test]
fn killed_in_the_middle_of_an_import_it_leaves_no_half_image() {
    let disk = Disk::new(384);
    let mut router = Router::with_data_dir(disk.path().join("piboot"));
    router.start_agent();
    let file = image::large(router.net.scratch());
    let source = file.metadata().unwrap().len();
    let job = router.begin(&["image", "import", file.to_str().unwrap(), "--name", "large"]);
    // A plain image is read once for its digest before it is unpacked.
    router.wait_for_middle(job, source + 80 * MB, 100);
    router.kill_agent();
    assert_eq!(router.names("images"), Vec::<String>::new());
    assert_eq!(router.names("scratch").len(), 1, "it was in the middle");

    // What it left fills the disk: it has to go all the same.
    disk.fill(8);
    router.start_agent();
    assert_eq!(router.said(&format!("job {job} (Import of 'large') was interrupted")), 1, "{}", router.logs());
    router.wait_until_settled();
    assert_eq!(router.said("the import of image 'large' was interrupted: removed"), 1, "{}", router.logs());
    assert_eq!(router.job(job)["state"], "interrupted");
    assert!(router.piboot(&["jobs"]).unwrap().contains("interrupted"));
    assert_eq!(router.names("scratch"), Vec::<String>::new());
    assert_eq!(router.json(&["images"])["images"].as_array().unwrap().len(), 0);
    disk.make_room();
    router.wait_until("the room to be noticed", || router.findings() == ["nothing stands in the way of a boot"]);
    router.import(&file, "large");

    // A copy of it would be too much.
    router.assert_refused(
        &["enroll", "--mac", "dc:a6:32:00:00:09", "--hostname", "lion", "--image", "large"],
        &["a copy of image 'large' needs", "MB and only", "MB are free"],
    );
    assert!(!std::fs::read_to_string(router.config()).unwrap().contains("lion"));
}

#[test]
fn killed_in_the_middle_of_an_enrolment_it_makes_the_device_at_the_next_start() {
    let mut router = Router::running();
    router.import(&image::large(router.net.scratch()), "large");
    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    let enroll = ["enroll", "--mac", &pi.mac.to_string(), "--hostname", "lion", "--image", "large"];
    let job = router.begin(&enroll);
    router.wait_for_middle(job, 20 * MB, 100);
    router.kill_agent();
    assert_eq!(router.names("devices"), Vec::<String>::new());
    assert_eq!(router.names("scratch"), ["device-lion.partial"], "it was in the middle");

    router.start_agent();
    assert_eq!(router.said(&format!("job {job} (Provision of 'lion') was interrupted")), 1, "{}", router.logs());
    assert_eq!(router.job(job)["state"], "interrupted");
    // It is still configured, so it is made.
    router.wait_for(&["device", "lion"], "the device", |device| device["state"] == "ready");
    assert_eq!(router.names("scratch"), Vec::<String>::new());
    router.assert_boots(&pi, &router.net.tap_link().unwrap());

    // Killed while the trees of a device go: the rest goes at the next start.
    let gone = router.talk(b"{\"method\":\"unenroll\",\"params\":{\"id\":\"lion\",\"delete\":true}}\n");
    router.kill_agent();
    assert!(gone.contains("\"job\":"), "{gone}");
    assert_eq!(router.names("devices"), Vec::<String>::new());
    router.start_agent();
    router.wait_until("the tidying up", || router.names("scratch").is_empty());
}

#[test]
fn a_cancelled_job_leaves_nothing_and_does_not_stand_in_the_way() {
    let router = Router::running();
    let file = image::large(router.net.scratch());
    let import = ["image", "import", file.to_str().unwrap(), "--name", "large"];
    let job = router.begin(&import);
    router.wait_for_middle(job, file.metadata().unwrap().len() + 10 * MB, 10);
    router.assert_refused(&import, &["already working on 'large'"]);
    router.piboot(&["job", "cancel", &job.to_string()]).unwrap();
    router.wait_until("its end", || router.job(job)["state"] == "cancelled");
    assert_eq!((router.names("images").len(), router.names("scratch").len()), (0, 0));
    router.assert_refused(&["job", "cancel", &job.to_string()], &["has ended already"]);
    router.import(&file, "large");

    let pi = Pi::new(Model::Pi4B, 0x5b15_4510);
    let enroll = ["enroll", "--mac", &pi.mac.to_string(), "--hostname", "lion", "--image", "large"];
    let job = router.begin(&enroll);
    router.wait_for_middle(job, 10 * MB, 10);
    router.assert_refused(&["image", "remove", "large"], &["image 'large' is used by lion"]);
    router.piboot(&["job", "cancel", &job.to_string()]).unwrap();
    router.wait_until("its end", || router.job(job)["state"] == "cancelled");
    assert_eq!((router.names("devices").len(), router.names("scratch").len()), (0, 0));
    router.assert_finding(&["error: lion", "cancelled"]);
    router.piboot(&["unenroll", "lion"]).unwrap();

    // Unenrolled in the middle, and enrolled again before the old job could end.
    let first = router.begin(&enroll);
    router.wait_for_middle(first, 10 * MB, 10);
    router.piboot(&["unenroll", "lion"]).unwrap();
    router.piboot(&enroll).unwrap();
    assert_eq!(router.job(first)["state"], "cancelled");
    router.assert_boots(&pi, &router.net.tap_link().unwrap());
    assert_eq!(router.names("scratch"), Vec::<String>::new());
    // Its own copy is all it needs.
    router.piboot(&["image", "remove", "large"]).unwrap();
    assert_eq!(router.names("images"), Vec::<String>::new());
    router.assert_boots(&pi, &router.net.tap_link().unwrap());
}
