//! What the emulated Pis ask for, and the files there are.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use super::boot_directory;
use crate::measure::Error;

/// Emulated Pis at most.
pub const MAX_PIS: usize = 100;

const KB: usize = 1024;
const MB: usize = 1_000_000;

/// Files of a boot directory, sized like those of a Pi 4, but for a smaller kernel and initramfs.
const FILES: [(&str, usize); 19] = [
    ("start4.elf", 2_256 * KB),
    ("fixup4.dat", 5_400),
    ("config.txt", 2_100),
    ("cmdline.txt", 190),
    ("bcm2711-rpi-4-b.dtb", 56_000),
    ("overlays/overlay_map.dtb", 5_900),
    ("overlays/vc4-kms-v3d-pi4.dtbo", 3_900),
    ("overlays/disable-bt.dtbo", 1_100),
    ("overlays/dwc2.dtbo", 800),
    ("overlays/i2c-rtc.dtbo", 3_200),
    ("overlays/uart0.dtbo", 700),
    ("kernel8.img", 3 * MB),
    ("initramfs8", 4 * MB),
    ("bootcode.bin", 52_000),
    ("vl805.sig", 64),
    ("LICENCE.broadcom", 1_600),
    ("150KB", 150 * KB),
    ("10MB", 10 * MB),
    ("30MB", 30 * MB),
];

/// One step of a Pi.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// Read the file and compare every byte.
    Fetch(&'static str),
    /// Expect "not found".
    Missing(&'static str),
    /// Take the first packet, then send "Early terminate".
    Probe(&'static str),
}

/// Something to measure.
pub struct Case {
    /// As printed.
    pub name: &'static str,
    /// How many Pis at once.
    pub pis: usize,
    /// Block size asked for; 512 asks for nothing.
    pub blksize: usize,
    /// Packets of a thousand lost in each direction.
    pub loss_permille: u32,
    /// What each Pi does.
    pub steps: Vec<Step>,
    /// What to print.
    pub metrics: &'static [&'static str],
    /// After this the server has failed.
    pub time_limit: Duration,
}

/// All cases.
pub fn all() -> Vec<Case> {
    let case = |name, pis, blksize, steps, metrics| Case {
        name,
        pis,
        blksize,
        loss_permille: 0,
        steps,
        metrics,
        time_limit: Duration::from_secs(30),
    };
    let single = &["cpu_ms_per_mb", "wall_s"][..];
    let boot = &["cpu_ms_per_mb", "wall_s", "miss_p50_us"][..];
    vec![
        case("1x30MB-1024", 1, 1024, vec![Step::Fetch("30MB")], single),
        case("1x30MB-1468", 1, 1468, vec![Step::Fetch("30MB")], single),
        case("1x10MB-512", 1, 512, vec![Step::Fetch("10MB")], single),
        case("25xbootlist", 25, 1024, boot_list(true), boot),
        case("100xsmall-bootlist", 100, 1024, boot_list(false), boot),
        case("miss", 1, 1024, vec![Step::Missing("recovery.elf"); 3000], &["miss_p50_us", "miss_cpu_us"]),
        Case { loss_permille: 10, ..case("loss1pct-1024", 10, 1024, vec![Step::Fetch("150KB")], &["client_p50_s"]) },
    ]
}

/// What a Pi 4 asks for in one boot: half of it is not there, much is asked for more than once (rpi-eeprom issue 74).
fn boot_list(with_kernel: bool) -> Vec<Step> {
    use Step::{Fetch, Missing, Probe};
    let mut steps = vec![
        Probe("start4.elf"),
        Fetch("config.txt"),
        Missing("pieeprom.sig"),
        Missing("recover4.elf"),
        Missing("recovery.elf"),
        Fetch("start4.elf"),
        Fetch("fixup4.dat"),
        Missing("recovery.elf"),
        Fetch("config.txt"),
        Missing("dt-blob.bin"),
        Missing("recovery.elf"),
        Fetch("config.txt"),
        Missing("bootcfg.txt"),
        Missing("recovery8.img"),
        Missing("recovery7l.img"),
        Missing("recovery7.img"),
        Missing("recovery.img"),
        Probe("bcm2711-rpi-4-b.dtb"),
        Fetch("bcm2711-rpi-4-b.dtb"),
        Fetch("overlays/overlay_map.dtb"),
        Fetch("config.txt"),
        Fetch("overlays/vc4-kms-v3d-pi4.dtbo"),
        Fetch("overlays/disable-bt.dtbo"),
        Fetch("overlays/dwc2.dtbo"),
        Fetch("overlays/i2c-rtc.dtbo"),
        Fetch("overlays/uart0.dtbo"),
        Fetch("cmdline.txt"),
        Fetch("config.txt"),
        Fetch("cmdline.txt"),
        Missing("armstub8-gic.bin"),
        Probe("kernel8.img"),
        Missing("armstub8.bin"),
        Probe("kernel8.img"),
    ];
    steps.extend(
        ["vl805.sig", "a/b.txt", "c.dtbo", "overlays/x.dtbo", "overlays/hat.dtbo", "kernel8-32.img", "autoboot.txt"]
            .map(|name| if name == "vl805.sig" { Fetch(name) } else { Missing(name) }),
    );
    steps.extend(["tryboot.txt", "bootcfg.txt", "recovery8-32.img", "dt-blob.bin", "ssh", "userconf"].map(Missing));
    if with_kernel {
        steps.extend([Fetch("initramfs8"), Fetch("kernel8.img")]);
    }
    steps
}

/// Boot directories of all Pis, deleted at the end.
pub struct Tree {
    scratch: tempfile::TempDir,
    contents: HashMap<&'static str, Vec<u8>>,
}

impl Tree {
    /// Writes the files once; every Pi's directory is a link to them, so that the page cache holds them all.
    pub fn create() -> Result<Self, Error> {
        let scratch = tempfile::Builder::new().prefix("piboot-bench").tempdir()?;
        // Peers may drop privileges.
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
        let directory = scratch.path().join("files");
        fs::create_dir_all(directory.join("overlays"))?;
        let mut contents = HashMap::new();
        for (seed, (name, size)) in (1..).zip(FILES) {
            let bytes = known_bytes(size, seed);
            fs::write(directory.join(name), &bytes)?;
            contents.insert(name, bytes);
        }
        // A boot partition has some sixty files and three hundred overlays: a miss must not cost more for it.
        for filler in 0..40 {
            fs::write(directory.join(format!("bcm27xx-filler-{filler}.dtb")), "")?;
        }
        for filler in 0..300 {
            fs::write(directory.join(format!("overlays/filler-{filler}.dtbo")), "")?;
        }
        for number in 0..MAX_PIS {
            symlink("files", boot_directory(scratch.path(), number))?;
        }
        Ok(Self { scratch, contents })
    }

    /// What the servers serve.
    pub fn root(&self) -> &Path {
        self.scratch.path()
    }

    /// The bytes of a file.
    pub fn content(&self, name: &str) -> &[u8] {
        self.contents.get(name).map_or(&[], Vec::as_slice)
    }
}

fn known_bytes(size: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(size + 4);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
