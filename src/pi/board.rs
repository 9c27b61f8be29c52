//! Board revision words, decoded by field as the revision-code document demands
//! (raspberrypi/documentation, revision-codes.adoc: `NOQuuuWuFMMMCCCCPPPPTTTTTTTTRRRR`).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Board families that differ in how they boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Model {
    /// Pi 1, Zero, 2B up to v1.1: boots by `bootcode.bin` on an SD card.
    Pi1,
    /// Pi 2B (BCM2836, or BCM2837 from v1.2 on).
    Pi2,
    /// Pi 3B, CM3, Zero 2 W, 3A+: mask ROM with the known DHCP bugs.
    Pi3,
    /// Pi 3B+, CM3+: mask ROM with those bugs fixed.
    Pi3Plus,
    /// Pi 4B, 400, CM4, CM4S: bootloader in EEPROM, then start4.elf.
    Pi4,
    /// Pi 5, 500, CM5: bootloader in EEPROM holds the firmware.
    Pi5,
}

impl Model {
    /// Short stable name for JSON and command lines: `pi3`, `pi3+`, `pi4` …
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pi1 => "pi1",
            Self::Pi2 => "pi2",
            Self::Pi3 => "pi3",
            Self::Pi3Plus => "pi3+",
            Self::Pi4 => "pi4",
            Self::Pi5 => "pi5",
        }
    }

    /// Reads what [`Model::name`] writes.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pi1, Self::Pi2, Self::Pi3, Self::Pi3Plus, Self::Pi4, Self::Pi5].into_iter().find(|m| m.name() == name)
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pi1 => "Raspberry Pi 1 or Zero",
            Self::Pi2 => "Raspberry Pi 2",
            Self::Pi3 => "Raspberry Pi 3",
            Self::Pi3Plus => "Raspberry Pi 3+",
            Self::Pi4 => "Raspberry Pi 4",
            Self::Pi5 => "Raspberry Pi 5",
        })
    }
}

impl Serialize for Model {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::from_name(&name).ok_or_else(|| serde::de::Error::custom(format!("no model of Raspberry Pi: '{name}'")))
    }
}

/// A new-style revision word (bit 23 set).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision(u32);

/// A board's family: by its revision word where that is known.
#[must_use]
pub fn family(revision: Option<Revision>, model: Option<Model>) -> Option<Model> {
    revision.and_then(|revision| revision.board().model).or(model)
}

/// What a revision word says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// Marketing name without "Raspberry Pi": `4B`, `CM4`, `500` …
    pub name: &'static str,
    /// Board family, `None` for a type this version does not know.
    pub model: Option<Model>,
    /// Memory in MB, `None` for a code this version does not know.
    pub memory_mb: Option<u32>,
    /// Board revision: 1 means v1.1.
    pub minor: u8,
}

impl Revision {
    /// Takes a revision word; `None` unless it is new-style (bit 23).
    #[must_use]
    pub const fn new(word: u32) -> Option<Self> {
        if word & (1 << 23) != 0 { Some(Self(word)) } else { None }
    }

    /// The word itself.
    #[must_use]
    pub const fn word(self) -> u32 {
        self.0
    }

    /// Decodes the fields.
    #[must_use]
    pub fn board(self) -> Board {
        let minor = u8::try_from(self.0 & 0xf).unwrap_or(0);
        let (name, model) = match self.0 >> 4 & 0xff {
            0x00 => ("A", Some(Model::Pi1)),
            0x01 => ("B", Some(Model::Pi1)),
            0x02 => ("A+", Some(Model::Pi1)),
            0x03 => ("B+", Some(Model::Pi1)),
            0x04 => ("2B", Some(Model::Pi2)),
            0x06 => ("CM1", Some(Model::Pi1)),
            0x08 => ("3B", Some(Model::Pi3)),
            0x09 => ("Zero", Some(Model::Pi1)),
            0x0a => ("CM3", Some(Model::Pi3)),
            0x0c => ("Zero W", Some(Model::Pi1)),
            0x0d => ("3B+", Some(Model::Pi3Plus)),
            0x0e => ("3A+", Some(Model::Pi3)),
            0x10 => ("CM3+", Some(Model::Pi3Plus)),
            0x11 => ("4B", Some(Model::Pi4)),
            0x12 => ("Zero 2 W", Some(Model::Pi3)),
            0x13 => ("400", Some(Model::Pi4)),
            0x14 => ("CM4", Some(Model::Pi4)),
            0x15 => ("CM4S", Some(Model::Pi4)),
            0x17 => ("5", Some(Model::Pi5)),
            0x18 => ("CM5", Some(Model::Pi5)),
            0x19 => ("500", Some(Model::Pi5)),
            0x1a => ("CM5 Lite", Some(Model::Pi5)),
            0x1b => ("CM0", Some(Model::Pi3)),
            // An unknown type still tells its processor, and that decides how it boots.
            _ => match self.0 >> 12 & 0xf {
                0 => ("(new type)", Some(Model::Pi1)),
                1 => ("(new type)", Some(Model::Pi2)),
                2 => ("(new type)", Some(Model::Pi3)),
                3 => ("(new type)", Some(Model::Pi4)),
                4 => ("(new type)", Some(Model::Pi5)),
                _ => ("(new type)", None),
            },
        };
        let memory_mb = match self.0 >> 20 & 7 {
            code @ 0..=6 => Some(256 << code),
            _ => None,
        };
        Board { name, model, memory_mb, minor }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let board = self.board();
        write!(f, "Raspberry Pi {} v1.{}", board.name, board.minor)?;
        match board.memory_mb {
            Some(mb) if mb >= 1024 => write!(f, ", {} GB", mb / 1024),
            Some(mb) => write!(f, ", {mb} MB"),
            None => Ok(()),
        }
    }
}

impl Serialize for Revision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:06x}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_codes_decode() {
        // revision-codes.adoc lists these words with these boards.
        for (word, text) in [
            (0xa0_2082, "Raspberry Pi 3B v1.2, 1 GB"),
            (0xa0_20d3, "Raspberry Pi 3B+ v1.3, 1 GB"),
            (0xa0_3111, "Raspberry Pi 4B v1.1, 1 GB"),
            (0xc0_3114, "Raspberry Pi 4B v1.4, 4 GB"),
            (0xd0_4170, "Raspberry Pi 5 v1.0, 8 GB"),
            (0x90_2120, "Raspberry Pi Zero 2 W v1.0, 512 MB"),
        ] {
            assert_eq!(Revision::new(word).unwrap().to_string(), text);
        }
    }

    #[test]
    fn old_style_words_are_refused_and_new_types_keep_their_family() {
        assert_eq!(Revision::new(0x000e), None);
        let unknown = Revision::new(0xa0_4ff0).unwrap().board();
        assert_eq!(unknown.model, Some(Model::Pi5));
    }
}
