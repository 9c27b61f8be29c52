//! The roots are said to be on another NFS server: ours is off then, what is wrong with the other is said, and the rest of a
//! boot goes on. With a server that is one: tests/guest/external.sh.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use emupi::{Model, Pi};
use support::{Router, image};

#[test]
fn our_server_is_off_and_the_rest_goes_on() {
    let router = Router::running();
    router.import(&image::small(router.net.scratch()), "small");
    let link = router.net.tap_link().unwrap();
    let pi = Pi::new(Model::Pi4B, 0x1000_0000_5b15_4510);
    router.enroll(&pi, "lion");
    let nfs = || router.json(&["status"])["nfs"].clone();
    let listens = || {
        let sockets = router.net.exec("ss", &["-tlnH"]).unwrap();
        sockets.lines().any(|line| line.contains(":2049 ") || line.contains(":111 "))
    };
    assert!(nfs()["serving"] == true && listens());

    // Nobody has this address.
    let external =
        "\toption nfs 'external'\n\toption nfs_server '10.77.0.9'\n\toption nfs_path '/srv/piboot'\n\toption data_dir";
    router.edit_config(|text| text.replacen("\toption data_dir", external, 1));
    router.piboot(&["device", "edit", "lion", "--quota", "8G"]).unwrap();
    router.reload();
    router.assert_finding(&["warning: lion: quota '8G' has no effect: 10.77.0.9 serves the roots"]);
    assert_eq!((nfs()["serving"].as_bool(), nfs()["external"].as_str()), (Some(false), Some("10.77.0.9:/srv/piboot")));
    assert!(!listens(), "theirs is the port");
    router.assert_finding(&["is not the export of the NFS server", "10.77.0.9:/srv/piboot"]);
    router.wait_until("a word on the server", || {
        router.findings().iter().any(|text| text.contains("the portmapper of the NFS server 10.77.0.9"))
    });
    // What would be written to the wrong place is not; what is there is served.
    router.assert_refused(
        &["enroll", "--mac", "dc:a6:32:00:00:02", "--hostname", "bear", "--image", "small"],
        &["is not the export of the NFS server"],
    );
    router.assert_boots(&pi, &link);

    // A slip of the pen changes nothing.
    router.edit_config(|text| text.replace("10.77.0.9", "nas"));
    router.reload();
    assert_eq!(nfs()["external"].as_str(), Some("10.77.0.9:/srv/piboot"));

    router.edit_config(|text| text.replace("'external'", "'builtin'"));
    router.reload();
    assert!(nfs()["serving"] == true && listens());
    assert!(!router.findings().iter().any(|text| text.contains("the NFS server 10.77.0.9")));
}
