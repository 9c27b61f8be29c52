//! What each thing seen on the wire means to the boot that it belongs to.
//!
//! All of these return whether a stage was reached or the state changed: worth storing and announcing now.

use super::classify::{FileKind, board_of};
use super::packets::{MAX_PACKETS, MAX_PACKETS_OF_STRANGER};
use super::session::{
    Boot, BootEnd, BootState, ConsoleLine, FileOutcome, FileSeen, MAX_CONSOLE, MAX_FILES, MAX_OFFERS, MAX_QUIRKS,
    MAX_REFUSALS, OfferSeen, QuirkSeen, Refusal,
};
use super::stage::Stage;
use crate::clock::Moment;
use crate::events::{ConsoleFrom, Dhcp, DhcpKind, Nfs, Tftp, TftpEnd};
use crate::pi;
use crate::pi::quirks::is_rom_of_3b;

/// File requests kept of a Pi that nobody enrolled: it gets no further than its firmware.
const FILES_OF_STRANGERS: usize = 40;
/// Longest text from the network that is kept, in characters.
const MAX_TEXT: usize = 255;
/// What a line of the console takes besides its text.
const LINE: usize = 64;

impl Boot {
    pub(super) fn on_dhcp(&mut self, at: Moment, message: &Dhcp) -> bool {
        // Firmware asks for something to boot whenever it asks, also where its kernel has a name that nobody knows.
        let asks_plainly = message.kind == DhcpKind::Discover && !message.netboot && self.reached(Stage::Tftp);
        let booted = self.reached(Stage::Kernel) || self.reached(Stage::OsDhcp) || asks_plainly;
        let ip = message.ip.map(|ip| ip.to_string());
        if let Some(identity) = &message.identity {
            self.model = pi::family(identity.revision, identity.model).or(self.model);
            self.rom |= is_rom_of_3b(identity);
        }
        if let (DhcpKind::Offer | DhcpKind::Ack, Some(ip)) = (message.kind, message.ip) {
            let (mounted, confirmed) = (self.reached(Stage::Mount), message.kind == DhcpKind::Ack);
            if !mounted || self.ip.is_none_or(|old| old == ip) {
                self.ip = Some(ip.into());
                self.moved_to = self.moved_to.filter(|_| !confirmed);
            } else if confirmed {
                self.moved_to = Some(ip.into());
            }
        }
        match message.kind {
            DhcpKind::Discover if message.netboot => {
                self.discovers = self.discovers.saturating_add(1);
                self.reach(Stage::Discover, at, None)
            }
            DhcpKind::Discover | DhcpKind::Request if booted && !message.netboot => self.reach(Stage::OsDhcp, at, None),
            DhcpKind::Offer if !booted => {
                self.note_offer(at, message);
                // A proxy's names a boot server, and no address.
                message.ip.is_some() && self.reach(Stage::Offer, at, ip)
            }
            DhcpKind::Request if !booted => {
                // A switch keeps another server's offer from us; that its offer is taken is broadcast.
                if message.server.is_some() && !self.offers.iter().any(|offer| offer.server == message.server) {
                    self.note_offer(at, message);
                }
                self.reach(Stage::Request, at, ip)
            }
            DhcpKind::Ack if !booted => self.reach(Stage::Ack, at, ip),
            _ => false,
        }
    }

    fn note_offer(&mut self, at: Moment, message: &Dhcp) {
        let offer = OfferSeen {
            at_ms: self.offset(at),
            server: message.server,
            ip: message.ip,
            boot_menu: message.boot_menu,
            tftp: message.tftp,
        };
        if self.offers.len() < MAX_OFFERS {
            self.offers.push(offer);
        }
    }

    /// `name` is the path without the Pi's own prefix.
    pub(super) fn on_tftp(&mut self, at: Moment, name: &[u8], event: &Tftp) -> bool {
        // What DHCP told of the board is the board's own word.
        self.model = self.model.or_else(|| board_of(name));
        match event {
            Tftp::Open { transfer, size, blksize, .. } => {
                let mut notable = self.reach(Stage::Tftp, at, None);
                if let Some(stage) = stage_of(FileKind::of(name)) {
                    notable |= self.reach(stage, at, Some(text(name)));
                }
                let file = FileSeen {
                    size: *size,
                    blksize: *blksize,
                    transfer: Some(*transfer),
                    ..self.new_file(at, name, FileOutcome::Loading)
                };
                self.keep(file);
                notable
            }
            Tftp::Miss { code, .. } => {
                let outcome = if *code == 1 { FileOutcome::Missing } else { FileOutcome::Refused(*code) };
                let file = self.new_file(at, name, outcome);
                self.keep(file);
                self.reach(Stage::Tftp, at, None)
            }
            Tftp::Closed { transfer, end, acknowledged, took, retransmissions, .. } => {
                if let Some(file) = self.files.iter_mut().rev().find(|f| f.transfer == Some(*transfer)) {
                    file.transfer = None;
                    file.acknowledged = *acknowledged;
                    file.took_ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
                    file.retransmissions = *retransmissions;
                    file.outcome = outcome_of(end);
                }
                false
            }
        }
    }

    pub(super) fn on_nfs(&mut self, at: Moment, event: &Nfs) -> bool {
        match event {
            Nfs::Getport { answered_port, .. } => {
                self.no_port = *answered_port == 0;
                self.reach(Stage::Portmap, at, None)
            }
            Nfs::Mounted { export } => self.reach(Stage::Mount, at, Some(export.to_string())),
            Nfs::FirstRead { export } => self.reach(Stage::FirstRead, at, Some(export.to_string())),
            Nfs::Init { export } => self.reach(Stage::Init, at, Some(export.to_string())),
            Nfs::FirstWrite { export } => {
                self.state = BootState::Running;
                self.end = None;
                self.reach(Stage::FirstWrite, at, Some(export.to_string()))
            }
            // What it writes goes to its memory.
            Nfs::InitReadOnly { .. } => {
                let is_news = self.state != BootState::Running;
                (self.state, self.end) = (BootState::Running, None);
                is_news
            }
            Nfs::Refused { export, why } => {
                let refusal = Refusal { at_ms: self.offset(at), export: text(export.as_bytes()), why: why.to_string() };
                let is_news = self.refusals.len() < MAX_REFUSALS
                    && !self.refusals.iter().any(|r| r.export == refusal.export && r.why == refusal.why);
                if is_news {
                    self.refusals.push(refusal);
                }
                is_news
            }
            Nfs::Shutdown { .. } => {
                self.shutting_down = Some(at);
                false
            }
            Nfs::Gone => self.vanish(at),
            Nfs::Back if self.end == Some(BootEnd::Lost) => {
                (self.state, self.end) = (BootState::Running, None);
                true
            }
            Nfs::Unmounted { .. } | Nfs::Back => false,
        }
    }

    fn vanish(&mut self, at: Moment) -> bool {
        if self.state != BootState::Running {
            return false;
        }
        self.state = BootState::Stopped;
        self.end = Some(if self.was_told_to_end(at) { BootEnd::ShutDown } else { BootEnd::Lost });
        true
    }

    pub(crate) fn on_quirk(&mut self, at: Moment, quirk: &str, note: &str) -> bool {
        let at_ms = self.offset(at);
        if self.quirks.len() < MAX_QUIRKS {
            self.quirks.push(QuirkSeen { at_ms, quirk: quirk.to_owned(), note: note.to_owned() });
        }
        false
    }

    pub(super) fn on_console(&mut self, at: Moment, from: ConsoleFrom, line: &[u8]) -> bool {
        let line = ConsoleLine { at_ms: self.offset(at), from, text: text(line) };
        let most = if self.device.is_some() { MAX_CONSOLE } else { MAX_CONSOLE / 8 };
        let weight = |line: &ConsoleLine| line.text.len() + LINE;
        if self.console.iter().chain([&line]).map(weight).sum::<usize>() > most {
            // The beginning stays, the end says why a kernel died: what goes is the middle.
            let keep = self.console.iter().rev().scan(0, |sum, line| {
                *sum += weight(line);
                (*sum <= most / 4).then_some(())
            });
            let (tail, first) = (keep.count(), self.console.len() / 4);
            let middle = first..self.console.len().saturating_sub(tail).max(first);
            self.console_dropped = self.console_dropped.saturating_add(u32::try_from(middle.len()).unwrap_or(u32::MAX));
            self.console.drain(middle);
        }
        self.console.push(line);
        false
    }

    /// A packet of DHCP, or one that TFTP begins or ends with.
    pub(super) fn on_packet(&mut self, at: Moment, packet: &[u8]) -> bool {
        if self.state == BootState::Booting {
            let started_us = u64::try_from(self.started_ms).unwrap_or(0).saturating_mul(1000);
            let since_us = u64::try_from(at.since(self.began).as_micros()).unwrap_or(u64::MAX);
            let most = if self.device.is_some() { MAX_PACKETS } else { MAX_PACKETS_OF_STRANGER };
            self.packets.add(started_us.saturating_add(since_us), packet, most);
        }
        false
    }

    /// A port of the running system answered.
    pub(super) fn on_answer(&mut self, at: Moment, how: &str) -> bool {
        if self.state == BootState::Booting && (self.reached(Stage::Mount) || self.reached(Stage::OsDhcp)) {
            // Its root is read-only, it was mounted before this server began to tell of first writes, or it is on another
            // server.
            self.state = BootState::Running;
        }
        self.state == BootState::Running && self.reach(Stage::Ready, at, Some(how.to_owned()))
    }

    fn new_file(&self, at: Moment, name: &[u8], outcome: FileOutcome) -> FileSeen {
        FileSeen {
            name: text(name),
            at_ms: self.offset(at),
            took_ms: 0,
            size: 0,
            acknowledged: 0,
            retransmissions: 0,
            blksize: 0,
            outcome,
            transfer: None,
        }
    }

    fn keep(&mut self, file: FileSeen) {
        let most = if self.device.is_some() { MAX_FILES } else { FILES_OF_STRANGERS };
        if self.files.len() < most {
            self.files.push(file);
        } else {
            self.files_dropped = self.files_dropped.saturating_add(1);
        }
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
        TftpEnd::Aborted { code, message } => FileOutcome::Aborted(format!("error {code}: {}", text(message))),
        TftpEnd::Timeout | TftpEnd::Gone | TftpEnd::Stopped => FileOutcome::Lost,
        TftpEnd::ReadError(why) => FileOutcome::ReadError(why.to_string()),
    }
}

/// Text from the network as it may be stored and shown: bounded, nothing that moves a cursor.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
