//! Who a Raspberry Pi is: MAC address, serial number, board revision, and what one packet told us of them.

mod board;
mod led;
mod mac;
pub mod quirks;
mod serial;
mod text;

pub use board::{Board, Model, Revision, family};
pub use led::{Flashes, LedCode, NoBlinkCode, led};
pub use mac::{Mac, ParseMacError};
pub use serial::{ParseSerialError, Serial};

use serde::{Deserialize, Serialize};

/// Blocks that a bootloader's 16-bit counter counts (RFC 1350 §5): those before 2025-09-23 do not start it over, and a
/// file of more blocks is cut (rpi-eeprom issues 375 and 720).
pub const TFTP_BLOCKS: u64 = 65_535;

/// How we know that a packet came from a Raspberry Pi, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// DHCP option 97 starts with the FourCC `RPi…` (Pi 4, 5 and their relatives).
    Guid,
    /// The boot ROM's constant transaction id 0x26f30339 with vendor class PXEClient (Pi 2B v1.2, 3, CM3).
    RomXid,
    /// Option 97 is the serial four times over and agrees with the MAC address.
    SerialGuid,
    /// The MAC address lies in a block assigned to Raspberry Pi, nothing more.
    Oui,
}

impl Evidence {
    /// How sure that makes us, for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Guid => "certain: it names its board",
            Self::RomXid => "certain: the boot ROM's transaction number",
            Self::SerialGuid => "nearly certain: its serial and its MAC address agree",
            Self::Oui => "likely: its MAC address is from a block of Raspberry Pi's",
        }
    }
}

/// What one DHCP packet told about the Pi that sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// Hardware address of the sender.
    pub mac: Mac,
    /// Low 32 bits of the serial: the TFTP prefix. Absent from a 3B ROM's DISCOVER.
    pub serial: Option<Serial>,
    /// The board revision word, where the packet carries it (Pi 4 and later).
    pub revision: Option<Revision>,
    /// Model family when there is no revision word but the packet gives the family away.
    pub model: Option<Model>,
    /// Why we believe it is a Pi.
    pub evidence: Evidence,
}
