//! What is known of an imported image: `image.json` beside its trees.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use super::fit::Fit;
use crate::pi::Model;
use crate::storage::write_beside;

/// File beside `boot/` and `root/`.
pub const FILE_NAME: &str = "image.json";

/// Entries of a boot directory that are looked at; Raspberry Pi OS has some 60 at the top level.
const MAX_BOOT_ENTRIES: usize = 4096;
/// Names of one kind that are kept; there are some 40 device trees.
const MAX_OF_A_KIND: usize = 200;

/// What an import found out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// The image's name, also its directory's.
    pub name: String,
    /// Name of the file it came from, without its directory.
    pub source: String,
    /// SHA-256 of that file, in hex: what download pages list.
    pub sha256: String,
    /// Size of that file in bytes.
    pub source_bytes: u64,
    /// Size of the unpacked disk image in bytes.
    pub disk_bytes: u64,
    /// When, in Unix milliseconds by the router's clock.
    pub imported_at: i64,
    /// `PRETTY_NAME` of the root's os-release.
    #[serde(default)]
    pub os: Option<String>,
    /// `VERSION_CODENAME` of the root's os-release: `bookworm`, `trixie`.
    #[serde(default)]
    pub codename: Option<String>,
    /// What identifies the image's disk: the signature of an MBR, which is the first half of its PARTUUIDs, or the GUID of
    /// a GPT.
    pub disk_id: String,
    /// PARTUUIDs of the boot and the root partition, as the image's own fstab and cmdline.txt may name them.
    #[serde(default)]
    pub partuuids: Vec<String>,
    /// Entries in the root tree.
    pub root_entries: u64,
    /// Bytes of content in the root tree.
    pub root_bytes: u64,
    /// Entries in the boot tree.
    pub boot_entries: u64,
    /// Bytes of content in the boot tree.
    pub boot_bytes: u64,
    /// Architecture of the root's init: `aarch64`, `armhf`, `x86_64` …; absent if there is no init.
    #[serde(default)]
    pub architecture: Option<String>,
    /// Files of the boot tree's top level that tell which boards it boots.
    #[serde(default)]
    pub boot_files: BootFiles,
    /// What is out of the ordinary about it, in words.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Which boards it boots; absent from what an earlier version wrote, until that was looked at again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fits: Option<Vec<Fit>>,
}

impl ImageInfo {
    /// What is known of its fitness for a family.
    #[must_use]
    pub fn fit(&self, model: Model) -> Option<&Fit> {
        self.fits.as_ref()?.iter().find(|fit| fit.model == model)
    }

    /// Whether it has no kernel that any Pi would start.
    #[must_use]
    pub fn has_no_kernel(&self) -> bool {
        self.fits.as_ref().is_some_and(|fits| fits.iter().all(|fit| !fit.ok && fit.kernel.is_none()))
    }
}

/// What matters of the boot tree's top level, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFiles {
    /// `kernel8.img` …
    pub kernels: Vec<String>,
    /// `initramfs8` …
    pub initramfs: Vec<String>,
    /// `bcm2711-rpi-4-b.dtb` …
    pub device_trees: Vec<String>,
    /// `bootcode.bin`, `start4.elf`, `fixup4.dat` …
    pub firmware: Vec<String>,
}

/// Why `image.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InfoError {
    /// Reading it.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Writing it.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Its content.
    #[error("{path} is damaged: {source}; remove the image and import it again")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Reads the `image.json` of an image's directory.
///
/// # Errors
/// [`InfoError`] naming the file.
pub fn load_info(directory: &Path) -> Result<ImageInfo, InfoError> {
    let path = directory.join(FILE_NAME);
    let shown = || path.display().to_string();
    let mut text = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(1 << 20).read_to_end(&mut text));
    read.map_err(|source| InfoError::Read { path: shown(), source })?;
    serde_json::from_slice(&text).map_err(|source| InfoError::Parse { path: shown(), source })
}

/// Looks at an imported image again and notes which boards it boots, where `image.json` does not say so yet. True if
/// something was noted.
///
/// # Errors
/// [`InfoError`] naming the file.
pub fn note_fits(directory: &Path) -> Result<bool, InfoError> {
    let mut info = load_info(directory)?;
    if info.fits.is_some() {
        return Ok(false);
    }
    info.fits = super::fit::examine_in(directory);
    if info.fits.is_none() {
        return Ok(false);
    }
    let path = directory.join(FILE_NAME);
    let shown = path.display().to_string();
    let mut text =
        serde_json::to_vec_pretty(&info).map_err(|source| InfoError::Parse { path: shown.clone(), source })?;
    text.push(b'\n');
    write_beside(&path, &text, 0o644).map_err(|source| InfoError::Write { path: shown, source })?;
    Ok(true)
}

/// `PRETTY_NAME` and `VERSION_CODENAME` of an os-release file (os-release(5)).
#[must_use]
pub fn parse_os_release(text: &str) -> (Option<String>, Option<String>) {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
        let plain = line.trim().trim_matches(['"', '\'']);
        (!plain.is_empty()).then(|| plain.chars().filter(|c| !c.is_control()).take(200).collect())
    };
    (value("PRETTY_NAME"), value("VERSION_CODENAME"))
}

/// The architecture an ELF file's header names; `None` if it is no ELF file.
#[must_use]
pub fn elf_architecture(head: &[u8]) -> Option<String> {
    let [0x7f, b'E', b'L', b'F', class, data, ..] = head else { return None };
    let machine = [*head.get(18)?, *head.get(19)?];
    let machine = if *data == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    let name = match (machine, class) {
        (183, _) => "aarch64",
        (40, _) => "armhf",
        (62, _) => "x86_64",
        (3, _) => "i386",
        (243, 2) => "riscv64",
        (other, _) => return Some(format!("elf-machine-{other}")),
    };
    Some(name.to_owned())
}

/// Fills in what the trees themselves tell.
pub(super) fn examine(root: &OwnedFd, boot: &OwnedFd, info: &mut ImageInfo) {
    if let Some(text) = ["etc/os-release", "usr/lib/os-release"].iter().find_map(|path| head(root, path, 16384)) {
        (info.os, info.codename) = parse_os_release(&String::from_utf8_lossy(&text));
    }
    let inits = ["sbin/init", "lib/systemd/systemd", "usr/lib/systemd/systemd", "bin/busybox"];
    info.architecture = inits.iter().find_map(|path| elf_architecture(&head(root, path, 64)?));
    info.boot_files = boot_files(boot).unwrap_or_default();
    info.fits = Some(super::fit::examine(boot, root));
}

/// The first bytes of a regular file, its path resolved as a process chrooted into the tree would.
pub(super) fn head(root: &OwnedFd, path: &str, max: u64) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(crate::openat2::openat2(root, path, flags, Mode::empty(), resolve).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut data = Vec::new();
    file.take(max).read_to_end(&mut data).ok()?;
    Some(data)
}

pub(super) fn boot_files(boot: impl AsFd) -> rustix::io::Result<BootFiles> {
    let mut files = BootFiles::default();
    // A Pi may fill its own directory with whatever it likes.
    for entry in rustix::fs::Dir::read_from(boot)?.take(MAX_BOOT_ENTRIES) {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let (kind, name) = (classify(name), name.to_owned());
        let list = match kind {
            Some(BootFile::Kernel) => &mut files.kernels,
            Some(BootFile::Initramfs) => &mut files.initramfs,
            Some(BootFile::DeviceTree) => &mut files.device_trees,
            Some(BootFile::Firmware) => &mut files.firmware,
            None => continue,
        };
        if list.len() < MAX_OF_A_KIND {
            list.push(name);
        }
    }
    for list in [&mut files.kernels, &mut files.initramfs, &mut files.device_trees, &mut files.firmware] {
        list.sort();
    }
    Ok(files)
}

pub(super) enum BootFile {
    Kernel,
    Initramfs,
    DeviceTree,
    Firmware,
}

pub(super) fn classify(name: &str) -> Option<BootFile> {
    let wrapped = |start: &str, ends: &[&str]| name.starts_with(start) && ends.iter().any(|end| name.ends_with(end));
    if wrapped("kernel", &[".img"]) || wrapped("vmlinuz", &[""]) {
        Some(BootFile::Kernel)
    } else if name.starts_with("initramfs") || name.starts_with("initrd") {
        Some(BootFile::Initramfs)
    } else if name.ends_with(".dtb") {
        Some(BootFile::DeviceTree)
    } else if name == "bootcode.bin" || wrapped("start", &[".elf"]) || wrapped("fixup", &[".dat"]) {
        Some(BootFile::Firmware)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_values_lose_their_quotes() {
        let text = "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\n";
        let (os, codename) = parse_os_release(text);
        assert_eq!((os.as_deref(), codename.as_deref()), (Some("Debian GNU/Linux 12 (bookworm)"), Some("bookworm")));
        assert_eq!(parse_os_release("PRETTY_NAME=\n#VERSION_CODENAME=x"), (None, None));
    }

    #[test]
    fn elf_headers_name_the_architecture() {
        let elf = |class, machine: u16| {
            let mut head = vec![0; 20];
            head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1]);
            head[18..].copy_from_slice(&machine.to_le_bytes());
            elf_architecture(&head)
        };
        assert_eq!(elf(2, 183).as_deref(), Some("aarch64"));
        assert_eq!(elf(1, 40).as_deref(), Some("armhf"));
        assert_eq!(elf(2, 9999).as_deref(), Some("elf-machine-9999"));
        assert_eq!(elf_architecture(b"#!/bin/sh"), None);
        assert_eq!(elf_architecture(b"\x7fELF\x02\x01"), None);
    }
}
