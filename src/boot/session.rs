//! One boot of one Pi.

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::pi::Mac;

/// File requests kept per boot; a Pi makes about 60, a Pi that loops is cut here.
pub const MAX_FILES: usize = 300;

/// Stages of a boot in the order in which they normally come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The Pi asked for an address and something to boot.
    Discover,
    /// A DHCP server offered an address.
    Offer,
    /// The Pi took the offer (Pi 4 and later; earlier ones just use it).
    Request,
    /// The server confirmed.
    Ack,
    /// The first TFTP request.
    Tftp,
    /// First firmware file.
    Firmware,
    /// First configuration file.
    Config,
    /// First device tree or overlay.
    DeviceTree,
    /// The kernel was asked for.
    Kernel,
    /// The initial ramdisk was asked for.
    Initramfs,
    /// The booted kernel, or its initramfs, asked for an address.
    OsDhcp,
    /// It asked the portmapper where NFS is.
    Portmap,
    /// It mounted its root.
    Mount,
    /// It read the first file.
    FirstRead,
    /// It looked for the program that becomes process 1.
    Init,
    /// It wrote for the first time: the system is coming up.
    FirstWrite,
}

impl Stage {
    /// What happened, for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Discover => "asked for an address (DHCP DISCOVER)",
            Self::Offer => "was offered an address",
            Self::Request => "took the address",
            Self::Ack => "address confirmed",
            Self::Tftp => "first TFTP request",
            Self::Firmware => "loading firmware",
            Self::Config => "reading config.txt",
            Self::DeviceTree => "loading the device tree",
            Self::Kernel => "loading the kernel",
            Self::Initramfs => "loading the initramfs",
            Self::OsDhcp => "Linux asked for an address",
            Self::Portmap => "asked for the NFS port",
            Self::Mount => "mounted its root",
            Self::FirstRead => "read its first file",
            Self::Init => "started init",
            Self::FirstWrite => "first write: the system is coming up",
        }
    }
}

/// A stage that was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageSeen {
    /// Which.
    pub stage: Stage,
    /// Milliseconds since the boot began.
    pub at_ms: u32,
    /// What else there is to say: an address, an export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

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
    /// Another boot began before this one got that far.
    Abandoned,
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
    pub ip: Option<std::net::IpAddr>,
    #[serde(skip)]
    pub(crate) began: Moment,
    #[serde(skip)]
    pub(crate) last_seen: Moment,
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
            began,
            last_seen: began,
            unsaved: true,
        }
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

    /// Milliseconds from the first packet to `at`.
    pub(crate) fn offset(&self, at: Moment) -> u32 {
        u32::try_from(at.since(self.began).as_millis()).unwrap_or(u32::MAX)
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
