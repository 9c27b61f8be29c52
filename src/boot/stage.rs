//! The stages of a boot.

use serde::{Deserialize, Serialize};

/// Stages of a boot in the order in which they normally come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Its port of the bridge got link: it was powered on, or restarted.
    Link,
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
    /// The system is up: it answers on a port of its own, or its start-up traffic has died down.
    Ready,
}

impl Stage {
    /// What happened, for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Link => "the network cable has link",
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
            Self::Ready => "the system is up",
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
