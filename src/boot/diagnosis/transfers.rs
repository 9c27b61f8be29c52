//! From the first TFTP request to the kernel: files that do not arrive, or not whole, or not in time.

use super::Confidence::{Certain, Likely, Possible};
use super::Rule;
use super::case::{seconds, size};
use crate::boot::classify::{FileKind, is_bootloader_update};
use crate::boot::session::{BootState, FileOutcome, FileSeen};
use crate::boot::stage::Stage;
use crate::config::Severity::{Error, Warning};
use crate::pi::TFTP_BLOCKS;

/// A bootloader that goes on asks for the next file at once.
const NEXT_FILE: u64 = 8;
/// `TFTP_FILE_TIMEOUT` of the bootloaders: 30 s a file (raspberrypi/documentation, eeprom-bootloader).
const FILE_LIMIT_MS: u32 = 30_000;
/// From here on it will hardly be done in time.
const SLOW_MS: u32 = 20_000;
/// Blocks sent again that a healthy network may have, in all and of a hundred.
const LOST_BLOCKS: u64 = 30;
const LOST_PERCENT: u64 = 1;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "too-large",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        after_start: false,
        source: "ee#375, ee#720: 65535 blocks",
        symptom: |case| {
            let over = |file: &&FileSeen| file.blksize > 0 && file.size > TFTP_BLOCKS * u64::from(file.blksize);
            let file = case.boot.files.iter().filter(|file| is_cut(file)).find(over)?;
            let limit = TFTP_BLOCKS * u64::from(file.blksize);
            Some(format!(
                "{} has {}: this Pi's bootloader cannot load more than {} of a file, and stops there.",
                file.name,
                size(file.size),
                size(limit)
            ))
        },
        todo: |case| {
            let smaller = "Make it smaller (MODULES=dep in /etc/initramfs-tools/initramfs.conf on the Pi)";
            if case.has_eeprom() {
                format!("{smaller}, or update the bootloader to one from September 2025 or later.")
            } else {
                format!("{smaller}.")
            }
        },
    },
    Rule {
        id: "too-slow",
        severity: Error,
        confidence: Likely,
        last_resort: false,
        after_start: false,
        source: "doc, eeprom-bootloader: TFTP_FILE_TIMEOUT; ee#687",
        symptom: |case| {
            // The ROM of a Pi up to 3, and what it loads, know no such limit.
            if !case.has_eeprom() || case.boot.state != BootState::Booting {
                return None;
            }
            if let Some(file) = case.loading() {
                let took = case.now_ms().saturating_sub(file.at_ms);
                return (took >= SLOW_MS).then(|| {
                    format!(
                        "{} ({}) has been loading for {}: the Pi gives a file up after {}.",
                        file.name,
                        size(file.size),
                        seconds(took),
                        seconds(FILE_LIMIT_MS)
                    )
                });
            }
            let file =
                case.boot.files.iter().rev().find(|file| is_cut(file) && file.took_ms >= FILE_LIMIT_MS - 5_000)?;
            Some(format!(
                "{} took too long: {} of {} in {}. The Pi gives a file up after {}.",
                file.name,
                size(file.acknowledged),
                size(file.size),
                seconds(file.took_ms),
                seconds(FILE_LIMIT_MS)
            ))
        },
        todo: |_| {
            "Look for what slows the network: a port at 10 or 100 Mbit/s, a long or old cable, Wi-Fi between router and Pi, a busy router ('top'). Smaller files help, too.".to_owned()
        },
    },
    Rule {
        id: "cut-short",
        severity: Error,
        confidence: Likely,
        last_resort: false,
        after_start: false,
        source: "ee#375",
        symptom: |case| {
            let big =
                |file: &&FileSeen| matches!(FileKind::of(file.name.as_bytes()), FileKind::Kernel | FileKind::Initramfs);
            let later = |file: &FileSeen| {
                case.boot.files.iter().any(|other| other.name == file.name && other.outcome == FileOutcome::Done)
            };
            let file = case
                .boot
                .files
                .iter()
                .filter(big)
                .find(|file| is_cut(file) && file.acknowledged > 0 && !later(file))?;
            let went_on = case.last_file().is_some_and(|last| last.at_ms > file.at_ms) || case.reached(Stage::OsDhcp);
            let too_large = file.blksize > 0 && file.size > TFTP_BLOCKS * u64::from(file.blksize);
            (went_on && !too_large && case.before(&[Stage::Mount])).then(|| {
                format!(
                    "{} was cut short at {} of {}, and the Pi went on with what it had.",
                    file.name,
                    size(file.acknowledged),
                    size(file.size)
                )
            })
        },
        todo: |case| {
            format!(
                "Restart the Pi. If it happens again: the cable, the switch and the power supply; {}.",
                case.start_over()
            )
        },
    },
    Rule {
        id: "stalled-file",
        severity: Error,
        confidence: Likely,
        last_resort: false,
        after_start: false,
        source: "doc, boot-net: ARP of the Pi 3B; fw#1631",
        symptom: |case| {
            let file = case
                .last_file()
                .filter(|file| file.outcome == FileOutcome::Lost && file.took_ms < FILE_LIMIT_MS - 5_000)?;
            let stuck = case.is_ours() && case.before(&[Stage::OsDhcp, Stage::Portmap]) && case.waits(3);
            stuck.then(|| {
                format!(
                    "The Pi stopped in the middle of {}, after {} of {}, and has been silent since.",
                    file.name,
                    size(file.acknowledged),
                    size(file.size)
                )
            })
        },
        todo: |case| {
            if case.boot.rom {
                "Take the Pi's power away and give it back. Another cable or port, and a power supply that is strong enough, are next.".to_owned()
            } else {
                "Another cable or port, and a power supply that is strong enough for the Pi; then restart it."
                    .to_owned()
            }
        },
    },
    Rule {
        id: "given-up-file",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        after_start: false,
        source: "RFC 1350 §5",
        symptom: |case| {
            let file = case.last_file()?;
            let FileOutcome::Aborted(said) = &file.outcome else { return None };
            (case.before(&[Stage::OsDhcp, Stage::Portmap]) && case.waits(3))
                .then(|| format!("The Pi gave {} up after {}: {said}.", file.name, size(file.acknowledged)))
        },
        todo: |_| {
            "Look at the Pi's screen, if it has one: the bootloader shows what it makes of the file there.".to_owned()
        },
    },
    Rule {
        id: "lossy-network",
        severity: Warning,
        confidence: Likely,
        last_resort: false,
        after_start: false,
        source: "RFC 1350: a block is sent again when its acknowledgement is missing",
        symptom: |case| {
            let again: u64 = case.boot.files.iter().map(|file| u64::from(file.retransmissions)).sum();
            let blocks: u64 =
                case.boot.files.iter().map(|file| file.acknowledged / u64::from(file.blksize.max(1))).sum();
            (again >= LOST_BLOCKS && again * 100 > blocks * LOST_PERCENT).then(|| {
                format!("The network loses packets: {again} of {blocks} blocks had to be sent again. The boot takes longer for each.")
            })
        },
        todo: |_| {
            "Try another cable and another port; look at the error counters of the port ('cat /proc/net/dev' on the router)."
                .to_owned()
        },
    },
    Rule {
        id: "updating-bootloader",
        severity: Warning,
        confidence: Likely,
        last_resort: false,
        after_start: false,
        source: "doc, boot-eeprom: ENABLE_SELF_UPDATE",
        symptom: |case| {
            let file = case
                .last_file()
                .filter(|file| is_bootloader_update(&file.name) && file.outcome == FileOutcome::Done)?;
            case.waits(1).then(|| format!("The Pi has loaded {} and is writing its new bootloader.", file.name))
        },
        todo: |_| "Leave its power on: it restarts by itself when it is done, within a minute.".to_owned(),
    },
    Rule {
        id: "waits-after-file",
        severity: Error,
        confidence: Possible,
        last_resort: true,
        after_start: false,
        source: "this router",
        symptom: |case| {
            let file = case.last_file().filter(|file| !is_bootloader_update(&file.name))?;
            let kernel_done = case.files(FileKind::Kernel).any(|file| file.outcome == FileOutcome::Done);
            let stuck = case.is_ours()
                && !kernel_done
                && case.before(&[Stage::OsDhcp, Stage::Portmap, Stage::Mount])
                && case.waits(NEXT_FILE);
            stuck.then(|| {
                format!(
                    "The Pi has asked for nothing since {}, for {} s, and has no kernel yet.",
                    file.name,
                    case.silence().as_secs()
                )
            })
        },
        todo: |case| {
            format!(
                "A screen at the Pi, or its green LED ('piboot led'), shows what the firmware is missing; {}.",
                case.start_over()
            )
        },
    },
];

fn is_cut(file: &FileSeen) -> bool {
    matches!(file.outcome, FileOutcome::Lost | FileOutcome::Aborted(_))
}
