//! Sorts wire events into boots.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::classify::split_prefix;
use super::early::Early;
use super::session::{Boot, BootEnd, BootState};
use super::stage::Stage;
use crate::clock::{Clock, Moment};
use crate::events::{ConsoleFrom, Dhcp, DhcpKind, Event, LINK_BEFORE_BOOT, Nfs, Of, Tftp, What};
use crate::pi::{Mac, Serial};

/// Boots followed at once; the one that has been silent longest makes room.
const MAX_BOOTS: usize = 512;
/// Of these, boots of Pis that nobody enrolled: anyone on the LAN can make one up.
const MAX_STRANGERS: usize = 64;
/// A DISCOVER after this much silence is another power-on even if nothing was loaded in between: a Pi 3 asks again after
/// 5 s, a Pi 4 or 5 after 4 s, and after 5 s when its whole attempt failed.
const SAME_ATTEMPT: Duration = Duration::from_secs(8);

/// No Pi sends its second DISCOVER of another power-on so soon after the first of this one.
const SAME_START: Duration = Duration::from_secs(3);

/// A Pi that has been silent for so long is not about to tell anything new: it asks again within seconds, Linux within a minute.
pub const GIVEN_UP: Duration = Duration::from_secs(600);

/// A machine that does not answer is told of after 30 s (`nfs`).
const NOT_A_WORD: Duration = Duration::from_secs(25);

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
    /// The link that was reported last: it belongs to the packet that follows.
    link: Option<Link>,
    early: Early,
}

#[derive(Debug)]
struct Link {
    mac: Mac,
    port: Box<str>,
    up: Moment,
}

impl Tracker {
    /// A tracker that has seen nothing.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, boots: HashMap::new(), link: None, early: Early::default() }
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

    /// Goes on with a boot that an earlier run of the agent followed, `age_ms` after its first packet.
    pub fn resume(&mut self, mut boot: Boot, age_ms: u32) {
        let now = self.clock.now();
        boot.take_up(now, age_ms);
        if self.boots.len() < MAX_BOOTS {
            self.boots.entry(boot.mac).or_insert(boot);
        }
    }

    /// Ends the boots of Pis that have not been heard of for so long that nothing more is to come; what stood in their way stays.
    /// Answers whose they are. A connection is a sign of life of its own.
    pub fn give_up_silent(&mut self, is_connected: impl Fn(IpAddr) -> bool) -> Vec<Mac> {
        let now = self.clock.now();
        let mut given_up = Vec::new();
        for boot in self.boots.values_mut() {
            let is_silent = boot.silent_for(now) >= GIVEN_UP && !boot.ip.is_some_and(&is_connected);
            if boot.state == BootState::Booting && is_silent {
                (boot.state, boot.end, boot.unsaved) = (BootState::Abandoned, Some(BootEnd::Silent), true);
                given_up.push(boot.mac);
            }
        }
        given_up
    }

    /// Another store took over: boots that it does not know by their number get a new one when they are stored next.
    pub fn number_anew(&mut self, is_unknown: impl Fn(&Boot) -> bool) {
        for boot in self.boots.values_mut().filter(|boot| is_unknown(boot)) {
            (boot.id, boot.unsaved, boot.packets.unsaved) = (0, true, true);
        }
    }

    /// Takes one event.
    pub fn take(&mut self, event: &Event, who: &dyn Who) -> Update {
        let at = event.at;
        match &event.what {
            What::Dhcp(message) => self.dhcp(at, message, who),
            What::Tftp { peer, event } => self.tftp(at, *peer, event, who),
            What::Nfs { peer, event } => self.nfs(at, *peer, event, who),
            What::Link { mac, port, up } => {
                self.link = Some(Link { mac: *mac, port: port.clone(), up: *up });
                Update::default()
            }
            What::Quirk { mac, quirk, note } => self.known(*mac, |boot| boot.on_quirk(at, quirk, note)),
            What::Console { mac, from, line } => self.console(at, *mac, *from, line),
            What::Packet { of, packet } => {
                let mac = match of {
                    Of::Mac(mac) => Some(*mac),
                    Of::Peer(peer) => who.mac_of(*peer),
                };
                mac.map_or_else(Update::default, |mac| self.known(mac, |boot| boot.on_packet(at, packet)))
            }
            What::Answers { peer, how } => {
                who.mac_of(*peer).map_or_else(Update::default, |mac| self.known(mac, |boot| boot.on_answer(at, how)))
            }
        }
    }

    fn console(&mut self, at: Moment, mac: Mac, from: ConsoleFrom, line: &[u8]) -> Update {
        let is_past = |boot: &Boot| boot.state != BootState::Booting || boot.reached(Stage::Kernel);
        if from == ConsoleFrom::Bootloader && self.boots.get(&mac).is_none_or(is_past) {
            self.early.keep(at, mac, line);
            return Update::default();
        }
        self.known(mac, |boot| boot.on_console(at, from, line))
    }

    /// What only matters to a boot that is followed already.
    fn known(&mut self, mac: Mac, take: impl FnOnce(&mut Boot) -> bool) -> Update {
        let Some(boot) = self.boots.get_mut(&mac) else { return Update::default() };
        let notable = take(boot);
        boot.unsaved = true;
        Update { boot: Some(mac), notable, ended: None, serial: None }
    }

    fn dhcp(&mut self, at: Moment, message: &Dhcp, who: &dyn Who) -> Update {
        let mac = message.mac;
        let asks_to_boot = message.kind == DhcpKind::Discover && message.netboot;
        let ended = if asks_to_boot && self.is_a_new_attempt(mac, at) { self.end(mac, at) } else { None };
        let began = ended.is_some() || !self.boots.contains_key(&mac);
        if began && !asks_to_boot {
            // The DHCP of a running system, or of a Pi that boots from its SD card.
            return Update::default();
        }
        let boot = self.boot_or_new(mac, at, who);
        if let Some(before) = ended.as_ref().filter(|boot| boot.end == Some(BootEnd::StartedOver)) {
            boot.failed_before = before.failed_before.saturating_add(1);
        }
        let notable = boot.on_dhcp(at, message);
        Update { boot: Some(mac), notable: notable || began, ended, serial: None }
    }

    /// Whether a DISCOVER at `at` starts another boot than the one followed. On a Pi 3 the ROM goes through DHCP to
    /// load bootcode.bin, which then goes through DHCP again: that is one boot.
    fn is_a_new_attempt(&self, mac: Mac, at: Moment) -> bool {
        let Some(boot) = self.boots.get(&mac) else { return false };
        if at.since(boot.first_packet) < SAME_START {
            return false;
        }
        let past_rom = boot.files.iter().any(|file| !ROM_FILES.contains(&file.name.as_str()));
        past_rom || boot.reached(Stage::Mount) || at.since(boot.last_seen) > SAME_ATTEMPT
    }

    fn end(&mut self, mac: Mac, at: Moment) -> Option<Box<Boot>> {
        let mut boot = self.boots.remove(&mac)?;
        let in_order = boot.was_told_to_end(at);
        match boot.state {
            BootState::Booting => (boot.state, boot.end) = (BootState::Abandoned, Some(BootEnd::StartedOver)),
            BootState::Running if in_order => (boot.state, boot.end) = (BootState::Stopped, Some(BootEnd::Rebooted)),
            BootState::Running => (boot.state, boot.end) = (BootState::Stopped, Some(BootEnd::Reset)),
            BootState::Stopped if boot.end == Some(BootEnd::ShutDown) && in_order => boot.end = Some(BootEnd::Rebooted),
            BootState::Stopped | BootState::Abandoned => {}
        }
        Some(Box::new(boot))
    }

    fn boot_or_new(&mut self, mac: Mac, at: Moment, who: &dyn Who) -> &mut Boot {
        let link = self.link.take_if(|link| link.mac == mac);
        if !self.boots.contains_key(&mac) {
            self.make_room();
        }
        let (clock, early) = (&self.clock, &mut self.early);
        let boot = self.boots.entry(mac).or_insert_with(|| begin(mac, at, link, early, clock, who));
        if boot.device.is_none() {
            boot.device = who.device_of(mac);
        }
        boot.last_seen = at;
        boot.unsaved = true;
        boot
    }

    /// Made-up addresses push out each other, not the Pis that run.
    fn make_room(&mut self) {
        let strangers = self.boots.values().filter(|boot| boot.device.is_none()).count();
        if self.boots.len() >= MAX_BOOTS || strangers >= MAX_STRANGERS {
            let silent = self.boots.values().min_by_key(|b| (b.device.is_some(), b.last_seen)).map(|b| b.mac);
            silent.and_then(|mac| self.boots.remove(&mac));
        }
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
        boot.prefix = serial.or(boot.prefix);
        let notable = boot.on_tftp(at, name, event);
        Update { boot: Some(mac), notable: notable || began, ended: None, serial: serial.map(|serial| (mac, serial)) }
    }

    fn nfs(&mut self, at: Moment, peer: IpAddr, event: &Nfs, who: &dyn Who) -> Update {
        // Nobody holds the address of a Pi that is gone.
        // It has said nothing for as long as it takes to find that out: else it was its life before this boot.
        let is_silent = |boot: &Boot| boot.silent_for(at) >= NOT_A_WORD;
        let runs_there = |boot: &&Boot| boot.ip == Some(peer) && boot.state == BootState::Running && is_silent(boot);
        let mac = match event {
            Nfs::Gone => self.boots.values().find(runs_there).map(|boot| boot.mac),
            _ => who.mac_of(peer),
        };
        let Some(mac) = mac else { return Update::default() };
        let begins = matches!(event, Nfs::Mounted { .. } | Nfs::Getport { .. } | Nfs::Refused { .. });
        let began = !self.boots.contains_key(&mac);
        if began && (!begins || who.device_of(mac).is_none()) {
            return Update::default();
        }
        let boot = self.boot_or_new(mac, at, who);
        boot.ip = Some(peer);
        let notable = boot.on_nfs(at, event);
        Update { boot: Some(mac), notable: notable || began, ended: None, serial: None }
    }
}

/// A boot that begins now, with the link that came before it and what its bootloader said before its first packet.
fn begin(mac: Mac, at: Moment, link: Option<Link>, early: &mut Early, clock: &Clock, who: &dyn Who) -> Boot {
    let link = link.filter(|link| at.since(link.up) < LINK_BEFORE_BOOT);
    let began = link.as_ref().map_or(at, |link| link.up);
    let since = i64::try_from(at.since(began).as_millis()).unwrap_or(0);
    let mut boot = Boot::new(mac, who.device_of(mac), began, clock.wall_ms().saturating_sub(since));
    boot.first_packet = at;
    if let Some(link) = link {
        boot.reach(Stage::Link, began, Some(link.port.into()));
    }
    for (said_at, line) in early.take(mac, at.minus(LINK_BEFORE_BOOT)) {
        boot.on_console(said_at, ConsoleFrom::Bootloader, &line);
    }
    boot
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
