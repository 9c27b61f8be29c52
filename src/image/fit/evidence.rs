//! What the trees of an image or a device hold that bears on what they can boot. Whatever a Pi wrote there: no path
//! leaves the trees, and nothing is read without a limit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::drivers::{Built, OVERLAY, Parts};
use super::initramfs::Initramfs;
use super::kernel::Kernel;
use super::settings::Settings;
use crate::image::info::{elf_architecture, head};
use crate::pi::Model;
use crate::printable::printable;

/// Entries of one directory that are looked at.
const MAX_ENTRIES: usize = 4096;
/// Configuration is short.
const MAX_TEXT: u64 = 64 << 10;
/// A kernel's configuration has 300 KB, modules.dep up to a megabyte.
const MAX_LIST: u64 = 4 << 20;
/// Kernels that are installed beside each other.
const MAX_RELEASES: usize = 12;
/// Kernels and initramfs that are read.
const MAX_FILES: usize = 24;

/// How closely the kernels are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The first bytes of kernels; what an initramfs holds stays unknown. Takes milliseconds.
    Quick,
    /// All of them is unpacked. Takes seconds on a router.
    Whole,
}

/// The root's init.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Init {
    Missing,
    /// Path and architecture of the program.
    Program(String, String),
    /// A script, say.
    Unknown,
}

/// All that the rules look at.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    /// Files of the boot tree by path: those at its top, and those in directories that config.txt names.
    pub(crate) files: BTreeSet<String>,
    /// Text of config.txt and of the files beside it that it may include.
    pub(crate) texts: BTreeMap<String, String>,
    pub(crate) init: Init,
    /// By path.
    pub(crate) kernels: BTreeMap<String, Kernel>,
    /// By path; `None` if it could not be read.
    pub(crate) initramfs: BTreeMap<String, Option<Initramfs>>,
    /// What the root tells of the kernels installed in it, by release.
    pub(crate) releases: BTreeMap<String, Parts>,
}

impl Evidence {
    /// Looks through both trees, as far as it matters for these families.
    pub(crate) fn gather(boot: &OwnedFd, root: &OwnedFd, models: &[Model], depth: Depth) -> Self {
        let mut evidence = Self {
            files: list(boot, ".").unwrap_or_default(),
            texts: BTreeMap::new(),
            init: init(root),
            kernels: BTreeMap::new(),
            initramfs: BTreeMap::new(),
            releases: BTreeMap::new(),
        };
        for name in evidence.files.iter().filter(|name| name.ends_with(".txt")).take(MAX_FILES) {
            if let Some(bytes) = head(boot, name, MAX_TEXT) {
                evidence.texts.insert(name.clone(), String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        let settings: Vec<Settings> = models.iter().map(|model| evidence.settings(*model)).collect();
        let prefixes = settings.iter().filter_map(|s| s.get("os_prefix"));
        let named = settings.iter().filter_map(|s| s.get("kernel"));
        let directories: BTreeSet<String> = prefixes
            .chain(named)
            .filter_map(|path| Some(path.trim_start_matches('/').rsplit_once('/')?.0.to_owned()))
            .collect();
        for directory in directories {
            let inner = list(boot, &directory).unwrap_or_default();
            evidence.files.extend(inner.into_iter().map(|name| format!("{directory}/{name}")));
        }
        evidence.read_kernels(boot, models, depth);
        evidence.read_releases(root);
        evidence
    }

    /// What config.txt says to a family.
    pub(crate) fn settings(&self, model: Model) -> Settings {
        let text = self.texts.get("config.txt").map_or("", String::as_str);
        Settings::read(text, model, &|name| self.texts.get(name).map(String::as_str))
    }

    /// The kernels and initramfs that some board would load.
    fn read_kernels(&mut self, boot: &OwnedFd, models: &[Model], depth: Depth) {
        let mut wanted = (BTreeSet::new(), BTreeSet::new());
        for model in models {
            let loads = super::rules::loads(self, *model);
            wanted.0.extend(loads.kernel);
            wanted.1.extend(loads.initramfs);
        }
        for name in wanted.0.into_iter().take(MAX_FILES) {
            if let Some(file) = open(boot, &name) {
                self.kernels.insert(name, Kernel::read(file, depth == Depth::Whole));
            }
        }
        for name in wanted.1.into_iter().take(MAX_FILES).filter(|_| depth == Depth::Whole) {
            if let Some(file) = open(boot, &name) {
                self.initramfs.insert(name, Initramfs::read(file).ok());
            }
        }
    }

    /// What the root says of the kernels that were found: their configuration, or else their lists of modules.
    fn read_releases(&mut self, root: &OwnedFd) {
        let text = |path: String| head(root, &path, MAX_LIST).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let installed = list(root, "lib/modules").unwrap_or_default().into_iter().take(MAX_RELEASES);
        self.releases = installed.map(|release| (release, Parts::default())).collect();
        let wanted: BTreeSet<String> = self.kernels.keys().filter_map(|kernel| self.parts(kernel).0).collect();
        for release in wanted {
            let Some(parts) = self.releases.get_mut(&release) else { continue };
            let config =
                text(format!("boot/config-{release}")).or_else(|| text(format!("lib/modules/{release}/config")));
            *parts = match (config, text(format!("lib/modules/{release}/modules.builtin"))) {
                (Some(config), _) => Parts::from_config(&config),
                (None, Some(builtin)) => {
                    let dep = text(format!("lib/modules/{release}/modules.dep")).unwrap_or_default();
                    Parts::from_lists(&builtin, &dep)
                }
                (None, None) => Parts::default(),
            };
        }
    }

    /// Which kernels have no overlay file system, in the root or in themselves, if none has one.
    pub(super) fn lacks_overlay(&self) -> Option<String> {
        let mut without = BTreeSet::new();
        for (name, (release, parts)) in self.kernels.keys().map(|name| (name, self.parts(name))) {
            if parts.get(OVERLAY) != Built::Absent {
                return None;
            }
            without.insert(release.unwrap_or_else(|| name.clone()));
        }
        let names = without.into_iter().collect::<Vec<_>>().join(", ");
        (!names.is_empty()).then(|| {
            format!("its kernel {} has no overlay file system (module 'overlay')", printable(names.as_bytes()))
        })
    }

    /// What is known of a kernel's parts, and its release.
    pub(crate) fn parts(&self, kernel: &str) -> (Option<String>, Parts) {
        let Some(known) = self.kernels.get(kernel) else { return (None, Parts::default()) };
        let release = known.release.clone().or_else(|| release_by_name(kernel, self.releases.keys()));
        let of_root = release.as_ref().and_then(|release| self.releases.get(release));
        let mut parts = known.parts.clone().or_else(|| of_root.cloned()).unwrap_or_default();
        if let Some((nfs_root, ip_config)) = known.strings {
            parts.add_strings(nfs_root, ip_config);
        }
        (release, parts)
    }

    /// 32 or 64, by the kernel's file or else by its name.
    pub(crate) fn bits(&self, kernel: &str) -> Option<u8> {
        let name = kernel.rsplit('/').next().unwrap_or(kernel);
        self.kernels.get(kernel).and_then(|known| known.bits).or(match name {
            "kernel8.img" | "kernel_2712.img" => Some(64),
            "kernel.img" | "kernel7.img" | "kernel7l.img" => Some(32),
            _ => None,
        })
    }
}

/// Which of the releases installed in the root a kernel is, where its name tells: Raspberry Pi's packages are called
/// 6.12.47+rpt-rpi-v8 (Bullseye's 6.1.21-v8+), the file of Debian's or Ubuntu's has the release in its name.
fn release_by_name<'a>(kernel: &str, releases: impl Iterator<Item = &'a String>) -> Option<String> {
    let name = kernel.rsplit('/').next().unwrap_or(kernel);
    let releases: Vec<&String> = releases.collect();
    if let Some(named) = name.split_once('-').and_then(|(_, rest)| releases.iter().find(|release| **release == rest)) {
        return Some((*named).clone());
    }
    let flavour: &[&str] = match name {
        "kernel.img" => &["-v6"],
        "kernel7.img" => &["-v7"],
        "kernel7l.img" => &["-v7l"],
        "kernel8.img" => &["-v8"],
        "kernel_2712.img" => &["-2712", "-v8-16k"],
        _ => &[],
    };
    let fits = |release: &&&String| flavour.iter().any(|end| release.trim_end_matches('+').ends_with(end));
    let mut fitting: Vec<&String> = releases.iter().filter(fits).copied().collect();
    if fitting.is_empty() {
        // The only one there is.
        fitting = if releases.len() == 1 { releases } else { Vec::new() };
    }
    // An upgrade leaves the kernel before it; the boot files are the newest's.
    let number = |release: &&String| -> Vec<u32> {
        release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).take(4).collect()
    };
    fitting.into_iter().max_by_key(number).cloned()
}

fn init(root: &OwnedFd) -> Init {
    let paths = ["sbin/init", "etc/init", "bin/init", "bin/sh"];
    match paths.iter().find_map(|path| Some((path, head(root, path, 64)?))) {
        None => Init::Missing,
        Some((path, head)) => match elf_architecture(&head) {
            Some(architecture) => Init::Program(format!("/{path}"), architecture),
            None => Init::Unknown,
        },
    }
}

/// Names in a directory, its path resolved as a process chrooted into the tree would.
fn list(tree: &OwnedFd, path: &str) -> Option<BTreeSet<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = crate::openat2::openat2(tree, path, flags, Mode::empty(), resolve).ok()?;
    let mut names = BTreeSet::new();
    for entry in rustix::fs::Dir::read_from(fd.as_fd()).ok()?.take(MAX_ENTRIES) {
        if let Ok(name) = entry.ok()?.file_name().to_str()
            && !matches!(name, "." | "..")
        {
            names.insert(name.to_owned());
        }
    }
    Some(names)
}

/// A regular file; links inside the tree are followed, devices never opened.
fn open(tree: &OwnedFd, path: &str) -> Option<File> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = crate::openat2::openat2(tree, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).ok()?;
    let (fd, _) = crate::storage::reopen_regular(found).ok()??;
    Some(File::from(fd))
}

/// A part that is in the kernel, or in a module that the initramfs has.
pub(super) fn reachable(part: &'static str, parts: &Parts, initramfs: Option<&Initramfs>) -> Built {
    match parts.get(part) {
        Built::In => Built::In,
        Built::Module | Built::Absent | Built::Unknown if initramfs.is_some_and(|i| i.modules.contains(part)) => {
            Built::In
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_release_follows_from_its_name() {
        let pi_os = ["6.12.25+rpt-rpi-v8", "6.12.47+rpt-rpi-v8", "6.12.47+rpt-rpi-2712", "6.12.9+rpt-rpi-v8"];
        let bullseye = ["6.1.21+", "6.1.21-v7+", "6.1.21-v7l+", "6.1.21-v8+"];
        for (kernel, releases, expected) in [
            ("kernel8.img", &pi_os[..], Some("6.12.47+rpt-rpi-v8")),
            ("kernel_2712.img", &pi_os, Some("6.12.47+rpt-rpi-2712")),
            ("kernel7.img", &pi_os, None),
            ("kernel7l.img", &bullseye, Some("6.1.21-v7l+")),
            ("kernel7.img", &bullseye, Some("6.1.21-v7+")),
            ("vmlinuz-6.1.0-18-arm64", &["6.1.0-17-arm64", "6.1.0-18-arm64"], Some("6.1.0-18-arm64")),
            ("current/vmlinuz", &["6.8.0-1013-raspi"], Some("6.8.0-1013-raspi")),
            ("vmlinuz", &["6.8.0-1013-raspi", "6.8.0-1018-raspi"], None),
        ] {
            let releases: Vec<String> = releases.iter().map(|&release| release.to_owned()).collect();
            assert_eq!(release_by_name(kernel, releases.iter()).as_deref(), expected, "{kernel}");
        }
    }
}
