//! From the first TFTP request to the kernel: files that are not there, or not for this Pi.

use super::Confidence::{Certain, Likely};
use super::{Case, Rule};
use crate::boot::classify::FileKind;
use crate::boot::session::{BootState, FileOutcome};
use crate::boot::stage::Stage;
use crate::config::Severity::{Error, Warning};
use crate::pi::Model;

/// A bootloader asks for config.txt four or five times in a good boot.
const REPEATS: usize = 12;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "wrong-serial",
        severity: Warning,
        confidence: Certain,
        last_resort: false,
        after_start: false,
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
            format!("Correct it: {}.", case.set(case.section(), "serial", &asked))
        },
    },
    Rule {
        id: "refused",
        severity: Error,
        confidence: Certain,
        last_resort: false,
        after_start: false,
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
        after_start: false,
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
        after_start: false,
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
        after_start: false,
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
        after_start: false,
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
        after_start: false,
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
        after_start: false,
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
        after_start: false,
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
        id: "firmware-loop",
        severity: Error,
        confidence: Likely,
        last_resort: false,
        after_start: false,
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
];

fn got(case: &Case<'_>, wanted: impl Fn(&str) -> bool) -> bool {
    let there =
        |outcome: &FileOutcome| matches!(outcome, FileOutcome::Done | FileOutcome::Probed | FileOutcome::Loading);
    case.boot.files.iter().any(|file| there(&file.outcome) && wanted(&file.name))
}

fn is(wanted: &'static str) -> impl Fn(&str) -> bool {
    move |name| name == wanted
}

fn names<'a>(case: &Case<'a>, wanted: impl Fn(&str) -> bool) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for file in case.boot.files.iter().filter(|file| wanted(&file.name)) {
        if !names.contains(&file.name.as_str()) {
            names.push(&file.name);
        }
    }
    names
}
