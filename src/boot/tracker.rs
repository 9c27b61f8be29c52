//! Sorts wire events into boots.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::classify::{FileKind, split_prefix};
use super::session::{Boot, BootState, FileOutcome, FileSeen, MAX_FILES, Stage};
use crate::clock::{Clock, Moment};
use crate::events::{Dhcp, DhcpKind, Event, Nfs, Tftp, TftpEnd, What};
use crate::pi::{Mac, Serial};

/// Boots followed at once; the one that has been silent longest makes room.
const MAX_BOOTS: usize = 512;
/// A DISCOVER after this much silence is another power-on even if nothing was loaded in between: a Pi 3 asks again after
/// 5 s, a Pi 4 or 5 after 4 s, and after 5 s when its whole attempt failed.
const SAME_ATTEMPT: Duration = Duration::from_secs(8);

/// No Pi sends its second DISCOVER of another power-on so soon after the first of this one.
const SAME_START: Duration = Duration::from_secs(3);

/// What the boot ROM of a Pi 3 loads by itself.
const ROM_FILES: [&str; 2] = ["bootcode.bin", "bootsig.bin"];

/// Who is behind an address: asked by the tracker, answered by whoever knows the fleet.
pub trait Who {
    /// The hardware address that holds `ip`.
    fn mac_of(&self, ip: IpAddr) -> Option<Mac>;
    /// The enrolled device with this hardware address.
    fn device_of(&self, mac: Mac) -> Option<String>;
}

/// What an event changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Update {
    /// The boot that changed.
    pub boot: Option<Mac>,
    /// It reached a new stage, began or ended: worth storing and announcing now.
    pub notable: bool,
    /// A boot that this event ended.
    pub ended: Option<Box<Boot>>,
    /// A Pi asked for files under this serial.
    pub serial: Option<(Mac, Serial)>,
}

/// All boots under way, and the last one of each Pi.
#[derive(Debug)]
pub struct Tracker {
    clock: Clock,
    boots: HashMap<Mac, Boot>,
}

impl Tracker {
    /// A tracker that has seen nothing.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, boots: HashMap::new() }
    }

    /// The current or last boot of a Pi.
    #[must_use]
    pub fn boot(&self, mac: Mac) -> Option<&Boot> {
        self.boots.get(&mac)
    }

    /// The current or last boot of a Pi, to give it its number.
    pub fn boot_mut(&mut self, mac: Mac) -> Option<&mut Boot> {
        self.boots.get_mut(&mac)
    }

    /// All boots followed.
    pub fn boots(&self) -> impl Iterator<Item = &Boot> {
        self.boots.values()
    }

    /// Boots that changed since the last call: file transfers are not stored one by one.
    pub fn boots_to_save(&mut self) -> impl Iterator<Item = &mut Boot> {
        self.boots.values_mut().filter_map(|boot| std::mem::take(&mut boot.unsaved).then_some(boot))
    }

    /// Another store took over: boots that it does not know by their number get a new one when they are stored next.
    pub fn number_anew(&mut self, is_unknown: impl Fn(&Boot) -> bool) {
        for boot in self.boots.values_mut().filter(|boot| is_unknown(boot)) {
            (boot.id, boot.unsaved) = (0, true);
        }
    }

    /// Takes one event.
    pub fn take(&mut self, event: &Event, who: &dyn Who) -> Update {
        match &event.what {
            What::Dhcp(message) => self.dhcp(event.at, message, who),
            What::Tftp { peer, event: tftp } => self.tftp(event.at, *peer, tftp, who),
            What::Nfs { peer, event: nfs } => self.nfs(event.at, *peer, nfs, who),
        }
    }

    fn dhcp(&mut self, at: Moment, message: &Dhcp, who: &dyn Who) -> Update {
        let mac = message.mac;
        let asks_to_boot = message.kind == DhcpKind::Discover && message.netboot;
        let ended = if asks_to_boot && self.is_a_new_attempt(mac, at) { self.end(mac) } else { None };
        let began = ended.is_some() || !self.boots.contains_key(&mac);
        if began && !asks_to_boot {
            // The DHCP of a running system, or of a Pi that boots from its SD card.
            return Update::default();
        }
        let boot = self.boot_or_new(mac, at, who);
        let booted = boot.reached(Stage::Kernel);
        let ip = message.ip.map(|ip| ip.to_string());
        let notable = match message.kind {
            DhcpKind::Discover if message.netboot => boot.reach(Stage::Discover, at, None),
            DhcpKind::Discover | DhcpKind::Request if booted && !message.netboot => boot.reach(Stage::OsDhcp, at, None),
            DhcpKind::Offer if !booted => boot.reach(Stage::Offer, at, ip),
            DhcpKind::Request if !booted => boot.reach(Stage::Request, at, ip),
            DhcpKind::Ack if !booted => boot.reach(Stage::Ack, at, ip),
            _ => false,
        };
        if let (DhcpKind::Offer | DhcpKind::Ack, Some(ip)) = (message.kind, message.ip) {
            boot.ip = Some(ip.into());
        }
        Update { boot: Some(mac), notable: notable || began, ended, serial: None }
    }

    /// Whether a DISCOVER at `at` starts another boot than the one followed. On a Pi 3 the ROM goes through DHCP to
    /// load bootcode.bin, which then goes through DHCP again: that is one boot.
    fn is_a_new_attempt(&self, mac: Mac, at: Moment) -> bool {
        let Some(boot) = self.boots.get(&mac) else { return false };
        if at.since(boot.began) < SAME_START {
            return false;
        }
        let past_rom = boot.files.iter().any(|file| !ROM_FILES.contains(&file.name.as_str()));
        past_rom || boot.reached(Stage::Mount) || at.since(boot.last_seen) > SAME_ATTEMPT
    }

    fn end(&mut self, mac: Mac) -> Option<Box<Boot>> {
        let mut boot = self.boots.remove(&mac)?;
        if boot.state == BootState::Booting {
            boot.state = BootState::Abandoned;
        }
        Some(Box::new(boot))
    }

    fn boot_or_new(&mut self, mac: Mac, at: Moment, who: &dyn Who) -> &mut Boot {
        if !self.boots.contains_key(&mac) && self.boots.len() >= MAX_BOOTS {
            // Made-up addresses push out each other, not the Pis that run.
            let silent = self.boots.values().min_by_key(|b| (b.device.is_some(), b.last_seen)).map(|b| b.mac);
            silent.and_then(|mac| self.boots.remove(&mac));
        }
        let wall_ms = self.clock.wall_ms();
        let boot = self.boots.entry(mac).or_insert_with(|| Boot::new(mac, who.device_of(mac), at, wall_ms));
        if boot.device.is_none() {
            boot.device = who.device_of(mac);
        }
        boot.last_seen = at;
        boot.unsaved = true;
        boot
    }

    fn tftp(&mut self, at: Moment, peer: IpAddr, event: &Tftp, who: &dyn Who) -> Update {
        let Some(mac) = who.mac_of(peer) else { return Update::default() };
        let began = !self.boots.contains_key(&mac);
        if began && who.device_of(mac).is_none() {
            // Some TFTP client of the LAN; a Pi that nobody enrolled begins with a DISCOVER.
            return Update::default();
        }
        let boot = self.boot_or_new(mac, at, who);
        boot.ip = Some(peer);
        let (Tftp::Open { path, .. } | Tftp::Miss { path, .. } | Tftp::Closed { path, .. }) = event;
        let (serial, _, name) = split_prefix(path);
        let mut notable = began;
        match event {
            Tftp::Open { transfer, size, .. } => {
                notable |= boot.reach(Stage::Tftp, at, None);
                if let Some(stage) = stage_of(FileKind::of(name)) {
                    notable |= boot.reach(stage, at, Some(printable(name)));
                }
                let file = FileSeen {
                    size: *size,
                    transfer: Some(*transfer),
                    ..new_file(boot, at, name, FileOutcome::Loading)
                };
                keep(boot, file);
            }
            Tftp::Miss { code, .. } => {
                notable |= boot.reach(Stage::Tftp, at, None);
                let outcome = if *code == 1 { FileOutcome::Missing } else { FileOutcome::Refused(*code) };
                let file = new_file(boot, at, name, outcome);
                keep(boot, file);
            }
            Tftp::Closed { transfer, end, acknowledged, took, retransmissions, .. } => {
                if let Some(file) = boot.files.iter_mut().rev().find(|f| f.transfer == Some(*transfer)) {
                    file.transfer = None;
                    file.acknowledged = *acknowledged;
                    file.took_ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
                    file.retransmissions = *retransmissions;
                    file.outcome = outcome_of(end);
                }
            }
        }
        Update { boot: Some(mac), notable, ended: None, serial: serial.map(|serial| (mac, serial)) }
    }

    fn nfs(&mut self, at: Moment, peer: IpAddr, event: &Nfs, who: &dyn Who) -> Update {
        let Some(mac) = who.mac_of(peer) else { return Update::default() };
        let begins = matches!(event, Nfs::Mounted { .. } | Nfs::Getport { .. });
        let began = !self.boots.contains_key(&mac);
        if began && (!begins || who.device_of(mac).is_none()) {
            return Update::default();
        }
        let boot = self.boot_or_new(mac, at, who);
        boot.ip = Some(peer);
        let named = |export: &Arc<str>| Some(export.to_string());
        let notable = match event {
            Nfs::Getport { .. } => boot.reach(Stage::Portmap, at, None),
            Nfs::Mounted { export } => boot.reach(Stage::Mount, at, named(export)),
            Nfs::FirstRead { export } => boot.reach(Stage::FirstRead, at, named(export)),
            Nfs::Init { export } => boot.reach(Stage::Init, at, named(export)),
            Nfs::FirstWrite { export } => {
                boot.state = BootState::Running;
                boot.reach(Stage::FirstWrite, at, named(export))
            }
            Nfs::Refused { .. } | Nfs::Unmounted { .. } => false,
        };
        Update { boot: Some(mac), notable: notable || began, ended: None, serial: None }
    }
}

const fn stage_of(kind: FileKind) -> Option<Stage> {
    match kind {
        FileKind::Firmware => Some(Stage::Firmware),
        FileKind::Config => Some(Stage::Config),
        FileKind::DeviceTree => Some(Stage::DeviceTree),
        FileKind::Kernel => Some(Stage::Kernel),
        FileKind::Initramfs => Some(Stage::Initramfs),
        FileKind::Other => None,
    }
}

fn outcome_of(end: &TftpEnd) -> FileOutcome {
    match end {
        TftpEnd::Done => FileOutcome::Done,
        // Firmware probes for a file by asking and hanging up; error 0 says so (rpi-eeprom issue 74).
        TftpEnd::Aborted { code: 0, .. } | TftpEnd::Replaced => FileOutcome::Probed,
        TftpEnd::Aborted { code, message } => FileOutcome::Aborted(format!("error {code}: {}", printable(message))),
        TftpEnd::Timeout | TftpEnd::Gone | TftpEnd::Stopped => FileOutcome::Lost,
        TftpEnd::ReadError(why) => FileOutcome::ReadError(why.to_string()),
    }
}

fn new_file(boot: &Boot, at: Moment, name: &[u8], outcome: FileOutcome) -> FileSeen {
    FileSeen {
        name: printable(name),
        at_ms: boot.offset(at),
        took_ms: 0,
        size: 0,
        acknowledged: 0,
        retransmissions: 0,
        outcome,
        transfer: None,
    }
}

fn keep(boot: &mut Boot, file: FileSeen) {
    if boot.files.len() < MAX_FILES {
        boot.files.push(file);
    } else {
        boot.files_dropped = boot.files_dropped.saturating_add(1);
    }
}

/// Text from the network as it may be stored and shown: at most 255 characters, nothing that moves a cursor.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().take(255).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        story
            .after(1, What::Tftp { peer: IP, event: Tftp::Miss { path: (*b"38c128c0/autoboot.txt").into(), code: 1 } });
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
            };
            story.after(1, What::Dhcp(dhcp));
        }
        assert_eq!(story.tracker.boots().count(), MAX_BOOTS);
    }
}
