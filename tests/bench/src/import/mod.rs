//! Import: piboot against what people do by hand: `xz -dc`, `losetup`, `mount`, `cp -a`, `mcopy`, `sync`.
//!
//! Both run in a process of their own, on the same volume, with the file in the page cache. CPU time and peak memory are the
//! kernel's account of that process and everything it started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use piboot::image::{Source, import, inspect};
use piboot::progress::NoProgress;

use crate::measure::{Error, Figures, Results};

const ROUNDS: usize = 3;
const PEER: &str = "shell";
const METRICS: [&str; 3] = ["wall_s", "cpu_s", "peak_rss_mb"];

/// Runs the cases whose name contains `filter`: an awkward test image (without the path that is too long for cp), and the largest real one that the cache holds (or
/// PIBOOT_BENCH_IMAGE names).
pub fn run(filter: &str) -> Result<(), Error> {
    let mut cases = vec![("awkward", awkward()?)];
    match real() {
        Some(image) => cases.push(("real", image)),
        None => eprintln!("bench: import/real left out: no image in the cache; set PIBOOT_BENCH_IMAGE to an .img.xz"),
    }
    for (name, image) in cases.iter().filter(|(name, _)| name.contains(filter)) {
        let mut results = Results::default();
        for round in 0..ROUNDS {
            for turn in 0..2 {
                let contestant = ["piboot", PEER][(round + turn) % 2];
                if !results.has_failed(contestant) {
                    results.add(contestant, measure(contestant, image));
                }
            }
        }
        results.print(&format!("import/{name}"), &METRICS, &[PEER]);
    }
    Ok(())
}

fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/piboot");
    std::env::var_os("PIBOOT_CACHE").map_or_else(home, PathBuf::from)
}

pub fn awkward() -> Result<PathBuf, Error> {
    let directory = cache().join("bench");
    fs::create_dir_all(&directory)?;
    let image = directory.join("shallow.img.xz");
    if !image.exists() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/awkward.sh");
        succeed(Command::new("bash").arg(script).arg("shallow").arg(&directory))?;
    }
    Ok(image)
}

/// The largest packed image in the cache.
pub fn real() -> Option<PathBuf> {
    if let Some(image) = std::env::var_os("PIBOOT_BENCH_IMAGE") {
        return Some(image.into());
    }
    let files = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let images = files(cache()).flat_map(files).filter(|path| path.to_string_lossy().ends_with(".img.xz"));
    let sized = images.filter_map(|path| Some((fs::metadata(&path).ok()?.len(), path)));
    // The awkward images have two or three megabytes.
    sized.filter(|(size, _)| *size > 20 << 20).max().map(|(_, path)| path)
}

/// One import into an empty volume directory, by a child process.
fn measure(contestant: &str, image: &Path) -> Result<Figures, Error> {
    let volume = Volume::new()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["import-once", contestant]).arg(image).arg(volume.path());
    let start = Instant::now();
    let output = command.output()?;
    let wall = start.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err(Error::new(String::from_utf8_lossy(&output.stderr).trim()));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_ascii_whitespace().map(str::parse::<f64>);
    let (Some(Ok(cpu)), Some(Ok(rss))) = (words.next(), words.next()) else {
        return Err(Error::new(format!("no figures from the child: {text}")));
    };
    Ok(Figures::from([("wall_s", wall), ("cpu_s", cpu), ("peak_rss_mb", rss / 1024.0)]))
}

/// A fresh ext4 for each import: one that had files removed in the last minutes spends its time on not using their inodes
/// again, and other programs' work would count.
pub struct Volume(tempfile::TempDir);

impl Volume {
    fn new() -> Result<Self, Error> {
        Self::of("ext4")
    }

    /// The same of another file system.
    pub fn of(kind: &str) -> Result<Self, Error> {
        // Not in /tmp, which may be memory.
        let volume = Self(tempfile::Builder::new().prefix("piboot-bench").tempdir_in("/var/tmp")?);
        let disk = volume.0.path().join("disk");
        fs::File::create(&disk)?.set_len(16 << 30)?;
        match kind {
            "ext4" => succeed(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-m", "0"]).arg(&disk))?,
            other => succeed(Command::new(format!("mkfs.{other}")).arg("-q").arg(&disk))?,
        }
        fs::create_dir(volume.path())?;
        succeed(Command::new("mount").args(["-o", "loop"]).arg(&disk).arg(volume.path()))?;
        for directory in ["images", "scratch"] {
            fs::create_dir(volume.path().join(directory))?;
        }
        Ok(volume)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("mnt")
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// What the child process does: one import, then CPU seconds and peak memory in KiB on its standard output.
pub fn once(contestant: &str, image: &Path, volume: &Path) -> Result<(), Error> {
    let who = match contestant {
        "piboot" => {
            import(Source::open(image)?, "bench", &volume.join("images"), &volume.join("scratch"), 0, &NoProgress)?;
            UsageWho::RUSAGE_SELF
        }
        _ => {
            by_hand(image, volume)?;
            UsageWho::RUSAGE_CHILDREN
        }
    };
    let usage = getrusage(who)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    println!("{} {}", seconds(usage.user_time()) + seconds(usage.system_time()), usage.max_rss());
    Ok(())
}

/// The commands of the usual netboot tutorials.
fn by_hand(image: &Path, volume: &Path) -> Result<(), Error> {
    let found = inspect(image)?;
    let partition = |number: u16| {
        let found = found.partitions.iter().find(|partition| partition.number == number);
        found.ok_or_else(|| Error::new("the image has not the two partitions of Raspberry Pi OS"))
    };
    let (boot, root) = (partition(1)?, partition(2)?);
    let script = r#"
        set -eu
        cd "$2"
        mkdir mnt images/bench images/bench/boot images/bench/root
        xz -dc -T1 "$1" > disk.img
        device=$(losetup --find --show --read-only --offset "$4" --sizelimit "$5" disk.img)
        trap 'mountpoint -q mnt && umount mnt; losetup -d "$device"' EXIT
        mount -o ro "$device" mnt
        cp -a mnt/. images/bench/root
        MTOOLS_SKIP_CHECK=1 mcopy -s -m -n -i disk.img@@"$3" :: images/bench/boot
        umount mnt
        sync -f images
        rm disk.img
    "#;
    let mut command = Command::new("bash");
    command.args(["-c", script, "by-hand"]).arg(image).arg(volume);
    succeed(command.args([boot.start, root.start, root.bytes].map(|figure| figure.to_string())))
}

pub fn succeed(command: &mut Command) -> Result<(), Error> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let program = command.get_program().to_string_lossy().into_owned();
    Err(Error::new(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
