//! Can these trees boot from the network, on this board? What can be known before anything is switched on.
//!
//! Reads trees that their Pi may have filled with anything: no path leaves them, no file is read whole.

mod cmdline;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use super::fit::{self, Depth, Evidence, Issue, Verdict};
use super::info;
use crate::pi::{Model, TFTP_BLOCKS};

/// Largest block that EEPROM bootloaders ask for, since 2022-10-03.
const EEPROM_BLOCK: u64 = 1468;
/// The block that start.elf of a Pi 3 and older bootloaders ask for.
const OLD_BLOCK: u64 = 1024;
/// Configuration is short; what is longer is not read to its end.
const MAX_TEXT: u64 = 64 << 10;

/// How a problem bears on a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearing {
    /// The firmware does not get as far as starting a kernel.
    Firmware,
    /// The kernel or its initramfs does not find the root.
    Root,
    /// Init does not start.
    Init,
    /// It boots, but something is spoilt.
    Spoils,
}

/// Something that stops or spoils a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeProblem {
    /// Stable name; the same as that of the finding in a boot where both exist.
    pub id: &'static str,
    /// What it does to a boot.
    pub bearing: Bearing,
    /// What is wrong, in a sentence.
    pub text: String,
    /// What to do.
    pub todo: String,
}

/// Whose trees they are.
#[derive(Debug, Clone, Copy)]
pub struct For<'a> {
    /// The board's family, if known.
    pub model: Option<Model>,
    /// The address of this router that the Pi is told.
    pub server: Ipv4Addr,
    /// Name of the export that is the Pi's root.
    pub root_export: &'a str,
}

/// Looks through a device's trees. Empty: nothing is known to be wrong. A tree that cannot be opened is somebody else's finding.
#[must_use]
pub fn check(boot: &Path, root: &Path, of: &For<'_>) -> Vec<TreeProblem> {
    let open = |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let (Ok(boot), Ok(root)) = (open(boot), open(root)) else { return Vec::new() };
    let models = of.model.as_ref().map_or(&fit::MODELS[..], std::slice::from_ref);
    let evidence = Evidence::gather(&boot, &root, models, Depth::Quick);
    let verdicts: Vec<Verdict> = models.iter().map(|model| fit::judge(&evidence, *model)).collect();
    let Some((first, others)) = verdicts.split_first() else { return Vec::new() };
    let mut problems = Vec::new();
    // Of a board that is not known, only what is wrong for all of them.
    let everywhere = |issue: &&Issue| others.iter().all(|verdict| verdict.issues.iter().any(|i| i.id == issue.id));
    let issues = first.issues.iter().filter(everywhere);
    let partial = first.partial.iter().filter(|_| of.model.is_some());
    problems.extend(issues.chain(partial).filter_map(problem));
    let loaded = verdicts.iter().flat_map(|verdict| verdict.loads.kernel.iter().chain(&verdict.loads.initramfs));
    sizes(&boot, &loaded.collect(), of.model, &mut problems);
    if others.iter().all(|verdict| verdict.loads.cmdline == first.loads.cmdline) {
        problems.extend(command_line(text(&boot, &first.loads.cmdline).as_deref(), of));
    }
    swap(&root, &mut problems);
    problems
}

/// What the rules of fitness found, as something that stands in the way of a boot; `None` for what is no problem of this Pi.
fn problem(issue: &Issue) -> Option<TreeProblem> {
    let image = "take an image that is made for this board: 'piboot images' says what each boots";
    let (bearing, todo) = match issue.id {
        "no-firmware" | "no-bootcode" | "no-kernel" | "no-device-tree" => (Bearing::Firmware, image),
        "no-fixup" => (Bearing::Spoils, "put the fixup file of the same firmware release beside it"),
        "page-size" => (Bearing::Spoils, "see whether all programs start"),
        "no-init" => (Bearing::Init, "unenrol it with its data and enrol it again, or put the root's files back"),
        "wrong-architecture" => (
            Bearing::Init,
            "put a kernel of the other kind into the boot files and see config.txt, or take another image",
        ),
        "no-nfs-root" => (
            Bearing::Root,
            "take an image whose kernel has it, or build an initramfs with MODULES=most and nfs-common installed",
        ),
        _ => return None,
    };
    let text = crate::printable::printable(issue.text.as_bytes());
    Some(TreeProblem { id: issue.id, bearing, text, todo: todo.to_owned() })
}

/// What in the text of a cmdline.txt, or in its absence, keeps a Pi from its root.
#[must_use]
pub fn command_line(text: Option<&str>, of: &For<'_>) -> Vec<TreeProblem> {
    let mut problems = Vec::new();
    cmdline::check(text, of, &mut problems);
    problems
}

/// What a block counter of 16 bits cannot carry.
fn sizes(boot: &OwnedFd, loaded: &BTreeSet<&String>, model: Option<Model>, problems: &mut Vec<TreeProblem>) {
    let (block, who) = match model {
        Some(Model::Pi4 | Model::Pi5) => (EEPROM_BLOCK, "a bootloader from before September 2025"),
        _ => (OLD_BLOCK, "the firmware of a Pi up to 3, and a bootloader from before October 2022,"),
    };
    for name in loaded {
        let Some(size) = size(boot, name) else { continue };
        if size > TFTP_BLOCKS * block {
            problems.push(TreeProblem {
                id: "too-large",
                bearing: Bearing::Firmware,
                text: format!(
                    "{name} has {} MB: {who} can load {} MB over TFTP",
                    size >> 20,
                    (TFTP_BLOCKS * block) >> 20
                ),
                todo: "make it smaller (MODULES=dep in /etc/initramfs-tools/initramfs.conf), or update the bootloader"
                    .to_owned(),
            });
        }
    }
}

/// A swap file on NFS hangs the system as soon as memory is short: the swap is behind the network, which needs memory.
fn swap(root: &OwnedFd, problems: &mut Vec<TreeProblem>) {
    let fstab = text(root, "etc/fstab").unwrap_or_default();
    let swaps = |line: &str| {
        let mut words = line.split_whitespace();
        let (what, kind) = (words.next(), words.nth(1));
        kind == Some("swap") && what.is_some_and(|what| what.starts_with('/') && !what.starts_with("/dev/"))
    };
    if fstab.lines().any(|line| !line.trim_start().starts_with('#') && swaps(line)) {
        problems.push(TreeProblem {
            id: "swap-on-nfs",
            bearing: Bearing::Spoils,
            text: "/etc/fstab has a swap file on the NFS root: the Pi hangs when its memory gets short".to_owned(),
            todo: "take the line out; zram gives swap without a disk".to_owned(),
        });
    }
}

fn text(tree: &OwnedFd, path: &str) -> Option<String> {
    info::head(tree, path, MAX_TEXT).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn size(tree: &OwnedFd, path: &str) -> Option<u64> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = crate::openat2::openat2(tree, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).ok()?;
    let stat = rustix::fs::fstat(fd).ok()?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| u64::try_from(stat.st_size).unwrap_or(0))
}

#[cfg(test)]
mod tests;
