//! What a rule may look at.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::classify::FileKind;
use super::super::session::{Boot, BootState, FileOutcome, FileSeen};
use super::super::stage::Stage;
use crate::clock::Moment;
use crate::pi::{Model, Serial};

/// No file takes longer, in milliseconds.
const LONGEST_LOAD_MS: u32 = 300_000;

/// What is known besides the wire: of the device, its trees and this router.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Context {
    /// This router's address, as Pis are told it.
    pub server: Option<Ipv4Addr>,
    /// Every address of this router on the interfaces where Pis are served.
    pub own: Vec<Ipv4Addr>,
    /// The configuration is OpenWrt's, which `uci` edits.
    pub by_uci: bool,
    /// Whether the Pi could boot at all.
    pub readiness: Readiness,
    /// The serial that the configuration gives the device.
    pub serial: Option<Serial>,
    /// What is wrong with the device's trees.
    pub trees: Vec<TreeFinding>,
    /// Why Pis do not find the NFS port, if they do not.
    pub portmapper: Option<String>,
    /// What is wrong with the disk under the roots.
    pub disk: Option<String>,
    /// How much of its quota it has used, if that keeps it from writing.
    pub quota: Option<String>,
    /// The NFS server that is not this router, where Pis mount from one: what they ask it is not seen here.
    pub external: Option<Ipv4Addr>,
    /// Somebody else who has the Pi's address now.
    pub shares_address_with: Option<String>,
}

impl Context {
    /// Whether this is an address of this router.
    pub(super) fn is_own(&self, ip: Ipv4Addr) -> bool {
        self.server == Some(ip) || self.own.contains(&ip)
    }
}

/// Whether a Pi could boot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Readiness {
    /// Nobody enrolled it.
    #[default]
    Stranger,
    /// Its trees are served.
    Ready,
    /// Its trees are being made.
    Preparing,
    /// It cannot boot, and why.
    Blocked(String),
}

/// Something about a device's trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFinding {
    /// Stable name.
    pub id: &'static str,
    /// It keeps the kernel or its initramfs from finding the root.
    pub hides_root: bool,
    /// It keeps init from starting.
    pub stops_init: bool,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub todo: String,
}

/// A boot at one moment.
#[derive(Debug)]
pub struct Case<'a> {
    /// As the wire showed it.
    pub boot: &'a Boot,
    /// What else is known.
    pub context: &'a Context,
    now: Moment,
}

impl<'a> Case<'a> {
    pub(super) const fn new(boot: &'a Boot, now: Moment, context: &'a Context) -> Self {
        Self { boot, context, now }
    }

    /// The Pi is enrolled and its trees are served: what it gets is our business.
    pub(super) fn is_ours(&self) -> bool {
        self.context.readiness == Readiness::Ready
    }

    /// How long the Pi has been silent.
    pub(super) fn silence(&self) -> Duration {
        self.boot.silent_for(self.now)
    }

    /// Whether it has been silent for so many seconds, and is under way.
    pub(super) fn waits(&self, seconds: u64) -> bool {
        self.boot.state == BootState::Booting
            && self.loading().is_none()
            && self.silence() >= Duration::from_secs(seconds)
    }

    /// How long ago the first packet came.
    pub(super) fn age(&self) -> Duration {
        self.now.since(self.boot.first_packet)
    }

    pub(super) fn reached(&self, stage: Stage) -> bool {
        self.boot.reached(stage)
    }

    /// None of these was reached.
    pub(super) fn before(&self, stages: &[Stage]) -> bool {
        !stages.iter().any(|stage| self.reached(*stage))
    }

    /// Milliseconds from the boot's first packet to now.
    pub(super) fn now_ms(&self) -> u32 {
        self.boot.offset(self.now)
    }

    /// The file that is being loaded.
    pub(super) fn loading(&self) -> Option<&'a FileSeen> {
        // That the end of one was told may have been lost.
        let recent = |file: &&FileSeen| self.now_ms().saturating_sub(file.at_ms) < LONGEST_LOAD_MS;
        self.boot.files.iter().rev().find(|file| file.outcome == FileOutcome::Loading).filter(recent)
    }

    /// The request that came last.
    pub(super) fn last_file(&self) -> Option<&'a FileSeen> {
        self.boot.files.last()
    }

    /// Requests for files of this kind.
    pub(super) fn files(&self, kind: FileKind) -> impl Iterator<Item = &'a FileSeen> {
        self.boot.files.iter().filter(move |file| FileKind::of(file.name.as_bytes()) == kind)
    }

    /// Whether a file that `wanted` names arrived whole.
    pub(super) fn has(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.boot.files.iter().any(|file| file.outcome == FileOutcome::Done && wanted(&file.name))
    }

    /// Whether a file that `wanted` names was asked for, and was not there.
    pub(super) fn misses(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.boot.files.iter().any(|file| file.outcome == FileOutcome::Missing && wanted(&file.name))
    }

    /// Pi 4 and 5 have a bootloader that can be changed; the others have a ROM that cannot.
    pub(super) fn has_eeprom(&self) -> bool {
        matches!(self.boot.model, Some(Model::Pi4 | Model::Pi5))
    }

    /// The family in words.
    pub(super) fn board(&self) -> String {
        self.boot.model.map_or_else(|| "Raspberry Pi".to_owned(), |model| model.to_string())
    }

    /// This router's address in words.
    pub(super) fn server(&self) -> String {
        self.context.server.map_or_else(|| "this router".to_owned(), |ip| format!("this router ({ip})"))
    }

    /// How to set an option of the configuration; `section` is `main` or a device's.
    pub(super) fn set(&self, section: &str, option: &str, value: &str) -> String {
        if self.context.by_uci {
            format!("uci set piboot.{section}.{option}={value}; uci commit piboot; reload_config")
        } else {
            format!(
                "'option {option} {value}' in section '{section}' of piboot's configuration, then SIGHUP to the agent"
            )
        }
    }

    /// The section of the Pi in the configuration.
    pub(super) fn section(&self) -> &'a str {
        self.boot.device.as_deref().unwrap_or("DEVICE")
    }

    /// How to start over: a Pi with an EEPROM tries again by itself, a ROM that gave up does not.
    pub(super) fn start_over(&self) -> &'static str {
        if self.has_eeprom() { "then restart the Pi" } else { "then take the Pi's power away and give it back" }
    }

    /// The first thing wrong with the trees of which `bears` is true.
    pub(super) fn tree(&self, bears: impl Fn(&TreeFinding) -> bool) -> Option<&'a TreeFinding> {
        self.context.trees.iter().find(|finding| bears(finding))
    }
}

/// Milliseconds as seconds with one digit.
pub(super) fn seconds(ms: u32) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// Bytes as megabytes with one digit, or kilobytes.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..100_000 => format!("{} kB", bytes / 1000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    }
}
