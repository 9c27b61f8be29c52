//! Roots: what enrolling one more Pi takes, in time and on the disk, against `cp -a` with and without `--reflink`, or
//! `--link`.
//!
//! One image, on a volume of its own for each file system and way; then devices in turn by piboot, which also adapts each, and by cp,
//! which does not. Every one ends on the disk.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use piboot::config::{Device, NfsMode, Regional, RootKind};
use piboot::fleet::ExportedAt;
use piboot::fleet::provision::Provision;
use piboot::image::{Source, import};
use piboot::progress::NoProgress;
use piboot::storage::Layout;

use crate::import::{Volume, awkward, real, succeed};
use crate::measure::{Error, Figures, Results};

/// Enough that the last is not the first: what is shared once is recorded, what is shared again is counted.
const ROUNDS: usize = 5;
const PEER: &str = "cp";
const METRICS: [&str; 2] = ["wall_s", "disk_mb"];

/// Runs the cases whose name contains `filter`, with the largest real image that the cache holds (or PIBOOT_BENCH_IMAGE
/// names).
pub fn run(filter: &str) -> Result<(), Error> {
    let image = real().map_or_else(awkward, Ok)?;
    for (case, kind, root) in [
        ("btrfs", "btrfs", RootKind::Clone),
        ("xfs", "xfs", RootKind::Clone),
        ("ext4", "ext4", RootKind::Copy),
        ("ext4-overlay", "ext4", RootKind::Overlay),
        ("ephemeral", "ext4", RootKind::Ephemeral),
    ] {
        if !case.contains(filter) {
            continue;
        }
        let volume = Volume::of(kind)?;
        let layout = Layout::new(volume.path());
        layout.create()?;
        let info = import(Source::open(&image)?, "bench", &layout.images(), &layout.scratch(), 0, &NoProgress)?;
        let entries = info.root_entries + info.boot_entries;
        eprintln!(
            "bench: roots/{case}: {entries} files and directories, {} MB",
            (info.root_bytes + info.boot_bytes) / 1_000_000
        );
        let mut results = Results::default();
        for round in 0..ROUNDS {
            for turn in 0..2 {
                let contestant = ["piboot", PEER][(round + turn) % 2];
                if !results.has_failed(contestant) {
                    results.add(contestant, measure(contestant, &layout, root, round));
                }
            }
        }
        results.print(&format!("roots/{case}"), &METRICS, &[PEER]);
    }
    Ok(())
}

/// One more device.
fn measure(contestant: &str, layout: &Layout, root: RootKind, round: usize) -> Result<Figures, Error> {
    let before = free(layout.data_dir())?;
    let id = format!("{contestant}_{round}");
    let start = Instant::now();
    if contestant == PEER {
        let how = match root {
            RootKind::Clone => "--reflink=always",
            RootKind::Ephemeral => "--link",
            _ => "--reflink=never",
        };
        std::fs::create_dir(layout.device(&id))?;
        let trees = ["boot", "root"].map(|tree| layout.image("bench").join(tree));
        succeed(Command::new("cp").args(["-a", how]).args(trees).arg(layout.device(&id)))?;
        succeed(Command::new("sync").arg("-f").arg(layout.devices()))?;
    } else {
        let device = Device {
            hostname: id.replace('_', "-"),
            id,
            serial: None,
            mac: None,
            ip: None,
            image: "bench".to_owned(),
            root,
            clone_of: None,
            rollback_after: 0,
            quota: None,
            ssh_keys: Vec::new(),
            trim: true,
            user: None,
            password: None,
            disabled: false,
        };
        let exported = ExportedAt::of(&NfsMode::Builtin, Ipv4Addr::new(10, 77, 0, 1));
        Provision { layout: layout.clone(), device, exported, regional: Regional::default(), now_ms: 0 }
            .make(&NoProgress)
            .map_err(Error::new)?;
    }
    let wall = start.elapsed().as_secs_f64();
    Ok(Figures::from([("wall_s", wall), ("disk_mb", (before - free(layout.data_dir())?) / 1e6)]))
}

/// Bytes free once everything is on the disk.
fn free(directory: &Path) -> Result<f64, Error> {
    nix::unistd::syncfs(File::open(directory)?)?;
    let stat = nix::sys::statvfs::statvfs(directory)?;
    Ok(stat.blocks_free() as f64 * stat.fragment_size() as f64)
}
