//! A classroom that is switched on all at once.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;

use emupi::{BootOptions, Model, Pi, many};
use support::disk::Disk;
use support::{Router, image};

/// First address given; the last byte of the others follows on.
const FIRST: usize = 50;

/// Who tells the boards what to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Dnsmasq,
    /// The built-in proxy, with all that it does for a 3B.
    Proxy,
}

/// Boots `count` boards of mixed models together and compares every file that each received.
fn a_class_of(count: usize, by: By) {
    a_class_at(Router::new(), count, by, &|_| ());
}

/// The same at this router; `enrolled` is called when all have their files.
fn a_class_at(mut router: Router, count: usize, by: By, enrolled: &dyn Fn(&Router)) {
    if by == By::Proxy {
        let patient = "\tlist quirk_off 'reply_delay'\n";
        router.edit_config(|text| text.replace("option dhcp 'dnsmasq'", "option dhcp 'proxy'").replace(patient, ""));
    }
    let models = [Model::Pi3B, Model::Pi3BPlus, Model::Pi4B, Model::Pi5, Model::Bootcode];
    let pis: Vec<Pi> = models.into_iter().cycle().zip(0..).take(count).map(|(model, n)| many::nth(model, n)).collect();
    let tree = router.scratch("as-served");
    fs::create_dir(&tree).unwrap();
    let mut sections = String::new();
    for (n, pi) in pis.iter().enumerate() {
        // To boards that never send a REQUEST dnsmasq may give one address twice.
        router.fix_address(pi, u8::try_from(FIRST + n).unwrap());
        writeln!(sections, "config device 'pi_{n}'\n\toption mac '{}'\n\toption image 'small'", pi.mac).unwrap();
        symlink(router.data_dir().join(format!("devices/pi_{n}/boot")), tree.join(pi.prefix().trim_end_matches('/')))
            .unwrap();
    }
    symlink(router.data_dir().join("devices/pi_0/boot/bootcode.bin"), tree.join("bootcode.bin")).unwrap();
    router.start_agent();
    router.start_dnsmasq();
    router.import(&image::small(router.net.scratch()), "small");
    // More devices than jobs may wait: those come when others are done.
    router.edit_config(|text| text + &sections);
    router.reload();
    router.wait_for(&["status"], "all devices", |status| status["devices_ready"] == count);
    enrolled(&router);
    router.wait_for_dnsmasq();

    let link = router.net.tap_link().unwrap();
    // One dnsmasq, two hundred exchanges: boards up to the 3B+ give up after five tries.
    let speed = if by == By::Proxy { 2.0 } else { 4.0 };
    let options = BootOptions { keep: false, speed, ..support::hurried() };
    let boots = many::boot_all(&pis, &link, &options, &|_| ()).unwrap();
    let summary = many::Summary::of(&boots);
    assert_eq!((summary.ok, link.dropped()), (count, 0), "{summary}");
    assert_eq!(many::compare(&boots, &tree), Vec::<String>::new());
    assert!(router.peak_rss_kb() < 32 << 10, "{} kB", router.peak_rss_kb());
    // Those up to the 3B+ have got addresses of their own meanwhile, and dnsmasq was told.
    router.wait_until_settled();
    let status = router.json(&["status"]);
    assert_eq!((&status["events_dropped"], &status["findings"]), (&0.into(), &serde_json::json!([])), "{status:#}");
    // Each has a timeline of its own, up to the kernel, and by now has shown its serial.
    router.wait_for(&["devices"], "all serials", |devices| {
        let known = |(device, pi): (&serde_json::Value, &Pi)| device["serial"] == pi.prefix().trim_end_matches('/');
        devices["devices"].as_array().unwrap().iter().zip(&pis).all(known)
    });
    let boots = router.json(&["boots", "--limit", "200"]);
    let numbers = boots["boots"].as_array().unwrap().iter().map(|b| b["id"].to_string());
    let timelines: Vec<_> = numbers.map(|number| router.json(&["boot", &number])).collect();
    let loaded_all =
        |boot: &&serde_json::Value| boot["stages"].as_array().unwrap().iter().any(|s| s["stage"] == "kernel");
    assert_eq!((timelines.len(), timelines.iter().filter(loaded_all).count()), (count, count), "{boots:#}");
}

#[test]
fn twenty_five_boards_boot_together() {
    a_class_of(25, By::Dnsmasq);
}

/// From one image on a disk whose files share blocks: next to no space, no time to speak of, and each is itself.
#[test]
fn twenty_five_boards_boot_together_from_clones() {
    const COUNT: usize = 25;
    for kind in ["btrfs", "xfs"] {
        let disk = Disk::of(kind, 700);
        let router = Router::with_data_dir(disk.path().join("piboot"));
        let at_first = disk.free();
        let enrolled = |router: &Router| {
            let jobs = router.json(&["jobs"])["jobs"].as_array().unwrap().clone();
            let made: Vec<_> = jobs.iter().filter(|job| job["kind"] == "provision").collect();
            let clones =
                made.iter().filter(|job| job["message"].as_str().unwrap().contains("a clone of small")).count();
            assert_eq!((made.len(), clones), (COUNT, COUNT), "{made:#?}");
            // With the image itself, which a copy of would be 3.4 MB each time.
            let used = at_first.saturating_sub(disk.free());
            let times =
                |job: &serde_json::Value| (job["queued_ms"].as_i64().unwrap(), job["finished_ms"].as_i64().unwrap());
            let (first, last) = (made.iter().map(|j| times(j).0).min(), made.iter().map(|j| times(j).1).max());
            println!("{kind}: {COUNT} devices in {} ms, {used} bytes", last.unwrap() - first.unwrap());
            assert!(used < 25 << 20, "{used}");
            let read = |n: usize, path: &str| {
                fs::read_to_string(router.data_dir().join(format!("devices/pi_{n}/{path}"))).unwrap()
            };
            for n in 0..COUNT {
                assert_eq!(read(n, "root/etc/hostname"), format!("pi-{n}\n"));
                assert_eq!(read(n, "root/etc/machine-id"), "uninitialized\n");
                assert!(read(n, "boot/cmdline.txt").contains(&format!(":/pi_{n}/root,")));
                assert!(read(n, "root/etc/fstab").contains(&format!(":/pi_{n}/boot ")));
            }
        };
        a_class_at(router, COUNT, By::Dnsmasq, &enrolled);
    }
}

#[test]
fn twenty_five_boards_boot_together_by_the_proxy() {
    a_class_of(25, By::Proxy);
}

#[test]
fn a_hundred_boards_boot_together() {
    a_class_of(100, By::Dnsmasq);
}
