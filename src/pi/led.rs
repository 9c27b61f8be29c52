//! What the green LED of a Pi that does not boot means: so many long and so many short flashes, over and over.
//!
//! Source: raspberrypi/documentation, `led_blink_warnings.adoc`.

use serde::{Deserialize, Serialize};

/// A blink code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LedCode {
    /// Long flashes.
    pub long: u8,
    /// Short flashes.
    pub short: u8,
    /// What it means.
    pub meaning: &'static str,
    /// What to do about it when the Pi boots from the network.
    pub todo: &'static str,
}

/// A code as a person gives it: `7`, `0-7`, `4-3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Flashes {
    /// Long flashes.
    pub long: u8,
    /// Short flashes.
    pub short: u8,
}

/// Why a text is no blink code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no blink code: give the short flashes (7), or the long and the short ones (4-3)")]
pub struct NoBlinkCode(String);

impl std::str::FromStr for Flashes {
    type Err = NoBlinkCode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (long, short) = text.split_once('-').unwrap_or(("0", text));
        match (long.trim().parse(), short.trim().parse()) {
            (Ok(long), Ok(short)) => Ok(Self { long, short }),
            _ => Err(NoBlinkCode(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Flashes {
    type Error = NoBlinkCode;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

const fn code(long: u8, short: u8, meaning: &'static str, todo: &'static str) -> LedCode {
    LedCode { long, short, meaning, todo }
}

/// All of them.
static LED_CODES: [LedCode; 19] = [
    code(
        0,
        3,
        "it cannot boot, for no reason it could name",
        "look at its boot here ('piboot boot DEVICE'), and at a screen",
    ),
    code(
        0,
        4,
        "start*.elf was not found",
        "the image has no firmware for this board: 'piboot check' says which file is missing",
    ),
    code(
        0,
        7,
        "no kernel was found",
        "the image has no kernel for this board: 'piboot check' says which are looked for",
    ),
    code(0, 8, "the memory does not work", "the board is broken, or start*.elf and fixup*.dat do not belong together"),
    code(
        0,
        9,
        "there is too little memory",
        "start*.elf and fixup*.dat do not belong together, or gpu_mem in config.txt is too large",
    ),
    code(0, 10, "it was halted", "take its power away and give it back"),
    code(2, 1, "the partition is no FAT", "it tries to boot from a card or disk: take it out, or correct BOOT_ORDER"),
    code(2, 2, "the partition cannot be read", "it tries to boot from a card or disk: take it out, or replace it"),
    code(
        2,
        3,
        "the extended partition is no FAT",
        "it tries to boot from a card or disk: take it out, or correct BOOT_ORDER",
    ),
    code(
        2,
        4,
        "a signature or checksum does not match",
        "secure boot is on, or the EEPROM's image is damaged: write the bootloader anew (Raspberry Pi Imager, Misc utility images)",
    ),
    code(
        3,
        1,
        "the EEPROM does not answer as it should",
        "write the bootloader anew (Raspberry Pi Imager, Misc utility images)",
    ),
    code(3, 2, "the EEPROM is write-protected", "take the write protection off, or stop the bootloader's update"),
    code(3, 3, "an I2C error", "take off what is plugged onto the board; the board may be broken"),
    code(
        3,
        4,
        "the secure-boot configuration is not valid",
        "write the bootloader anew with the keys it was locked to",
    ),
    code(4, 3, "the I/O chip RP1 was not found", "the board is broken"),
    code(4, 4, "this type of board is not supported", "the firmware is older than the board: take a newer image"),
    code(4, 5, "a fatal error of the firmware", "take a newer image; update the bootloader"),
    code(4, 6, "a power failure of type A", "another power supply and cable"),
    code(4, 7, "a power failure of type B", "another power supply and cable"),
];

/// What a blink code means, if it is one; all of them if none is given.
#[must_use]
pub fn led(flashes: Option<Flashes>) -> Option<&'static [LedCode]> {
    let Some(Flashes { long, short }) = flashes else { return Some(&LED_CODES) };
    LED_CODES.iter().find(|code| (code.long, code.short) == (long, short)).map(std::slice::from_ref)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_as_people_write_them() {
        let meaning =
            |text: &str| text.parse().ok().and_then(|flashes| led(Some(flashes))).map(|codes| codes[0].meaning);
        assert_eq!(meaning("7"), Some("no kernel was found"));
        assert_eq!(meaning("0-7"), meaning("7"));
        assert_eq!(meaning("4-3"), Some("the I/O chip RP1 was not found"));
        assert_eq!((meaning("5-5"), meaning("x"), meaning("-"), meaning("999")), (None, None, None, None));
        for (n, code) in LED_CODES.iter().enumerate() {
            let same = LED_CODES.iter().skip(n + 1).any(|other| (other.long, other.short) == (code.long, code.short));
            assert!(!same, "{code:?} is there twice");
        }
    }
}
