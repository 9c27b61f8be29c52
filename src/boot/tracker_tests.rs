//! The tracker, told stories.

use std::sync::Arc;

use super::super::session::{FileOutcome, MAX_FILES};
use super::*;
use crate::events::TftpEnd;

const PI: Mac = Mac([0xb8, 0x27, 0xeb, 1, 2, 3]);
const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));

struct Lan;

impl Who for Lan {
    fn mac_of(&self, ip: IpAddr) -> Option<Mac> {
        (ip == IP).then_some(PI)
    }

    fn device_of(&self, mac: Mac) -> Option<String> {
        (mac == PI).then(|| "lion".to_owned())
    }
}

struct Story {
    clock: Clock,
    tracker: Tracker,
}

impl Story {
    fn new() -> Self {
        let clock = Clock::manual(1_000_000);
        Self { tracker: Tracker::new(clock.clone()), clock }
    }

    fn after(&mut self, ms: u64, what: What) -> Update {
        self.clock.advance(Duration::from_millis(ms));
        self.tracker.take(&Event { at: self.clock.now(), what }, &Lan)
    }

    fn dhcp(&mut self, ms: u64, kind: DhcpKind, netboot: bool) -> Update {
        let ip = matches!(kind, DhcpKind::Offer | DhcpKind::Ack).then(|| "192.0.2.9".parse().unwrap());
        let dhcp = Dhcp {
            mac: PI,
            kind,
            xid: 1,
            ip,
            netboot,
            identity: None,
            hostname: None,
            server: None,
            boot_menu: false,
            tftp: None,
        };
        self.after(ms, What::Dhcp(dhcp))
    }

    fn open(&mut self, ms: u64, transfer: u32, path: &[u8]) -> Update {
        let event = Tftp::Open { transfer, path: path.into(), size: 10, blksize: 1024, windowsize: 1 };
        self.after(ms, What::Tftp { peer: IP, event })
    }

    fn close(&mut self, ms: u64, transfer: u32, path: &[u8], end: TftpEnd) {
        let event = Tftp::Closed {
            transfer,
            path: path.into(),
            end,
            acknowledged: 10,
            size: 10,
            took: Duration::from_millis(ms),
            retransmissions: 2,
        };
        self.after(ms, What::Tftp { peer: IP, event });
    }

    fn nfs(&mut self, ms: u64, event: Nfs) -> Update {
        self.after(ms, What::Nfs { peer: IP, event })
    }

    fn stages(&self) -> Vec<(Stage, u32)> {
        self.tracker.boot(PI).unwrap().stages.iter().map(|s| (s.stage, s.at_ms)).collect()
    }
}

#[test]
fn a_boot_is_told_from_discover_to_first_write() {
    let mut story = Story::new();
    let export: Arc<str> = "/lion/root".into();
    assert!(story.dhcp(0, DhcpKind::Discover, true).notable);
    story.dhcp(10, DhcpKind::Offer, false);
    let first = story.open(100, 1, b"bootcode.bin");
    assert_eq!(first.serial, None);
    story.close(5, 1, b"bootcode.bin", TftpEnd::Done);
    assert_eq!(story.dhcp(0, DhcpKind::Discover, true).ended, None, "bootcode.bin goes through DHCP again");
    let probe = story.open(5, 2, b"38c128c0/start.elf");
    assert_eq!(probe.serial, Some((PI, Serial(0x38c1_28c0))));
    story.close(1, 2, b"38c128c0/start.elf", TftpEnd::Aborted { code: 0, message: (*b"Early terminate").into() });
    story.after(1, What::Tftp { peer: IP, event: Tftp::Miss { path: (*b"38c128c0/autoboot.txt").into(), code: 1 } });
    story.open(1, 3, b"38c128c0/config.txt");
    story.open(1, 4, b"38c128c0/kernel8.img");
    story.dhcp(1000, DhcpKind::Discover, false);
    story.nfs(10, Nfs::Getport { program: 100_005, version: 3, answered_port: 2049 });
    story.nfs(1, Nfs::Mounted { export: export.clone() });
    story.nfs(1, Nfs::FirstRead { export: export.clone() });
    assert!(story.nfs(1, Nfs::FirstWrite { export: export.clone() }).notable);
    assert!(!story.nfs(1, Nfs::FirstWrite { export }).notable);
    let expected = [
        (Stage::Discover, 0),
        (Stage::Offer, 10),
        (Stage::Tftp, 110),
        (Stage::Firmware, 110),
        (Stage::Config, 123),
        (Stage::Kernel, 124),
        (Stage::OsDhcp, 1124),
        (Stage::Portmap, 1134),
        (Stage::Mount, 1135),
        (Stage::FirstRead, 1136),
        (Stage::FirstWrite, 1137),
    ];
    assert_eq!(story.stages(), expected);
    let boot = story.tracker.boot(PI).unwrap();
    assert_eq!((boot.state, boot.device.as_deref(), boot.ip), (BootState::Running, Some("lion"), Some(IP)));
    let outcomes: Vec<_> = boot.files.iter().map(|f| (f.name.as_str(), f.outcome.clone())).collect();
    assert_eq!(outcomes[0], ("bootcode.bin", FileOutcome::Done));
    assert_eq!(outcomes[1], ("start.elf", FileOutcome::Probed), "a probe is no failure");
    assert_eq!(outcomes[2], ("autoboot.txt", FileOutcome::Missing));
    assert_eq!(outcomes[3], ("config.txt", FileOutcome::Loading));
}

#[test]
fn retries_belong_to_one_boot_and_a_reboot_starts_another() {
    let mut story = Story::new();
    story.dhcp(0, DhcpKind::Discover, true);
    assert_eq!(story.dhcp(5_000, DhcpKind::Discover, true).ended, None);
    story.open(100, 1, b"38c128c0/start4.elf");
    let update = story.dhcp(30_000, DhcpKind::Discover, true);
    assert_eq!(update.ended.unwrap().state, BootState::Abandoned);
    assert_eq!(story.stages(), [(Stage::Discover, 0)]);
    let update = story.dhcp(9_000, DhcpKind::Discover, true);
    assert!(update.ended.is_some(), "after so much silence it is another power-on");
}

#[test]
fn a_pi_that_boots_from_its_card_is_no_boot_of_ours() {
    let mut story = Story::new();
    assert_eq!(story.dhcp(0, DhcpKind::Discover, false), Update::default());
    assert!(story.tracker.boot(PI).is_none());
}

#[test]
fn a_looping_pi_and_a_flood_stay_bounded() {
    let mut story = Story::new();
    for _ in 0..MAX_FILES + 5 {
        let miss = Tftp::Miss { path: b"a\x1b[2J\xff".to_vec().into(), code: 1 };
        story.after(1, What::Tftp { peer: IP, event: miss });
    }
    let boot = story.tracker.boot(PI).unwrap();
    assert_eq!((boot.files.len(), boot.files_dropped), (MAX_FILES, 5));
    assert_eq!(boot.files[0].name, "a\u{fffd}[2J\u{fffd}");
    for n in 0..u16::try_from(MAX_BOOTS).unwrap() + 9 {
        let [high, low] = n.to_be_bytes();
        let mac = Mac([2, 0, 0, 0, high, low]);
        let dhcp = Dhcp {
            mac,
            kind: DhcpKind::Discover,
            xid: 1,
            ip: None,
            netboot: true,
            identity: None,
            hostname: None,
            server: None,
            boot_menu: false,
            tftp: None,
        };
        story.after(1, What::Dhcp(dhcp));
    }
    assert_eq!(story.tracker.boots().count(), MAX_STRANGERS + 1);
    assert!(story.tracker.boot(PI).is_some(), "an enrolled Pi's stays")
}

#[test]
fn a_shutdown_a_restart_a_power_cut_and_a_crash_are_told_apart() {
    let export: Arc<str> = "/lion/root".into();
    let running = || {
        let mut story = Story::new();
        story.dhcp(0, DhcpKind::Discover, true);
        story.nfs(20_000, Nfs::Mounted { export: export.clone() });
        story.nfs(1_000, Nfs::FirstWrite { export: export.clone() });
        story
    };
    let state = |story: &Story| {
        let boot = story.tracker.boot(PI).unwrap();
        (boot.state, boot.end)
    };

    let mut story = running();
    story.nfs(60_000, Nfs::Shutdown { export: export.clone() });
    assert_eq!(state(&story), (BootState::Running, None), "the program may have been looked up for another reason");
    assert!(story.nfs(30_000, Nfs::Gone).notable);
    assert_eq!(state(&story), (BootState::Stopped, Some(BootEnd::ShutDown)));
    let before = story.dhcp(3_600_000, DhcpKind::Discover, true).ended.unwrap();
    assert_eq!(before.end, Some(BootEnd::ShutDown), "it was switched on again an hour later");

    let mut story = running();
    story.nfs(60_000, Nfs::Shutdown { export: export.clone() });
    assert_eq!(story.dhcp(9_000, DhcpKind::Discover, true).ended.unwrap().end, Some(BootEnd::Rebooted));

    let mut story = running();
    assert_eq!(story.dhcp(60_000, DhcpKind::Discover, true).ended.unwrap().end, Some(BootEnd::Reset));

    let mut story = running();
    assert!(story.nfs(60_000, Nfs::Gone).notable);
    assert_eq!(state(&story), (BootState::Stopped, Some(BootEnd::Lost)));
    assert!(story.nfs(60_000, Nfs::Back).notable);
    assert_eq!(state(&story), (BootState::Running, None), "only the cable was out");

    let mut story = Story::new();
    story.dhcp(0, DhcpKind::Discover, true);
    story.open(10, 1, b"38c128c0/start4.elf");
    assert_eq!(story.dhcp(30_000, DhcpKind::Discover, true).ended.unwrap().end, Some(BootEnd::StartedOver));
    assert_eq!(story.tracker.boot(PI).unwrap().failed_before, 1);
}

#[test]
fn link_shortly_before_the_first_packet_is_time_zero() {
    let mut story = Story::new();
    let up = story.clock.now();
    let link = |up| What::Link { mac: PI, port: "lan3".into(), up };
    story.after(4_200, link(up));
    story.dhcp(0, DhcpKind::Discover, true);
    assert_eq!(story.stages(), [(Stage::Link, 0), (Stage::Discover, 4_200)]);
    assert_eq!(story.tracker.boot(PI).unwrap().started_ms, 1_000_000);
    // A switch in between has had link for days.
    let mut story = Story::new();
    let up = story.clock.now();
    story.after(3_600_000, link(up));
    story.dhcp(0, DhcpKind::Discover, true);
    assert_eq!(story.stages(), [(Stage::Discover, 0)]);
}

#[test]
fn a_boot_is_followed_on_after_a_restart_of_the_agent() {
    let mut story = Story::new();
    story.dhcp(0, DhcpKind::Discover, true);
    story.open(1_000, 1, b"38c128c0/kernel8.img");
    let text = serde_json::to_string(story.tracker.boot(PI).unwrap()).unwrap();
    let mut later = Story::new();
    later.tracker.resume(serde_json::from_str(&text).unwrap(), 9_000);
    later.nfs(1_000, Nfs::Mounted { export: "/lion/root".into() });
    assert_eq!(later.stages().last(), Some(&(Stage::Mount, 10_000)));
    assert_eq!(later.tracker.boot(PI).unwrap().files[0].outcome, FileOutcome::Lost, "the transfer was cut");
}

#[test]
fn a_talkative_console_loses_its_middle() {
    let mut story = Story::new();
    story.dhcp(0, DhcpKind::Discover, true);
    for n in 0..5_000 {
        let line = format!("line {n} \x1b[2J of a console that says a lot").into_bytes().into();
        story.after(1, What::Console { mac: PI, from: crate::events::ConsoleFrom::Kernel, line });
    }
    let boot = story.tracker.boot(PI).unwrap();
    assert_eq!(boot.console.len() + boot.console_dropped as usize, 5_000);
    assert!(boot.console.iter().map(|line| line.text.len()).sum::<usize>() <= crate::boot::MAX_CONSOLE);
    assert!(boot.console[0].text.starts_with("line 0 ") && boot.console.last().unwrap().text.starts_with("line 4999 "));
    assert!(!boot.console[0].text.contains('\x1b'));
}

#[test]
fn a_pi_that_is_not_heard_of_any_more_has_given_up() {
    let mut story = Story::new();
    story.dhcp(0, DhcpKind::Discover, true);
    story.clock.advance(GIVEN_UP - Duration::from_secs(1));
    story.tracker.give_up_silent(|_| false);
    assert_eq!(story.tracker.boot(PI).unwrap().state, BootState::Booting);
    story.clock.advance(Duration::from_secs(1));
    story.tracker.give_up_silent(|_| false);
    let boot = story.tracker.boot(PI).unwrap();
    assert_eq!((boot.state, boot.end), (BootState::Abandoned, Some(BootEnd::Silent)));
    // Its initramfs may have waited for the network all the time.
    story.nfs(1_000, Nfs::Mounted { export: "/lion/root".into() });
    story.nfs(1_000, Nfs::FirstWrite { export: "/lion/root".into() });
    let boot = story.tracker.boot(PI).unwrap();
    assert_eq!((boot.state, boot.end), (BootState::Running, None));
}
