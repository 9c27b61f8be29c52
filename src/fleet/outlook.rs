//! What a Pi that nobody enrolled waits for, and what it does next: in sentences, from what it showed and what its kind
//! of board is known to do.

use super::SeenPi;
use crate::pi::{Evidence, Model};

/// A boot ROM is through with its five DISCOVERs after 25 s (raspberrypi/documentation, boot-net.adoc): what asks for
/// longer does not stop.
const LONGER_THAN_A_ROM_MS: i64 = 40 * 1000;
/// An EEPROM bootloader that starts over is silent for no longer than this: 20 s for USB disks, 30 s for a file.
const SILENT_MS: i64 = 120 * 1000;

/// What is to be expected of a Pi.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// What it waits for.
    pub waits_for: String,
    /// Whether it will ask again by itself, as far as that can be told.
    pub asks_again: bool,
    /// What it will do, and what to do for it once it is enrolled.
    pub next: String,
}

/// Kinds of boards by what they do when nobody has a boot for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The mask ROM of a Pi 3.
    Rom,
    /// The same packets come from the ROM of a 3B+ and from `bootcode.bin` on an SD card.
    RomOrCard,
    /// The bootloader in the EEPROM of a Pi 4 or 5.
    Eeprom,
    Unknown,
}

impl Kind {
    fn of(pi: &SeenPi) -> Self {
        match (pi.model, pi.evidence) {
            (Some(Model::Pi3), _) => Self::Rom,
            (Some(Model::Pi4 | Model::Pi5), _) | (None, Evidence::Guid) => Self::Eeprom,
            (Some(_), _) => Self::RomOrCard,
            (None, _) if pi.mac.follows_serial() => Self::RomOrCard,
            (None, Evidence::SerialGuid) => Self::Eeprom,
            (None, _) => Self::Unknown,
        }
    }
}

impl SeenPi {
    /// What is to be expected of it at `now_ms` (Unix time in ms).
    #[must_use]
    pub fn outlook(&self, now_ms: i64) -> Outlook {
        let silent_ms = now_ms.saturating_sub(self.asked_ms);
        let is_silent = silent_ms > SILENT_MS;
        let waits_for = if self.started {
            "asked to boot, and has started from somewhere else since (SD card, USB); nobody enrolled it".to_owned()
        } else if is_silent {
            format!("asked to boot {} min ago; nobody enrolled it", silent_ms / 60_000)
        } else {
            "asks to boot; nobody enrolled it".to_owned()
        };
        let does_not_stop = self.asked_ms.saturating_sub(self.asking_since_ms) > LONGER_THAN_A_ROM_MS;
        let (asks_again, next) = match Kind::of(self) {
            _ if self.started => {
                (false, "does not ask while its system runs: enrol it, then restart it without the card")
            }
            _ if is_silent => (false, "does not ask any more: enrol it, then cycle its power"),
            Kind::Rom => (
                false,
                "its boot ROM asks five times, 5 s apart, and then halts until its power is cycled: enrol it, then cycle its power",
            ),
            _ if does_not_stop => (true, "has been asking without a break: once enrolled, it boots when it asks again"),
            Kind::Eeprom => (
                true,
                "asks again every few seconds, if its BOOT_ORDER starts over at its end (the digit f in front, as it comes from the factory); if it falls silent, cycle its power once it is enrolled",
            ),
            Kind::RomOrCard => (
                false,
                "a boot ROM asks five times, 5 s apart, and then halts until its power is cycled; bootcode.bin on an SD card asks on: enrol it, and cycle its power if it does not boot by itself",
            ),
            Kind::Unknown => {
                (false, "may ask again by itself: enrol it, and cycle its power if it does not boot by itself")
            }
        };
        Outlook { waits_for, asks_again, next: next.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pi::Mac;

    const OLD: Mac = Mac([0xb8, 0x27, 0xeb, 0, 0, 1]);
    const NEW: Mac = Mac([0xdc, 0xa6, 0x32, 0, 0, 1]);

    /// A Pi that has been asking from 0 to `last_ms`.
    fn pi(mac: Mac, model: Option<Model>, evidence: Evidence, last_ms: i64) -> SeenPi {
        SeenPi { model, asked: 3, asked_ms: last_ms, last_seen_ms: last_ms, ..SeenPi::new(mac, evidence, 0) }
    }

    #[test]
    fn each_kind_of_board_goes_on_in_its_own_way() {
        let three = Some(Model::Pi3);
        for (pi, again, words) in [
            (pi(OLD, three, Evidence::RomXid, 10_000), false, "halts until its power is cycled: enrol it, then"),
            (pi(OLD, None, Evidence::RomXid, 10_000), false, "bootcode.bin on an SD card asks on"),
            (pi(OLD, None, Evidence::SerialGuid, 300_000), true, "without a break"),
            (pi(OLD, Some(Model::Pi3Plus), Evidence::RomXid, 10_000), false, "bootcode.bin on an SD card"),
            (pi(NEW, Some(Model::Pi4), Evidence::Guid, 10_000), true, "BOOT_ORDER"),
            (pi(NEW, None, Evidence::Guid, 10_000), true, "BOOT_ORDER"),
            (pi(NEW, None, Evidence::SerialGuid, 10_000), true, "BOOT_ORDER"),
            (pi(NEW, None, Evidence::Oui, 10_000), false, "may ask again"),
        ] {
            let outlook = pi.outlook(pi.asked_ms + 1000);
            assert_eq!(outlook.asks_again, again, "{pi:?}");
            assert!(outlook.next.contains(words), "{outlook:?}");
            assert_eq!(outlook.waits_for, "asks to boot; nobody enrolled it");
            let silent = pi.outlook(pi.asked_ms + 600_000);
            assert!(!silent.asks_again && silent.waits_for.starts_with("asked to boot 10 min ago"), "{silent:?}");
        }
    }

    #[test]
    fn one_that_started_from_its_card_is_told_apart() {
        let pi = SeenPi { started: true, ..pi(NEW, Some(Model::Pi4), Evidence::Guid, 10_000) };
        let outlook = pi.outlook(20_000);
        assert!(!outlook.asks_again && outlook.waits_for.contains("SD card"), "{outlook:?}");
    }
}
