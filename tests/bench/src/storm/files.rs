//! The files there are: the same ones for both servers.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use emupi::Pi;

use super::servers::Router;
use crate::measure::Error;

const KB: usize = 1024;

/// How large the large ones are.
#[derive(Debug, Clone, Copy)]
pub enum Set {
    /// Like those of Raspberry Pi OS, but for a smaller kernel and ramdisk.
    Usual,
    /// So small that requests weigh more than blocks.
    Small,
}

impl Set {
    fn large(self) -> [(&'static str, usize); 6] {
        let [start, start4, kernel, ramdisk] = match self {
            Self::Usual => [2_900 * KB, 2_256 * KB, 3_000 * KB, 4_000 * KB],
            Self::Small => [700 * KB, 600 * KB, 1_000 * KB, 500 * KB],
        };
        [
            ("start.elf", start),
            ("start4.elf", start4),
            ("kernel8.img", kernel),
            ("kernel_2712.img", kernel),
            ("initramfs8", ramdisk),
            ("initramfs_2712", ramdisk),
        ]
    }
}

const SMALL: [(&str, usize); 12] = [
    ("bootcode.bin", 52_456),
    ("fixup.dat", 7_300),
    ("fixup4.dat", 5_400),
    ("bcm2710-rpi-3-b.dtb", 32_000),
    ("bcm2710-rpi-3-b-plus.dtb", 33_000),
    ("bcm2711-rpi-4-b.dtb", 56_000),
    ("bcm2712-rpi-5-b.dtb", 78_000),
    ("overlays/overlay_map.dtb", 5_900),
    ("overlays/vc4-kms-v3d.dtbo", 2_800),
    ("overlays/vc4-kms-v3d-pi4.dtbo", 3_900),
    ("overlays/vc4-kms-v3d-pi5.dtbo", 3_700),
    ("LICENCE.broadcom", 1_600),
];

/// The boot files, and a directory of every Pi that links to them, so that the page cache holds them once.
pub struct Tree {
    boot: PathBuf,
    served: PathBuf,
}

impl Tree {
    /// Writes the files below the router's scratch directory.
    pub fn create(router: &Router, set: Set, pis: &[Pi]) -> Result<Self, Error> {
        let tree = Self { boot: router.image().join("boot"), served: router.net.scratch().join("served") };
        fs::create_dir_all(tree.boot.join("overlays"))?;
        fs::create_dir_all(router.image().join("root"))?;
        for (seed, (name, size)) in (1_u64..).zip(SMALL.into_iter().chain(set.large())) {
            let bytes: Vec<u8> = (0..size as u64).map(|n| ((n * 31 + n / 509 + seed) % 251) as u8).collect();
            fs::write(tree.boot.join(name), bytes)?;
        }
        let config = "[all]\narm_64bit=1\nauto_initramfs=1\ndtoverlay=vc4-kms-v3d\n";
        fs::write(tree.boot.join("config.txt"), config)?;
        fs::write(tree.boot.join("cmdline.txt"), "console=serial0,115200 root=/dev/nfs rootwait\n")?;
        // A boot partition has three hundred overlays: a miss must not cost more for it.
        for filler in 0..300 {
            fs::write(tree.boot.join(format!("overlays/filler-{filler}.dtbo")), "")?;
        }
        fs::create_dir(&tree.served)?;
        symlink(tree.boot.join("bootcode.bin"), tree.served.join("bootcode.bin"))?;
        for pi in pis {
            symlink(&tree.boot, tree.served.join(pi.prefix().trim_end_matches('/')))?;
        }
        Ok(tree)
    }

    /// The one directory with all files.
    pub fn boot(&self) -> &Path {
        &self.boot
    }

    /// As Pis ask for them: a directory for each.
    pub fn as_served(&self) -> &Path {
        &self.served
    }
}
