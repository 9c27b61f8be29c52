//! Can these trees boot from the network, on this board? What can be known before anything is switched on.
//!
//! Reads trees that their Pi may have filled with anything: no path leaves them, no file is read whole.

mod cmdline;

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use super::info::{self, BootFiles, elf_architecture};
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
    let readable = rustix::fs::openat(&boot, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let Some(files) = readable.ok().and_then(|dir| info::boot_files(dir).ok()) else { return Vec::new() };
    let config = Config::read(&boot);
    let mut problems = Vec::new();
    firmware(&files, of.model, &config, &mut problems);
    sizes(&boot, &files, of.model, &mut problems);
    if !config.renames_cmdline {
        problems.extend(command_line(text(&boot, "cmdline.txt").as_deref(), of));
    }
    init(&root, &files, &mut problems);
    swap(&root, &mut problems);
    problems
}

/// What in the text of a cmdline.txt, or in its absence, keeps a Pi from its root.
#[must_use]
pub fn command_line(text: Option<&str>, of: &For<'_>) -> Vec<TreeProblem> {
    let mut problems = Vec::new();
    cmdline::check(text, of, &mut problems);
    problems
}

/// What of config.txt changes the names that the firmware asks for.
#[derive(Debug, Default)]
struct Config {
    renames_kernel: bool,
    renames_cmdline: bool,
    renames_firmware: bool,
    renames_all: bool,
}

impl Config {
    fn read(boot: &OwnedFd) -> Self {
        let mut config = Self::default();
        for line in text(boot, "config.txt").unwrap_or_default().lines() {
            match line.split_once('=').map(|(key, _)| key.trim()) {
                Some("kernel") => config.renames_kernel = true,
                Some("cmdline") => config.renames_cmdline = true,
                Some("start_file" | "fixup_file" | "start_x" | "start_debug" | "gpu_mem") => {
                    config.renames_firmware = true;
                }
                Some("os_prefix" | "device_tree" | "boot_ramdisk") => config.renames_all = true,
                // They may hold any of the others.
                _ if line.trim_start().starts_with("include") => config.renames_all = true,
                _ => {}
            }
        }
        config
    }
}

/// The files without which a family does not come as far as its kernel.
fn firmware(files: &BootFiles, model: Option<Model>, config: &Config, problems: &mut Vec<TreeProblem>) {
    let Some(model) = model else { return };
    let has = |list: &[String], name: &str| list.iter().any(|file| file == name);
    let image = "take an image that is made for this board: 'piboot images' says what each has";
    let mut add = |id, text: String, todo: &str| {
        // Without its fixup file a Pi boots, with little memory.
        let bearing = if id == "no-fixup" { Bearing::Spoils } else { Bearing::Firmware };
        problems.push(TreeProblem { id, bearing, text, todo: todo.to_owned() });
    };
    let (start, fixup, kernels, trees): (&str, &str, &[&str], &str) = match model {
        Model::Pi1 => ("start.elf", "fixup.dat", &["kernel.img"], "bcm2708"),
        Model::Pi2 => ("start.elf", "fixup.dat", &["kernel7.img", "kernel8.img"], "bcm27"),
        Model::Pi3 | Model::Pi3Plus => ("start.elf", "fixup.dat", &["kernel8.img", "kernel7.img"], "bcm2710"),
        Model::Pi4 => ("start4.elf", "fixup4.dat", &["kernel8.img", "kernel7l.img", "kernel7.img"], "bcm2711"),
        Model::Pi5 => ("", "", &["kernel_2712.img", "kernel8.img"], "bcm2712"),
    };
    if !start.is_empty() && !config.renames_firmware {
        if !has(&files.firmware, start) {
            add("no-firmware", format!("the boot files have no {start}, the firmware of a {model}"), image);
        } else if !has(&files.firmware, fixup) {
            let todo = "put the fixup file of the same firmware release beside it";
            add(
                "no-fixup",
                format!("{start} has no {fixup} beside it: a {model} would see a part of its memory only"),
                todo,
            );
        }
    }
    if matches!(model, Model::Pi3 | Model::Pi3Plus | Model::Pi2) && !has(&files.firmware, "bootcode.bin") {
        add("no-bootcode", format!("the boot files have no bootcode.bin, the first that a {model} asks for"), image);
    }
    if config.renames_all {
        return;
    }
    if !config.renames_kernel && !kernels.iter().any(|kernel| has(&files.kernels, kernel)) {
        let text = format!("the boot files have no kernel for a {model} ({})", kernels.join(" or "));
        add("no-kernel", text, image);
    }
    if !files.device_trees.iter().any(|tree| tree.starts_with(trees)) {
        add("no-device-tree", format!("the boot files have no device tree for a {model} ({trees}-….dtb)"), image);
    }
}

/// What a block counter of 16 bits cannot carry.
fn sizes(boot: &OwnedFd, files: &BootFiles, model: Option<Model>, problems: &mut Vec<TreeProblem>) {
    let (block, who) = match model {
        Some(Model::Pi4 | Model::Pi5) => (EEPROM_BLOCK, "a bootloader from before September 2025"),
        _ => (OLD_BLOCK, "the firmware of a Pi up to 3, and a bootloader from before October 2022,"),
    };
    for name in files.kernels.iter().chain(&files.initramfs) {
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

/// Is there an init, and can the kernels run it?
fn init(root: &OwnedFd, files: &BootFiles, problems: &mut Vec<TreeProblem>) {
    let mut add = |id, text: String, todo: &str| {
        problems.push(TreeProblem { id, bearing: Bearing::Init, text, todo: todo.to_owned() });
    };
    let init = ["sbin/init", "etc/init", "bin/init", "bin/sh"]
        .iter()
        .find_map(|path| Some((path, info::head(root, path, 64)?)));
    let Some((path, head)) = init else {
        let todo = "unenrol it with its data and enrol it again, or put the root's files back";
        add("no-init", "the root has no /sbin/init: the kernel would have nothing to start".to_owned(), todo);
        return;
    };
    let is_64_bit = |kernel: &String| kernel.contains('8') || kernel.contains("2712") || kernel.starts_with("vmlinu");
    match elf_architecture(&head).as_deref() {
        Some("aarch64") if !files.kernels.is_empty() && !files.kernels.iter().any(is_64_bit) => {
            let text = format!("/{path} is a 64-bit program and the kernels are 32-bit ({})", files.kernels.join(", "));
            add("wrong-architecture", text, "put kernel8.img into the boot files, or take a 32-bit image");
        }
        Some("aarch64" | "armhf") | None => {}
        Some(other) => {
            let text = format!("/{path} is a program for {other}: no Raspberry Pi runs that");
            add("wrong-architecture", text, "take an image that is made for Raspberry Pis");
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
