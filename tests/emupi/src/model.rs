//! Which board is played, and what follows from that.

use crate::frame::Mac;
use std::fmt;
use std::str::FromStr;

/// A board, or one of the other machines a network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Model {
    /// Raspberry Pi 3B: mask ROM with its bugs, then `bootcode.bin`.
    Pi3B,
    /// Raspberry Pi 3B+: the ROM with most bugs fixed.
    Pi3BPlus,
    /// Any board up to 3B+ with only `bootcode.bin` on an SD card.
    Bootcode,
    /// Raspberry Pi 4B.
    Pi4B,
    /// Raspberry Pi 400.
    Pi400,
    /// Compute Module 4.
    Cm4,
    /// Raspberry Pi 5.
    Pi5,
    /// Compute Module 5.
    Cm5,
    /// A PC that boots from the network. No Raspberry Pi; it must be left alone.
    X86Pxe,
    /// A laptop. No Raspberry Pi; it must be left alone.
    Laptop,
}

/// How a board's boot is organised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// ROM or SD card → `bootcode.bin` → `start.elf`.
    Rom,
    /// EEPROM bootloader → `start4.elf`.
    Bcm2711,
    /// EEPROM bootloader that is the firmware.
    Bcm2712,
    /// Not a Raspberry Pi.
    Other,
}

impl Model {
    /// Every model, with its name on the command line.
    pub const ALL: [(&'static str, Model); 10] = [
        ("3b", Model::Pi3B),
        ("3b+", Model::Pi3BPlus),
        ("bootcode", Model::Bootcode),
        ("4", Model::Pi4B),
        ("400", Model::Pi400),
        ("cm4", Model::Cm4),
        ("5", Model::Pi5),
        ("cm5", Model::Cm5),
        ("x86pxe", Model::X86Pxe),
        ("laptop", Model::Laptop),
    ];

    /// How this board's boot is organised.
    pub fn family(self) -> Family {
        match self {
            Model::Pi3B | Model::Pi3BPlus | Model::Bootcode => Family::Rom,
            Model::Pi4B | Model::Pi400 | Model::Cm4 => Family::Bcm2711,
            Model::Pi5 | Model::Cm5 => Family::Bcm2712,
            Model::X86Pxe | Model::Laptop => Family::Other,
        }
    }

    /// A revision code this model is sold with.
    pub fn usual_revision(self) -> u32 {
        match self {
            Model::Pi3B | Model::Bootcode => 0x00a0_2082,
            Model::Pi3BPlus => 0x00a0_20d3,
            Model::Pi4B => 0x00c0_3112,
            Model::Pi400 => 0x00c0_3130,
            Model::Cm4 => 0x00c0_3140,
            Model::Pi5 => 0x00c0_4170,
            Model::Cm5 => 0x00c0_4180,
            Model::X86Pxe | Model::Laptop => 0,
        }
    }

    /// The MAC address of a board with this serial number. Up to the 3B+ it follows from the serial; later boards have
    /// an address of their own, and this is merely a plausible one.
    pub fn usual_mac(self, serial: u64) -> Mac {
        let [.., c, d, e] = serial.to_be_bytes();
        let oui = match self.family() {
            Family::Rom => [0xb8, 0x27, 0xeb],
            Family::Bcm2711 => [0xdc, 0xa6, 0x32],
            Family::Bcm2712 => [0x2c, 0xcf, 0x67],
            Family::Other => [0x3c, 0x97, 0x0e],
        };
        Mac([oui[0], oui[1], oui[2], c, d, e])
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Model::ALL.iter().find(|(_, m)| m == self).map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}

/// Text that names no model.
#[derive(Debug, thiserror::Error)]
#[error("unknown model '{0}'; known: 3b, 3b+, bootcode, 4, 400, cm4, 5, cm5, x86pxe, laptop")]
pub struct UnknownModel(String);

impl FromStr for Model {
    type Err = UnknownModel;

    fn from_str(text: &str) -> Result<Model, UnknownModel> {
        let name = match text {
            "4b" => "4",
            "5b" => "5",
            "3bplus" => "3b+",
            other => other,
        };
        let found = Model::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, model)| *model).ok_or_else(|| UnknownModel(text.to_owned()))
    }
}

/// What the bootloader in the EEPROM can do, by its release date (rpi-eeprom release notes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Eeprom {
    /// Before 2022-10-03: TFTP blocks of 1024 bytes, no block-number rollover.
    Y2021,
    /// Until 2025-09: blocks of 1468 bytes, no block-number rollover (rpi-eeprom issue 720).
    Y2024,
    /// Since 2025-09-23: the block number wraps to 0.
    Y2025,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pi {
    /// What it is.
    pub model: Model,
    /// Serial number; its low 32 bits name the TFTP directory.
    pub serial: u64,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its revision code.
    pub revision: u32,
    /// Its bootloader, for boards that have one.
    pub eeprom: Eeprom,
}

impl Pi {
    /// A board with the usual address and revision for its model and a current bootloader.
    pub fn new(model: Model, serial: u64) -> Pi {
        let (mac, revision) = (model.usual_mac(serial), model.usual_revision());
        Pi { model, serial, mac, revision, eeprom: Eeprom::Y2025 }
    }

    /// The low 32 bits of the serial number, all that the boot protocols carry.
    pub fn serial32(&self) -> u32 {
        (self.serial & 0xffff_ffff) as u32
    }

    /// The TFTP directory of this board: 8 lower-case hexadecimal digits and a slash.
    pub fn prefix(&self) -> String {
        format!("{:08x}/", self.serial32())
    }

    /// Board type, bits 4 to 11 of the revision code.
    pub fn board_type(&self) -> u32 {
        self.revision >> 4 & 0xff
    }

    /// Whether a BCM2712 has stepping D0, which boards from revision 1.1 on have.
    pub fn is_d0(&self) -> bool {
        self.model.family() == Family::Bcm2712 && self.revision & 0xf >= 1
    }

    /// The PXE machine identifier (DHCP option 97, RFC 4578 §2.3): a zero byte and 16 bytes.
    pub fn guid(&self) -> [u8; 17] {
        let mut guid = [0; 17];
        let serial = self.serial32().to_le_bytes();
        match self.model.family() {
            Family::Rom => guid[1..].chunks_mut(4).for_each(|part| part.copy_from_slice(&serial)),
            Family::Bcm2711 | Family::Bcm2712 => {
                guid[1..5].copy_from_slice(if self.model.family() == Family::Bcm2711 { b"RPi4" } else { b"RPi5" });
                guid[5..9].copy_from_slice(&self.revision.to_le_bytes());
                guid[9..13].copy_from_slice(&self.mac.0[2..]);
                guid[13..].copy_from_slice(&serial);
            }
            // A PC's firmware UUID; any will do.
            Family::Other => {
                guid[1..9].copy_from_slice(&[0x4c, 0x4c, 0x45, 0x44, 0x00, 0x42, 0x51, 0x10]);
                guid[11..].copy_from_slice(&self.mac.0);
            }
        }
        guid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_of_a_captured_pi_4() {
        let pi = Pi {
            model: Model::Pi4B,
            serial: 0x1000_0000_5b15_4510,
            mac: "dc:a6:32:2e:f8:ed".parse().unwrap(),
            revision: 0x00a0_3111,
            eeprom: Eeprom::Y2021,
        };
        let text: Vec<String> = pi.guid().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(text.join(":"), "00:52:50:69:34:11:31:a0:00:32:2e:f8:ed:10:45:15:5b");
        assert_eq!(pi.prefix(), "5b154510/");
    }

    #[test]
    fn up_to_the_3b_plus_the_serial_gives_mac_and_identifier() {
        let pi = Pi::new(Model::Pi3BPlus, 0x5189_8158);
        assert_eq!(pi.mac.to_string(), "b8:27:eb:89:81:58");
        // Captured from a board with serial 5564247d.
        let guid = Pi::new(Model::Bootcode, 0x5564_247d).guid();
        assert_eq!(guid, [0, 125, 36, 100, 85, 125, 36, 100, 85, 125, 36, 100, 85, 125, 36, 100, 85]);
    }

    #[test]
    fn stepping_d0_is_known_by_the_board_revision() {
        let mut pi = Pi::new(Model::Pi5, 1);
        assert!(!pi.is_d0());
        pi.revision = 0x00e0_4171;
        assert!(pi.is_d0());
        assert_eq!(pi.board_type(), 0x17);
    }
}
