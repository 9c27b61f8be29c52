//! One boot of one Pi.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::diagnosis::Finding;
use super::packets::Packets;
use super::stage::{Stage, StageSeen};
use crate::clock::{Clock, Moment};
use crate::events::ConsoleFrom;
use crate::pi::{Mac, Model, Serial};

/// File requests kept per boot; a Pi makes about 60, a Pi that loops is cut here.
pub const MAX_FILES: usize = 300;
/// An end so soon after the program for it was started is an orderly one.
const SHUTDOWN: Duration = Duration::from_secs(300);
/// Offers kept per boot: two servers answering every retry of a Pi 3B are ten.
pub const MAX_OFFERS: usize = 16;
/// Refusals kept per boot.
pub const MAX_REFUSALS: usize = 8;
/// Notes of what was done for a board, per boot.
pub const MAX_QUIRKS: usize = 32;
/// Bytes of console kept per boot: a kernel's log is some 30 KiB, and its end says why it died.
pub const MAX_CONSOLE: usize = 96 << 10;

/// How a file request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileOutcome {
    /// Still going.
    Loading,
    /// All of it arrived.
    Done,
    /// There is no such file, which is normal for about half of what a Pi asks for.
    Missing,
    /// The Pi only wanted to know whether it is there ("Early terminate").
    Probed,
    /// We refused it (TFTP error code other than "not found").
    Refused(u16),
    /// The Pi gave up with an error of its own.
    Aborted(String),
    /// The Pi fell silent, or its port closed.
    Lost,
    /// We could not read it.
    ReadError(String),
}

/// A file the Pi asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSeen {
    /// Name as asked, without the Pi's own prefix; bytes that are no UTF-8 or not printable are replaced.
    pub name: String,
    /// Milliseconds since the boot began.
    pub at_ms: u32,
    /// How long the transfer took.
    pub took_ms: u32,
    /// Size on disk.
    pub size: u64,
    /// Bytes the Pi acknowledged.
    pub acknowledged: u64,
    /// Blocks sent again.
    pub retransmissions: u32,
    /// Block size that was agreed on; 0 if nothing was sent.
    #[serde(default)]
    pub blksize: u16,
    /// How it ended.
    pub outcome: FileOutcome,
    /// The server's transfer number while it is loading.
    #[serde(skip)]
    pub(crate) transfer: Option<u32>,
}

/// Where a boot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootState {
    /// Under way.
    Booting,
    /// The system runs from its root.
    Running,
    /// It ran, and does not any more: [`Boot::end`] says how that came.
    Stopped,
    /// Another boot began before this one got that far.
    Abandoned,
}

/// How a boot that is over came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootEnd {
    /// The system was shut down.
    ShutDown,
    /// The system was shut down, and the Pi boots again.
    Rebooted,
    /// It boots again without having shut down: power cut, crash or watchdog.
    Reset,
    /// It fell silent while it ran: power, cable or crash.
    Lost,
    /// It started over before its system ran.
    StartedOver,
    /// Nothing more was heard of it before its system ran.
    Silent,
}

impl BootEnd {
    /// What happened, for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::ShutDown => "it was shut down",
            Self::Rebooted => "it was restarted in order",
            Self::Reset => "it started again without having shut down: power cut, crash or watchdog",
            Self::Lost => "it fell silent while it ran: power cut, cable or crash",
            Self::StartedOver => "it started over before its system ran",
            Self::Silent => "nothing more was heard of it before its system ran",
        }
    }
}

/// A DHCP server's offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferSeen {
    /// Milliseconds since the boot began.
    pub at_ms: u32,
    /// Who offered (option 54).
    pub server: Option<Ipv4Addr>,
    /// The address offered; a proxy offers none.
    pub ip: Option<Ipv4Addr>,
    /// It carries the boot menu (option 43).
    pub boot_menu: bool,
    /// The TFTP server it names.
    pub tftp: Option<Ipv4Addr>,
}

/// A line of the console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleLine {
    /// Milliseconds since the boot began.
    pub at_ms: u32,
    /// Who speaks.
    pub from: ConsoleFrom,
    /// What it says, made printable.
    pub text: String,
}

/// Something that was done to get around a weakness of the board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuirkSeen {
    /// Milliseconds since the boot began.
    pub at_ms: u32,
    /// Its name, as `piboot.main.quirk_off` takes it.
    pub quirk: String,
    /// What was done.
    pub note: String,
}

/// An NFS request that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Milliseconds since the boot began.
    pub at_ms: u32,
    /// What was asked for.
    pub export: String,
    /// Why it was refused.
    pub why: String,
}

/// One boot of one Pi, from its first packet on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Number in the store; 0 before it is stored.
    pub id: i64,
    /// The device, if it is enrolled.
    pub device: Option<String>,
    /// Hardware address.
    pub mac: Mac,
    /// Wall clock at its first packet, Unix time in ms.
    pub started_ms: i64,
    /// Where it stands.
    pub state: BootState,
    /// Stages reached, in the order they were reached.
    pub stages: Vec<StageSeen>,
    /// Files asked for, in order.
    pub files: Vec<FileSeen>,
    /// File requests not kept because there were too many.
    pub files_dropped: u32,
    /// The Pi's address.
    pub ip: Option<IpAddr>,
    /// How it came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<BootEnd>,
    /// The board's family, where its packets tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// The packets were those of the boot ROM of a Pi 3B, which has known weaknesses.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rom: bool,
    /// The serial it put before its TFTP requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Serial>,
    /// Offers of address or boot menu that were seen, or taken without being seen; at most [`MAX_OFFERS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offers: Vec<OfferSeen>,
    /// DISCOVERs sent.
    #[serde(default)]
    pub discovers: u32,
    /// The address that DHCP gave it while it had its root mounted from another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<IpAddr>,
    /// The portmapper was asked and knew no port.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_port: bool,
    /// Refused mounts and NFS requests, at most [`MAX_REFUSALS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<Refusal>,
    /// What was done for this board, at most [`MAX_QUIRKS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quirks: Vec<QuirkSeen>,
    /// Its console, at most [`MAX_CONSOLE`] bytes of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub console: Vec<ConsoleLine>,
    /// Lines of the console that were not kept.
    #[serde(default, skip_serializing_if = "is_default")]
    pub console_dropped: u32,
    /// How many boots right before this one did not get as far as a running system.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failed_before: u32,
    /// Bytes it need not load because rule `trim` leaves out the initramfs, the largest of those that the boards of the image
    /// load; 0 if it loads one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub spared_bytes: u64,
    /// What is, or was, in its way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Time zero: its first packet, or the moment its port got link shortly before.
    #[serde(skip)]
    pub(crate) began: Moment,
    #[serde(skip)]
    pub(crate) first_packet: Moment,
    /// What had passed before time zero, in milliseconds: an earlier run of the agent followed it.
    #[serde(skip)]
    pub(crate) passed_ms: u32,
    #[serde(skip)]
    pub(crate) last_seen: Moment,
    /// The system was told to end.
    #[serde(skip)]
    pub(crate) shutting_down: Option<Moment>,
    #[serde(skip)]
    pub(crate) packets: Packets,
    /// Changed since it was stored.
    #[serde(skip)]
    pub(crate) unsaved: bool,
}

impl Boot {
    /// A boot whose first packet came at `began`.
    #[must_use]
    pub const fn new(mac: Mac, device: Option<String>, began: Moment, started_ms: i64) -> Self {
        Self {
            id: 0,
            device,
            mac,
            started_ms,
            state: BootState::Booting,
            stages: Vec::new(),
            files: Vec::new(),
            files_dropped: 0,
            ip: None,
            end: None,
            model: None,
            rom: false,
            prefix: None,
            offers: Vec::new(),
            discovers: 0,
            moved_to: None,
            no_port: false,
            refusals: Vec::new(),
            quirks: Vec::new(),
            console: Vec::new(),
            console_dropped: 0,
            failed_before: 0,
            spared_bytes: 0,
            findings: Vec::new(),
            began,
            first_packet: began,
            passed_ms: 0,
            last_seen: began,
            shutting_down: None,
            packets: Packets::new(),
            unsaved: true,
        }
    }

    /// Whether the program that ends the system was started shortly before `at`; it may also have been replaced by an upgrade.
    pub(super) fn was_told_to_end(&self, at: Moment) -> bool {
        self.shutting_down.is_some_and(|told| at.since(told) < SHUTDOWN)
    }

    /// Whether this is another view of the same boot, whatever its number.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.mac == other.mac && self.started_ms == other.started_ms
    }

    /// Whether the stage was reached.
    #[must_use]
    pub fn reached(&self, stage: Stage) -> bool {
        self.stages.iter().any(|s| s.stage == stage)
    }

    /// The stage reached last.
    #[must_use]
    pub fn last_stage(&self) -> Option<&StageSeen> {
        self.stages.last()
    }

    /// How long nothing was heard of the Pi that belongs to this boot.
    #[must_use]
    pub fn silent_for(&self, now: Moment) -> std::time::Duration {
        now.since(self.last_seen)
    }

    /// Milliseconds since its first packet; for one of an earlier run of the agent by the wall clock.
    #[must_use]
    pub fn age_ms(&self, clock: &Clock) -> u32 {
        let age = clock.wall_ms().saturating_sub(self.started_ms);
        u32::try_from(age.max(0)).unwrap_or(u32::MAX)
    }

    /// Milliseconds from the first packet to `at`.
    pub(crate) fn offset(&self, at: Moment) -> u32 {
        u32::try_from(at.since(self.began).as_millis()).unwrap_or(u32::MAX).saturating_add(self.passed_ms)
    }

    /// It is followed again from `now` on. What was being loaded when the agent ended was cut off.
    pub(super) fn take_up(&mut self, now: Moment, age_ms: u32) {
        (self.began, self.first_packet, self.last_seen, self.passed_ms) = (now, now, now, age_ms);
        for file in self.files.iter_mut().filter(|file| file.outcome == FileOutcome::Loading) {
            file.outcome = FileOutcome::Lost;
        }
    }

    /// Notes a stage the first time it is reached; true if this was the first time.
    pub(crate) fn reach(&mut self, stage: Stage, at: Moment, detail: Option<String>) -> bool {
        if self.reached(stage) {
            return false;
        }
        let at_ms = self.offset(at);
        self.stages.push(StageSeen { stage, at_ms, detail });
        true
    }
}

/// For what is left out of a story when it is as usual.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
