//! Boards boot from Debian's dnsmasq: what works with it works with a server in daily use.

#![allow(clippy::unwrap_used)] // helpers of tests, not only the tests themselves

use emupi::lab::{Net, Process};
use emupi::nic::Faults;
use emupi::record::{Event, Fetched};
use emupi::{Boot, BootOptions, Link, Model, Outcome, Pi, Until, boot, handoff, many, storm};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The words with three spaces, which every model accepts.
const STRICT: &str = "Raspberry Pi Boot   ";
const SERIAL: u64 = 0x1000_0000_5b15_4510;

fn options() -> BootOptions {
    BootOptions { speed: 20.0, seed: 7, ..BootOptions::default() }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 512 + seed) as u8).collect()
}

/// A boot tree for every board: bootcode.bin at the top, the rest in the board's directory.
fn tree(net: &Net, dir: &str, config: &str) -> PathBuf {
    let root = net.scratch().join("tftp");
    let own = root.join(dir);
    fs::create_dir_all(own.join("overlays")).unwrap();
    fs::write(root.join("bootcode.bin"), pattern(52_456, 1)).unwrap();
    let files = [
        ("start.elf", 300_000),
        ("fixup.dat", 7_000),
        ("start4.elf", 250_000),
        ("fixup4.dat", 5_120),
        ("bcm2710-rpi-3-b.dtb", 31_000),
        ("bcm2710-rpi-3-b-plus.dtb", 32_000),
        ("bcm2711-rpi-4-b.dtb", 53_000),
        ("bcm2712-rpi-5-b.dtb", 76_000),
        ("overlays/overlay_map.dtb", 2_000),
        ("overlays/vc4-kms-v3d.dtbo", 2_800),
        ("overlays/vc4-kms-v3d-pi4.dtbo", 3_800),
        ("overlays/vc4-kms-v3d-pi5.dtbo", 3_100),
        ("kernel8.img", 900_000),
        ("kernel_2712.img", 901_000),
        ("initramfs8", 1_468 * 300),
        ("initramfs_2712", 1_024 * 300),
    ];
    for (seed, (name, len)) in files.into_iter().enumerate() {
        fs::write(own.join(name), pattern(len, seed)).unwrap();
    }
    fs::write(own.join("config.txt"), config).unwrap();
    fs::write(own.join("cmdline.txt"), "console=serial0,115200 console=tty1 root=/dev/nfs rootwait\n").unwrap();
    root
}

const CONFIG: &str = "[all]\narm_64bit=1\nauto_initramfs=1\nenable_uart=1\ndtoverlay=vc4-kms-v3d\n";

/// Option 43 as a PXE menu, in dnsmasq's notation. (`pxe-service=tag:rpi,…` would send an empty menu to every PC.)
fn menu(words: &str) -> String {
    let len = words.len() as u8;
    let mut value = vec![6, 1, 3, 10, 4, 0, b'P', b'X', b'E', 9, len + 3, 0, 0, len];
    value.extend_from_slice(words.as_bytes());
    value.push(255);
    value.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

fn dnsmasq(net: &Net, words: &str, tftp: Option<&Path>) -> Process {
    dnsmasq_with(net, words, tftp, "")
}

fn dnsmasq_with(net: &Net, words: &str, tftp: Option<&Path>, more: &str) -> Process {
    let mut conf = format!(
        "dhcp-range=10.77.0.50,10.77.0.200,10m\n\
         dhcp-match=set:rpi,97,0:52:50:69:34\ndhcp-match=set:rpi,97,0:52:50:69:35\n\
         dhcp-mac=set:rpi,b8:27:eb:*:*:*\n\
         dhcp-option-force=tag:rpi,43,{}\n{more}",
        menu(words)
    );
    if let Some(root) = tftp {
        conf += &format!("enable-tftp\ntftp-root={}\n", root.display());
    }
    net.dnsmasq(&conf).unwrap()
}

fn run(link: &Link, pi: &Pi) -> Boot {
    let boot = boot(pi, link, &options(), None).unwrap();
    if !boot.ok() {
        boot.log.iter().for_each(|entry| eprintln!("{entry}"));
    }
    boot
}

fn asked(boot: &Boot) -> Vec<String> {
    let prefix = boot.pi.prefix();
    let mark = |f: &Fetched| match f {
        Fetched::Whole { .. } => "",
        Fetched::Probed { .. } => "?",
        Fetched::Missing { .. } => "!",
        Fetched::GaveUp { .. } | Fetched::Broken(_) => "#",
    };
    boot.requests().map(|r| format!("{}{}", r.path.replace(&prefix, "S/"), mark(&r.fetched))).collect()
}

fn assert_as_served(boot: &Boot, root: &Path) {
    for file in &boot.ready().unwrap().files {
        let content = file.content.as_ref().unwrap();
        assert!(*content == fs::read(root.join(&file.path)).unwrap(), "{} differs", file.path);
        assert_eq!(file.digest, emupi::digest::Digest::of(content), "{}", file.path);
    }
}

#[test]
fn a_3b_boots_in_the_recorded_order() {
    let net = Net::new().unwrap();
    let root = tree(&net, "5b154510", CONFIG);
    let server = dnsmasq(&net, STRICT, Some(&root));
    let link = net.tap_link().unwrap();
    let boot = run(&link, &Pi::new(Model::Pi3B, SERIAL));
    assert_as_served(&boot, &root);
    let ready = boot.ready().unwrap();
    assert_eq!(ready.kernel.path, "5b154510/kernel8.img");
    assert_eq!(ready.initramfs[0].path, "5b154510/initramfs8");
    assert_eq!(
        ready.cmdline,
        "8250.nr_uarts=1 smsc95xx.macaddr=B8:27:EB:15:45:10 console=ttyS0,115200 console=tty1 root=/dev/nfs rootwait"
    );
    assert_eq!(
        asked(&boot),
        [
            "bootcode.bin",
            "bootsig.bin!",
            "S/start.elf?",
            "S/start.elf?",
            "S/autoboot.txt!",
            "S/config.txt",
            "S/recovery.elf!",
            "S/start.elf",
            "S/fixup.dat",
            "S/recovery.elf!",
            "S/config.txt?",
            "S/config.txt",
            "S/dt-blob.bin!",
            "S/recovery.elf!",
            "S/config.txt?",
            "S/config.txt",
            "S/bootcfg.txt!",
            "S/initramfs8?",
            "S/initramfs8",
            "S/bcm2710-rpi-3-b.dtb?",
            "S/bcm2710-rpi-3-b.dtb",
            "S/overlays/overlay_map.dtb?",
            "S/overlays/overlay_map.dtb",
            "S/config.txt?",
            "S/config.txt",
            "S/overlays/vc4-kms-v3d.dtbo?",
            "S/overlays/vc4-kms-v3d.dtbo",
            "S/cmdline.txt?",
            "S/cmdline.txt",
            "S/recovery8.img!",
            "S/kernel8.img?",
            "S/armstub8.bin!",
            "S/kernel8.img?",
            "S/kernel8.img",
        ]
    );
    // Twice through DHCP with the ROM's xid, first without a serial number; never a REQUEST.
    let log = server.lines().join("\n");
    assert_eq!(log.matches("DHCPDISCOVER").count(), 2, "{log}");
    assert!(!log.contains("DHCPREQUEST") && log.contains("653460281"), "{log}");
    let ports: Vec<u16> = boot.requests().map(|r| r.port).collect();
    assert_eq!(ports[..5], [49152, 49152, 49153, 49154, 49155]);
    assert!(boot.requests().take(2).all(|r| r.block_size == 512), "the ROM knows no options");
}

#[test]
fn a_3b_without_the_three_spaces_halts_but_a_3b_plus_boots() {
    let net = Net::new().unwrap();
    let root = tree(&net, "00abcdef", CONFIG);
    let _server = dnsmasq(&net, "Raspberry Pi Boot", Some(&root));
    let link = net.tap_link().unwrap();
    let failed = boot(&Pi::new(Model::Pi3B, SERIAL), &link, &options(), None).unwrap();
    assert!(matches!(failed.outcome, Outcome::Failed { stage: "dhcp", .. }), "{}", failed.outcome);
    assert_eq!(failed.log.iter().filter(|e| matches!(e.event, Event::Discover { .. })).count(), 5);
    let plus = run(&link, &Pi::new(Model::Pi3BPlus, 0x00ab_cdef));
    assert_eq!(plus.ready().unwrap().device_tree.as_ref().unwrap().path, "00abcdef/bcm2710-rpi-3-b-plus.dtb");
    assert_as_served(&plus, &root);
}

#[test]
fn a_4_and_a_5_boot_over_veth() {
    let net = Net::new().unwrap();
    let root = tree(&net, "5b154510", CONFIG);
    let server = dnsmasq(&net, STRICT, Some(&root));
    let link = net.veth_link().unwrap();

    let four = run(&link, &Pi::new(Model::Pi4B, SERIAL));
    assert_as_served(&four, &root);
    let ready = four.ready().unwrap();
    assert_eq!(ready.kernel.path, "5b154510/kernel8.img");
    assert_eq!(ready.overlays[0].path, "5b154510/overlays/vc4-kms-v3d-pi4.dtbo");
    assert_eq!(
        asked(&four)[..9],
        [
            "S/start4.elf?",
            "S/start.elf?",
            "S/config.txt",
            "S/vl805.sig!",
            "S/pieeprom.sig!",
            "S/recover4.elf!",
            "S/recovery.elf!",
            "S/start4.elf",
            "S/fixup4.dat",
        ]
    );
    assert!(four.requests().filter(|r| !matches!(r.fetched, Fetched::Missing { .. })).all(|r| r.block_size == 1468));

    let mut pi = Pi::new(Model::Pi5, SERIAL);
    pi.mac = "2c:cf:67:00:00:05".parse().unwrap();
    let five = run(&link, &pi);
    assert_as_served(&five, &root);
    let ready = five.ready().unwrap();
    assert_eq!(ready.kernel.path, "5b154510/kernel_2712.img");
    assert_eq!(ready.initramfs[0].path, "5b154510/initramfs_2712");
    assert_eq!(asked(&five)[..2], ["S/config.txt", "S/pieeprom.sig!"]);

    let log = server.lines().join("\n");
    assert_eq!((log.matches("DHCPREQUEST(").count(), log.matches("DHCPACK(").count()), (2, 2), "{log}");
}

#[test]
fn without_a_directory_of_its_own_a_board_boots_from_the_top() {
    let net = Net::new().unwrap();
    let root = tree(&net, ".", CONFIG);
    let _server = dnsmasq(&net, STRICT, Some(&root));
    let link = net.tap_link().unwrap();
    for model in [Model::Pi3B, Model::Pi4B, Model::Pi5] {
        let boot = run(&link, &Pi::new(model, SERIAL));
        let kernel = &boot.ready().unwrap().kernel;
        assert!(!kernel.path.contains('/'), "{model}: {}", kernel.path);
    }
}

#[test]
fn a_missing_kernel_flashes_seven_times_and_a_missing_firmware_four() {
    let net = Net::new().unwrap();
    let root = tree(&net, ".", "arm_64bit=1\n");
    let _server = dnsmasq(&net, STRICT, Some(&root));
    let link = net.tap_link().unwrap();
    fs::remove_file(root.join("kernel8.img")).unwrap();
    let led = |model| match boot(&Pi::new(model, SERIAL), &link, &options(), None).unwrap().outcome {
        Outcome::Failed { led, .. } => led,
        other => panic!("{other}"),
    };
    assert_eq!((led(Model::Pi3B), led(Model::Pi4B)), (Some((0, 7)), Some((0, 7))));
    fs::remove_file(root.join("start.elf")).unwrap();
    fs::remove_file(root.join("start4.elf")).unwrap();
    assert_eq!((led(Model::Pi3B), led(Model::Pi4B)), (Some((0, 4)), Some((0, 4))));
}

#[test]
fn laptops_and_pcs_get_an_address_and_nothing_else() {
    let net = Net::new().unwrap();
    let _server = dnsmasq(&net, STRICT, None);
    let link = net.tap_link().unwrap();
    for model in [Model::Laptop, Model::X86Pxe] {
        let boot = run(&link, &Pi::new(model, 0x0012_3456));
        assert!(boot.ip.is_some());
        assert_eq!(boot.outcome, Outcome::NotAPi { boot_options: vec![] });
    }
}

#[test]
fn a_classroom_boots_at_once_and_every_byte_is_right() {
    let net = Net::new().unwrap();
    let root = tree(&net, ".", CONFIG);
    let models = [Model::Pi3B, Model::Pi3BPlus, Model::Pi4B, Model::Pi5];
    let pis: Vec<Pi> = models.into_iter().cycle().zip(0..24).map(|(model, i)| many::nth(model, i)).collect();
    // Fixed addresses: to boards that never send a REQUEST dnsmasq gives the same one twice (firmware issue 1120).
    let hosts: String = (50..).zip(&pis).map(|(n, pi)| format!("dhcp-host={},10.77.0.{n}\n", pi.mac)).collect();
    let _server = dnsmasq_with(&net, STRICT, Some(&root), &hosts);
    let link = net.tap_link().unwrap();
    let options = BootOptions { keep: false, ..options() };
    let boots = many::boot_all(&pis, &link, &options, &|_| ()).unwrap();
    let summary = many::Summary::of(&boots);
    assert_eq!((summary.ok, link.dropped()), (24, 0), "{summary}");
    assert_eq!(many::compare(&boots, &root), Vec::<String>::new());
    // Four-byte prefixes and addresses of their own.
    let mut addresses: Vec<_> = boots.iter().map(|b| b.ip).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 24);
    // The comparison is not blind.
    fs::write(root.join("fixup4.dat"), "other").unwrap();
    assert_eq!(many::compare(&boots, &root).len(), 6);
}

#[test]
fn what_was_fetched_is_handed_over_and_the_tap_released() {
    let net = Net::new().unwrap();
    let root = tree(&net, ".", CONFIG);
    let _server = dnsmasq(&net, STRICT, Some(&root));
    let tap = net.add_tap().unwrap();
    let link = net.enter(|| Link::tap(&tap)).unwrap().unwrap();
    assert!(net.enter(|| Link::tap(&tap)).unwrap().is_err(), "a tap has one owner");
    let boot = run(&link, &Pi::new(Model::Pi3B, SERIAL));
    drop(link);
    assert!(net.enter(|| Link::tap(&tap)).unwrap().is_ok(), "QEMU must be able to take the tap over");

    let dir = net.scratch().join("handoff");
    let handoff = handoff::write(boot.ready().unwrap(), &dir).unwrap();
    let same = |a: &Path, b: &str| assert!(fs::read(a).unwrap() == fs::read(root.join(b)).unwrap(), "{b}");
    same(&handoff.kernel, "kernel8.img");
    same(handoff.initramfs.as_ref().unwrap(), "initramfs8");
    same(handoff.device_tree.as_ref().unwrap(), "bcm2710-rpi-3-b.dtb");
    same(&dir.join("tftp/overlays/vc4-kms-v3d.dtbo"), "overlays/vc4-kms-v3d.dtbo");
    assert!(handoff.cmdline.contains("root=/dev/nfs"));
}

/// What QEMU does to a tap when its guest's driver takes checksums upon itself.
#[allow(unsafe_code)]
fn leave_checksums_to_the_guest(tap: &str) {
    use nix::libc;
    use std::os::fd::AsRawFd;
    nix::ioctl_write_ptr_bad!(set_iff, nix::request_code_write!(b'T', 202, 4), libc::ifreq);
    nix::ioctl_write_int_bad!(set_offload, nix::request_code_write!(b'T', 208, 4));
    let file = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: ifreq is plain data; all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name.iter_mut().zip(tap.bytes()).for_each(|(to, from)| *to = from as libc::c_char);
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: an open descriptor and one ifreq that outlives the call; TUN_F_CSUM is passed by value.
    unsafe {
        set_iff(file.as_raw_fd(), &raw const request).unwrap();
        set_offload(file.as_raw_fd(), 1).unwrap();
    }
}

#[test]
fn a_board_boots_again_on_a_tap_that_qemu_has_used() {
    let net = Net::new().unwrap();
    let root = tree(&net, ".", CONFIG);
    let _server = dnsmasq(&net, STRICT, Some(&root));
    let tap = net.add_tap().unwrap();
    net.enter(|| leave_checksums_to_the_guest(&tap)).unwrap();
    let link = net.enter(|| Link::tap(&tap)).unwrap().unwrap();
    let boot = run(&link, &Pi::new(Model::Pi3B, SERIAL));
    assert!(boot.ok(), "{}", boot.outcome);
    assert_eq!(boot.faults, Faults::default());
}

#[test]
fn os_prefix_and_upstream_names_decide_what_is_fetched() {
    let net = Net::new().unwrap();
    let config = "arm_64bit=1\nos_prefix=new/\nupstream_kernel=1\nkernel=vmlinuz\ninitramfs initrd followkernel\n\
                  cmdline=other.txt\ninclude extra.txt\n";
    let root = tree(&net, ".", config);
    fs::write(root.join("extra.txt"), "[pi3]\ndtoverlay=vc4-kms-v3d\n").unwrap();
    fs::create_dir(root.join("new")).unwrap();
    for name in ["vmlinuz", "initrd", "bcm2837-rpi-3-b.dtb", "other.txt"] {
        fs::write(root.join("new").join(name), pattern(2000, 3)).unwrap();
    }
    let _server = dnsmasq(&net, STRICT, Some(&root));
    let link = net.tap_link().unwrap();
    let three = run(&link, &Pi::new(Model::Pi3B, SERIAL));
    let ready = three.ready().unwrap();
    assert_eq!(ready.kernel.path, "new/vmlinuz");
    assert_eq!(ready.initramfs[0].path, "new/initrd");
    assert_eq!(ready.device_tree.as_ref().unwrap().path, "new/bcm2837-rpi-3-b.dtb");
    // Without a README under the prefix, overlays are shared.
    assert_eq!(ready.overlays[0].path, "overlays/vc4-kms-v3d.dtbo");
    // A 4 finds no device tree of its own there: the prefix is dropped, and there is no vmlinuz at the top.
    let four = boot(&Pi::new(Model::Pi4B, SERIAL), &link, &options(), None).unwrap();
    assert!(matches!(four.outcome, Outcome::Failed { stage: "kernel", led: Some((0, 7)), .. }), "{}", four.outcome);
}

/// Of 48 boards that are switched on within a second: addresses that several of them took, and how many boards those are.
fn shared_addresses(model: Model, conf: &str) -> (usize, usize) {
    let net = Net::new().unwrap();
    let _server = dnsmasq_with(&net, STRICT, None, conf);
    let link = net.tap_link().unwrap();
    let pis = storm::boards(&[model], 0, 48);
    let delays = storm::delays(pis.len(), Duration::from_secs(1), 1);
    let options = BootOptions { until: Until::Dhcp, ..options() };
    let report = storm::Report::of(&many::boot_spread(&pis, &delays, &link, &options, &|_| ()).unwrap(), &delays);
    assert_eq!((report.ok, link.dropped()), (48, 0), "{report}");
    (report.twice.len(), report.twice.iter().map(|(_, boards)| boards.len()).sum())
}

#[test]
fn to_boards_that_never_send_a_request_dnsmasq_gives_one_address_twice() {
    // It chooses by a hash of the hardware address and keeps no lease for an offer (firmware issues 1120, 1303).
    assert_eq!(shared_addresses(Model::Pi3B, ""), (2, 4));
    // In order, and without a ping to tell that an address is in use, the first one is offered to everybody.
    assert_eq!(shared_addresses(Model::Pi3B, "dhcp-sequential-ip\n"), (1, 48));
    assert_eq!(shared_addresses(Model::Pi4B, ""), (0, 0), "these do send one");
}
