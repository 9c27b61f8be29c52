//! Known weaknesses of boards, and what a server does about each.
//!
//! Three more things help such boards and have no switch, because they help everybody:
//! - TFTP never sends a block again because of a late acknowledgement, and waits 250 ms before it does so at all: early
//!   `start4.elf` acknowledged block N + 1 when block N came twice (raspberrypi/firmware issue 1631).
//! - TFTP vouches for a client's neighbour entry with every few blocks (`MSG_CONFIRM`, send(2)), so that the kernel does
//!   not ask a Pi 3B that has stopped answering ARP while it loads (raspberrypi/documentation, boot-net.adoc). Pinning the
//!   entry by netlink would do the same once more, and would have to be undone after a crash.
//! - Offers of the built-in proxy go to the asking Pi alone. A Pi 3B takes any offer with the transaction number that all
//!   of them share, so that of many that start together a few get what was meant for another (firmware issues 1120, 1303).

use std::fmt;
use std::str::FromStr;

use super::{Evidence, Identity, Model};

/// Something that is done for boards that need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quirk {
    /// Three spaces at the end of the boot menu.
    MenuSpaces,
    /// An offer that comes later.
    ReplyDelay,
    /// A few frames that nobody asked for.
    WakeUp,
    /// An address of its own.
    FixedAddress,
}

/// What there is to know of a quirk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub quirk: Quirk,
    /// What `list quirk_off` calls it.
    pub name: &'static str,
    /// The boards that need it.
    pub boards: &'static str,
    /// What goes wrong without it.
    pub why: &'static str,
    /// Where that was found.
    pub source: &'static str,
}

/// All of them.
pub const TABLE: [Entry; 4] = [
    Entry {
        quirk: Quirk::MenuSpaces,
        name: "menu_spaces",
        boards: "3B (boot ROM)",
        why: "compares the menu with 20 characters, so without three spaces at its end the Pi does not see that it may boot",
        source: "raspberrypi/documentation, boot-net.adoc",
    },
    Entry {
        quirk: Quirk::ReplyDelay,
        name: "reply_delay",
        boards: "3B (boot ROM)",
        why: "misses a second reply that comes right after the first, and waits for it until its attempts are used up",
        source: "raspberrypi/firmware issues 859, 862, 934",
    },
    Entry {
        quirk: Quirk::WakeUp,
        name: "wake_up",
        boards: "3B (boot ROM and bootcode.bin)",
        why: "leaves a received packet in its network chip until another one arrives, and stalls on a quiet network",
        source: "raspberrypi/firmware issues 764, 894, 1124",
    },
    Entry {
        quirk: Quirk::FixedAddress,
        name: "fixed_address",
        boards: "up to 3B+",
        why: "takes the address it is offered without a word to the server, which may offer it to the next Pi as well",
        source: "raspberrypi/firmware issues 1067, 1120, 1303, 1699",
    },
];

impl Quirk {
    /// What `list quirk_off` calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MenuSpaces => "menu_spaces",
            Self::ReplyDelay => "reply_delay",
            Self::WakeUp => "wake_up",
            Self::FixedAddress => "fixed_address",
        }
    }
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No quirk has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no quirk; there are {all}", all = TABLE.map(|entry| entry.name).join(", "))]
pub struct UnknownQuirk(pub String);

impl FromStr for Quirk {
    type Err = UnknownQuirk;

    fn from_str(text: &str) -> Result<Self, UnknownQuirk> {
        let entry = TABLE.iter().find(|entry| entry.name == text);
        entry.map(|entry| entry.quirk).ok_or_else(|| UnknownQuirk(text.to_owned()))
    }
}

/// Whether this is the boot ROM of a Pi 3B, by what nothing else sends: its transaction number and its option 97. The
/// `bootcode.bin` that it loads has the number, too, and a better option 97.
#[must_use]
pub fn is_rom_of_3b(identity: &Identity) -> bool {
    identity.evidence == Evidence::RomXid && identity.model == Some(Model::Pi3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_names_lead_back() {
        for entry in TABLE {
            assert_eq!((entry.quirk.name(), entry.name.parse()), (entry.name, Ok(entry.quirk)));
        }
        let unknown = "Menu_Spaces".parse::<Quirk>().unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "'Menu_Spaces' is no quirk; there are menu_spaces, reply_delay, wake_up, fixed_address"
        );
    }
}
