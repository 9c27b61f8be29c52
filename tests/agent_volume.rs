//! The SSD comes late, goes, and is another one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use support::Router;
use support::disk::Disk;

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
