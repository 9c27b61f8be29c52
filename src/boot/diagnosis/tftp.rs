//! From the first TFTP request to the kernel.

use super::Confidence::{Certain, Likely, Possible};
use super::case::{seconds, size};
use super::{Case, Rule};
use crate::boot::classify::FileKind;
use crate::boot::session::{BootState, FileOutcome, FileSeen, Stage};
use crate::config::Severity::{Error, Warning};
use crate::pi::{Model, TFTP_BLOCKS};

/// A bootloader that goes on asks for the next file at once.
const NEXT_FILE: u64 = 8;
/// `TFTP_FILE_TIMEOUT` of the bootloaders: 30 s a file (raspberrypi/documentation, eeprom-bootloader).
const FILE_LIMIT_MS: u32 = 30_000;
/// From here on it will hardly be done in time.
const SLOW_MS: u32 = 20_000;
/// Blocks sent again that a healthy network may have, in all and of a hundred.
const LOST_BLOCKS: u64 = 30;
const LOST_PERCENT: u64 = 1;
/// A bootloader asks for config.txt four or five times in a good boot.
const REPEATS: usize = 12;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "wrong-serial",
        severity: Warning,
        confidence: Certain,
        last_resort: false,
        source: "doc, boot-net: the TFTP prefix is the serial",
        symptom: |case| {
            let (asked, configured) = (case.boot.prefix?, case.context.serial?);
            (asked != configured).then(|| {
                format!(
                    "The Pi asks for files under its serial {asked}, and is enrolled with the serial {configured}: it finds what it can be given by its MAC address."
                )
            })
        },
        todo: |case| {
            let asked = case.boot.prefix.map(|serial| serial.to_string()).unwrap_or_default();
            let device = case.boot.device.as_deref().unwrap_or("DEVICE");
            format!("Correct it: uci set piboot.{device}.serial={asked}; uci commit piboot; reload_config.")
        },
    },
    Rule {
        id: "refused",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        source: "this router: files of a Pi are for its own address",
        symptom: |case| {
            let file = case.boot.files.iter().find(|file| matches!(file.outcome, FileOutcome::Refused(_)))?;
            Some(format!(
                "The Pi was refused {}: the files of a Pi are given to the address that its MAC address holds, and to nobody else.",
                file.name
            ))
        },
        todo: |_| {
            "See in 'piboot devices' whether the MAC address is the Pi's, and whether two machines have the same address.".to_owned()
        },
    },
    Rule {
        id: "disk-error",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        source: "this router",
        symptom: |case| {
            case.boot.files.iter().find_map(|file| match &file.outcome {
                FileOutcome::ReadError(why) => {
                    Some(format!("{} could not be read from the router's disk: {why}.", file.name))
                }
                _ => None,
            })
        },
        todo: |_| {
            "'dmesg' on the router says what is wrong with the disk; the cable and the power of an SSD in a USB case come first.".to_owned()
        },
    },
    Rule {
        id: "no-bootcode",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        source: "doc, boot-net: the ROM asks for bootcode.bin at the top of the TFTP directory",
        symptom: |case| {
            let missing = case.is_ours() && !case.has(is("bootcode.bin")) && case.misses(is("bootcode.bin"));
            missing.then(|| "The Pi asked for bootcode.bin, the first program of a Pi up to 3, and no image on this router has one.".to_owned())
        },
        todo: |_| "Take an image that is made for this board.".to_owned(),
    },
    Rule {
        id: "no-firmware",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        source: "doc, led_blink_warnings: four blinks",
        symptom: |case| {
            let start = |name: &str| name.starts_with("start") && name.ends_with(".elf");
            let stuck =
                case.is_ours() && case.misses(start) && !got(case, start) && case.boot.model != Some(Model::Pi5);
            let asked: Vec<&str> = names(case, start);
            (stuck && case.waits(3)).then(|| {
                format!("The Pi found no firmware: it asked for {} with and without its serial, and none is there. Its green LED blinks four times.", asked.join(" and "))
            })
        },
        todo: |case| {
            format!("Take an image that is made for a {}, or put its firmware into the boot files.", case.board())
        },
    },
    Rule {
        id: "no-config",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        source: "doc: a Pi 5 is not booted without config.txt",
        symptom: |case| {
            let stuck = case.boot.model == Some(Model::Pi5)
                && case.is_ours()
                && case.misses(is("config.txt"))
                && !got(case, is("config.txt"));
            (stuck && case.waits(3))
                .then(|| "The Pi found no config.txt: a Pi 5 does not boot from files without one.".to_owned())
        },
        todo: |_| "Put a config.txt into the Pi's boot files, an empty one will do.".to_owned(),
    },
    Rule {
        id: "no-fixup",
        severity: Warning,
        confidence: Certain,
        last_resort: false,
        source: "doc, boot_folder: fixup files set up the memory",
        symptom: |case| {
            let fixup = |name: &str| name.starts_with("fixup") && name.ends_with(".dat");
            let missing = case.is_ours() && case.misses(fixup) && !got(case, fixup);
            missing.then(|| {
                format!(
                    "{} is missing: the Pi will see only a small part of its memory.",
                    names(case, fixup).join(" and ")
                )
            })
        },
        todo: |_| "Put the fixup file of the same firmware release beside the start file.".to_owned(),
    },
    Rule {
        id: "no-device-tree",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        source: "doc, device-tree",
        symptom: |case| {
            let tree = |name: &str| name.starts_with("bcm2") && name.ends_with(".dtb");
            let stuck = case.is_ours()
                && case.misses(tree)
                && !got(case, tree)
                && case.before(&[Stage::OsDhcp, Stage::Portmap]);
            (stuck && case.waits(5)).then(|| {
                format!("There is no device tree for this board: the Pi asked for {}.", names(case, tree).join(" and "))
            })
        },
        todo: |_| "Take an image that knows this board: a newer one, if the board is newer than the image.".to_owned(),
    },
    Rule {
        id: "no-kernel",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        source: "doc, led_blink_warnings: seven blinks",
        symptom: |case| {
            let mut kernels = case.files(FileKind::Kernel).peekable();
            let asked = kernels.peek().is_some();
            let none = kernels.all(|file| file.outcome == FileOutcome::Missing);
            (case.is_ours() && asked && none && case.waits(5)).then(|| {
                let kernel = |name: &str| FileKind::of(name.as_bytes()) == FileKind::Kernel;
                format!(
                    "There is no kernel for this board: the Pi asked for {}. Its green LED blinks seven times.",
                    names(case, kernel).join(" and ")
                )
            })
        },
        todo: |case| {
            format!(
                "Take an image that is made for a {}; a kernel= in config.txt has to name a file that is there.",
                case.board()
            )
        },
    },
    Rule {
        id: "too-large",
        severity: Error,
        confidence: Certain,
        last_resort: false,
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
        source: "doc, eeprom-bootloader: TFTP_FILE_TIMEOUT; ee#687",
        symptom: |case| {
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
            "Try another cable and another port; look at the error counters of the port ('ip -s link' on the router)."
                .to_owned()
        },
    },
    Rule {
        id: "firmware-loop",
        severity: Error,
        confidence: Likely,
        last_resort: false,
        source: "ee#74, doc: MAX_RESTARTS",
        symptom: |case| {
            let last = case.last_file()?;
            let times = case.boot.files.iter().filter(|file| file.name == last.name).count();
            let loops = case.boot.files_dropped > 0 || times > REPEATS;
            (loops
                && case.boot.state == BootState::Booting
                && case.before(&[Stage::Kernel, Stage::OsDhcp, Stage::Portmap]))
            .then(|| {
                format!(
                    "The Pi goes round in circles: it has asked for {} {times} times and never for a kernel.",
                    last.name
                )
            })
        },
        todo: |_| {
            "Firmware and boot files do not fit together: take the image anew, or update the Pi's bootloader."
                .to_owned()
        },
    },
    Rule {
        id: "waits-after-file",
        severity: Error,
        confidence: Possible,
        last_resort: true,
        source: "this router",
        symptom: |case| {
            let file = case.last_file()?;
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

/// The Pi has some of it, or looked and found it.
fn got(case: &Case<'_>, wanted: impl Fn(&str) -> bool) -> bool {
    let there =
        |outcome: &FileOutcome| matches!(outcome, FileOutcome::Done | FileOutcome::Probed | FileOutcome::Loading);
    case.boot.files.iter().any(|file| there(&file.outcome) && wanted(&file.name))
}

fn is_cut(file: &FileSeen) -> bool {
    matches!(file.outcome, FileOutcome::Lost | FileOutcome::Aborted(_))
}

fn is(wanted: &'static str) -> impl Fn(&str) -> bool {
    move |name| name == wanted
}

/// The different names that were asked for, in order.
fn names<'a>(case: &Case<'a>, wanted: impl Fn(&str) -> bool) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for file in case.boot.files.iter().filter(|file| wanted(&file.name)) {
        if !names.contains(&file.name.as_str()) {
            names.push(&file.name);
        }
    }
    names
}
