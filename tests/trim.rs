//! Fewer bytes over TFTP: an initramfs that the kernel does not need is not loaded, and loaded again when it is asked for.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::expect_used, reason = "test code")]

mod support;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use emupi::{Model, Pi, boot};
use piboot::config::Regional;
use piboot::image::adapt::{Pass, Report, Target, adapt};
use support::{Router, image};

const PI_OS: &str = "dtparam=audio=on\nauto_initramfs=1\ndtoverlay=vc4-kms-v3d\narm_64bit=1\n[cm4]\notg_mode=1\n";
const BUILT_IN: &str = "CONFIG_IP_PNP_DHCP=y\nCONFIG_ROOT_NFS=y\nCONFIG_NFS_FS=y\nCONFIG_NFS_V3=y\nCONFIG_BCMGENET=y\nCONFIG_MACB=y\n\
                        CONFIG_USB_DWCOTG=y\nCONFIG_USB_LAN78XX=y\nCONFIG_USB_NET_SMSC95XX=y\n";

/// A device's trees: its config.txt, what its kernel has built in, and its command line.
struct Trees(tempfile::TempDir);

impl Trees {
    fn new(config: &str, kernel: &str, cmdline: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, content: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        for name in ["kernel8.img", "kernel_2712.img", "initramfs_2712", "initramfs7", "initrd.img"] {
            put(&format!("boot/{name}"), name);
        }
        put("boot/initramfs8", &"x".repeat(11_100_000));
        put("boot/config.txt", config);
        put("boot/cmdline.txt", cmdline);
        for release in ["6.12.47+rpt-rpi-v8", "6.12.47+rpt-rpi-2712"] {
            put(&format!("root/lib/modules/{release}/modules.order"), "");
            put(&format!("root/boot/config-{release}"), kernel);
        }
        Self(dir)
    }

    fn adapt(&self, pass: Pass, trim: bool) -> Report {
        let target = Target {
            id: "lion".to_owned(),
            hostname: "lion".to_owned(),
            server: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            root_export: "/lion/root".to_owned(),
            boot_export: "/lion/boot".to_owned(),
            mac: None,
            ssh_keys: Vec::new(),
            trim,
            ephemeral: false,
            user: None,
            password: None,
            regional: Regional::default(),
            earlier: None,
        };
        adapt(&self.0.path().join("boot"), &self.0.path().join("root"), &target, pass).unwrap()
    }

    fn config(&self) -> String {
        fs::read_to_string(self.0.path().join("boot/config.txt")).unwrap()
    }

    fn set(&self, config: &str) {
        fs::write(self.0.path().join("boot/config.txt"), config).unwrap();
    }
}

fn trimmed(report: &Report) -> Vec<&str> {
    report.changes.iter().filter(|change| change.rule == "trim").map(|change| change.what.as_str()).collect()
}

#[test]
fn the_initramfs_goes_and_comes_back_and_the_users_lines_stay() {
    let trees = Trees::new(PI_OS, BUILT_IN, "console=tty1 root=PARTUUID=4e639091-02");
    let report = trees.adapt(Pass::Fresh, true);
    assert_eq!(
        trimmed(&report),
        ["no initramfs, which saves 11.1 MB at each boot: the kernel mounts its root by itself"]
    );
    let once = trees.config();
    let own = once.strip_prefix(PI_OS).expect("what was there is there");
    let lines: Vec<&str> = own.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, ["[all]", "auto_initramfs=0"]);
    assert_eq!(trimmed(&trees.adapt(Pass::Again, true)), [""; 0], "once");

    // What the user writes below it counts, as for the firmware, and stays.
    trees.set(&format!("{once}auto_initramfs=1\n"));
    assert_eq!(trimmed(&trees.adapt(Pass::Again, true)), [""; 0]);
    assert_eq!(trees.config(), format!("{once}auto_initramfs=1\n"));
    trees.set(&format!("{once}dtparam=spi=on\n"));
    assert_eq!(trimmed(&trees.adapt(Pass::Again, false)), ["the initramfs is loaded again"]);
    assert_eq!(trees.config(), format!("{PI_OS}dtparam=spi=on\n"));
    assert_eq!(trimmed(&trees.adapt(Pass::Again, false)), [""; 0]);
}

#[test]
fn it_stays_wherever_something_needs_it() {
    let modules = BUILT_IN.replace("BCMGENET=y", "BCMGENET=m");
    let line = "console=tty1";
    for (what, config, kernel, cmdline, expected) in [
        ("nothing built in", PI_OS, "CONFIG_NFS_FS=m\n", line, vec![]),
        ("nothing known of the kernel", PI_OS, "", line, vec![]),
        ("the user names one", "initramfs initrd.img followkernel\narm_64bit=1\n", BUILT_IN, line, vec![]),
        ("the user has none", "auto_initramfs=0\narm_64bit=1\n", BUILT_IN, line, vec![]),
        ("an overlay that it makes", PI_OS, BUILT_IN, "overlayroot=tmpfs boot=overlay", vec![]),
        ("the Pi 4's driver is a module", PI_OS, &modules, line, vec!["[pi02]", "[pi3]", "[pi5]", "[all]"]),
    ] {
        let trees = Trees::new(config, kernel, cmdline);
        let report = trees.adapt(Pass::Fresh, true);
        let after = trees.config();
        let filters: Vec<&str> = after.strip_prefix(config).unwrap().lines().filter(|l| l.starts_with('[')).collect();
        // A Pi 2 with a processor of 64 bits loads the same as a Pi 3.
        let filters: Vec<&str> = filters.into_iter().filter(|filter| *filter != "[pi2]").collect();
        assert_eq!(filters, expected, "{what}");
        assert_eq!(trimmed(&report).is_empty(), expected.is_empty(), "{what}");
    }
}

/// What the emulated Pi 4 loads of an image with files as large as Raspberry Pi OS Lite's.
#[test]
fn a_stock_boot_takes_half_the_bytes() {
    let router = Router::running();
    router.import(&image::lite(router.net.scratch()), "lite");
    let link = router.net.tap_link().unwrap();
    let pi = Pi::new(Model::Pi4B, 0x1000_0000_5b15_4510);
    router.piboot(&["enroll", "--mac", &pi.mac.to_string(), "--hostname", "lion", "--image", "lite"]).unwrap();
    router.wait_for_dnsmasq();
    let detail = router.json(&["device", "lion"]);
    let changes = detail["changes"].as_array().unwrap();
    let change = changes.iter().find(|change| change["rule"] == "trim").unwrap_or_else(|| panic!("{detail:#}"));
    assert!(change["what"].as_str().unwrap().contains("saves 11.1 MB at each boot"), "{change}");
    let bytes = |ramdisks: usize| {
        let booted = boot(&pi, &link, &support::hurried(), None).unwrap();
        let ready = booted.ready().unwrap_or_else(|| panic!("{}\n{}", booted.outcome, router.logs()));
        assert_eq!(ready.initramfs.len(), ramdisks);
        let loaded: u64 = ready.files.iter().map(|file| file.bytes).sum();
        let sum = |boot: &serde_json::Value| -> u64 {
            boot["files"].as_array().unwrap().iter().map(|file| file["acknowledged"].as_u64().unwrap()).sum()
        };
        let story = router.wait_for(&["boot", "lion"], "all of it in the timeline", |boot| sum(boot) >= loaded);
        (loaded, story["spared_bytes"].as_u64())
    };
    let (less, spared) = bytes(0);
    let initramfs = fs::metadata(router.data_dir().join("devices/lion/boot/initramfs8")).unwrap().len();
    assert_eq!(spared, Some(initramfs));
    let timeline = router.piboot(&["boot", "lion"]).unwrap();
    assert!(timeline.contains("; up to 11.1 MB less by 'trim', without the initramfs)"), "{timeline}");
    // As somebody on the router's shell asks for it again.
    router.edit_config(|text| text.replace("\toption image 'lite'\n", "\toption image 'lite'\n\toption trim '0'\n"));
    router.reload();
    let config = Path::new("devices/lion/boot/config.txt");
    router.wait_until("config.txt as it was", || {
        !fs::read_to_string(router.data_dir().join(config)).unwrap().contains("piboot")
    });
    let (stock, spared) = bytes(1);
    assert_eq!(spared, None);
    println!("a Pi 4 loads {stock} bytes of Lite, {less} when it is trimmed");
    // config.txt itself has grown by what says so.
    assert!(100 * less <= 52 * stock && stock - less >= 11_090_000, "{less} of {stock}");
}
