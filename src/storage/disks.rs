//! Which disks are here: an SD card in the router's reader, a USB stick, the SSD itself. What the kernel shows below
//! `/sys/block` (sysfs-block), and what of it is mounted (proc(5), mountinfo).

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A disk as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its device file.
    pub path: PathBuf,
    /// What it says it is.
    pub model: String,
    /// Bytes.
    pub bytes: u64,
    /// Whether it can be taken out while the router runs.
    pub removable: bool,
    /// Its partitions.
    pub partitions: Vec<Partition>,
    /// Where it or its partitions are mounted.
    pub mounted: Vec<String>,
    /// Whether `data_dir` is on it.
    pub is_data: bool,
}

/// A partition of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its device file.
    pub path: PathBuf,
    /// Bytes.
    pub bytes: u64,
}

/// `size` in sysfs counts these, whatever the disk's own sectors have.
const SECTOR: u64 = 512;
/// Longest model that is shown.
const MAX_MODEL: usize = 60;

/// The disks of this machine; `data_mount` is where the file system with `data_dir` is mounted.
#[must_use]
pub fn disks(data_mount: Option<&Path>) -> Vec<Disk> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    list(Path::new("/sys/block"), &mounts, data_mount)
}

fn list(sys: &Path, mountinfo: &str, data_mount: Option<&Path>) -> Vec<Disk> {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
    let mut disks: Vec<Disk> = names(sys).iter().filter_map(|name| disk(sys, name, &mounts, data_mount)).collect();
    disks.sort_by(|a, b| (!a.removable, &a.path).cmp(&(!b.removable, &b.path)));
    disks
}

fn disk(sys: &Path, name: &str, mounts: &[Mount<'_>], data_mount: Option<&Path>) -> Option<Disk> {
    let directory = sys.join(name);
    // Loop, RAM and mapped devices are made of something else; an eMMC's boot areas hold a bootloader.
    let is_boot_area = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
    if is_boot_area || name.starts_with("mtdblock") || !directory.join("device").exists() {
        return None;
    }
    // A reader without a card, a drive without a disc.
    let bytes = size(&directory).filter(|bytes| *bytes > 0)?;
    let mut numbers = vec![text(&directory, "dev")];
    let mut partitions = Vec::new();
    for part in names(&directory).into_iter().filter(|part| directory.join(part).join("partition").exists()) {
        let place = directory.join(&part);
        numbers.push(text(&place, "dev"));
        partitions.push(Partition { path: Path::new("/dev").join(&part), bytes: size(&place).unwrap_or_default() });
    }
    partitions.sort_by_key(|part| (part.path.as_os_str().len(), part.path.clone()));
    let is_ours = |mount: &&Mount<'_>| {
        // btrfs has numbers of its own, and names the device.
        let named = |path: &Path| path.as_os_str() == mount.source;
        numbers.iter().any(|number| number == mount.number)
            || partitions.iter().any(|part| named(&part.path))
            || named(&Path::new("/dev").join(name))
    };
    let ours: Vec<&Mount<'_>> = mounts.iter().filter(is_ours).collect();
    let mut mounted: Vec<String> = ours.iter().map(|mount| unescape(mount.point)).collect();
    mounted.sort();
    mounted.dedup();
    Some(Disk {
        path: Path::new("/dev").join(name),
        model: model(&directory),
        bytes,
        removable: text(&directory, "removable") == "1" || is_card_or_usb(&directory),
        is_data: data_mount.is_some_and(|point| mounted.iter().any(|mounted| Path::new(mounted) == point)),
        partitions,
        mounted,
    })
}

/// The kernel calls only a medium removable that leaves its drive behind: a card reader's, not a card or stick itself.
fn is_card_or_usb(directory: &Path) -> bool {
    let place = fs::canonicalize(directory.join("device")).unwrap_or_default();
    let is_usb = place.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb"));
    is_usb || text(directory, "device/type") == "SD"
}

fn model(directory: &Path) -> String {
    let parts = ["device/vendor", "device/model", "device/name"].map(|file| text(directory, file));
    let known = parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join(" ");
    crate::printable::printable(known.as_bytes()).chars().take(MAX_MODEL).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn text(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).unwrap_or_default().trim().to_owned()
}

fn size(directory: &Path) -> Option<u64> {
    text(directory, "size").parse::<u64>().ok()?.checked_mul(SECTOR)
}

/// A line of mountinfo, as far as it matters.
struct Mount<'a> {
    number: &'a str,
    point: &'a str,
    source: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut words = mount.split(' ').skip(2);
        let (number, _, point) = (words.next()?, words.next()?, words.next()?);
        Some(Self { number, point, source: file_system.split(' ').nth(1)? })
    }
}

/// Blanks and their like are written as three octal digits.
fn unescape(point: &str) -> String {
    let mut out = Vec::with_capacity(point.len());
    let mut rest = point.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        let (decoded, left) = match octal.filter(|_| *byte == b'\\') {
            Some(code) => (code, after.get(3..).unwrap_or_default()),
            None => (*byte, after),
        };
        out.push(decoded);
        rest = left;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysfs(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    #[test]
    fn whole_disks_are_listed_with_what_is_on_them() {
        let sys = sysfs(&[
            ("sda/size", "1000215216\n"),
            ("sda/dev", "8:0\n"),
            ("sda/removable", "0\n"),
            ("sda/device/vendor", "Samsung \n"),
            ("sda/device/model", "Portable SSD T5\u{1b}[2J\n"),
            ("sda/sda1/partition", "1\n"),
            ("sda/sda1/size", "1000000000\n"),
            ("sda/sda1/dev", "8:1\n"),
            ("mmcblk0/size", "62333952\n"),
            ("mmcblk0/dev", "179:0\n"),
            ("mmcblk0/removable", "0\n"),
            ("mmcblk0/device/type", "SD\n"),
            ("mmcblk0/device/name", "SC32G\n"),
            ("mmcblk0/mmcblk0p2/partition", "2\n"),
            ("mmcblk0/mmcblk0p2/size", "61272064\n"),
            ("mmcblk0/mmcblk0p2/dev", "179:2\n"),
            ("mmcblk0/mmcblk0p10/partition", "10\n"),
            ("mmcblk0/mmcblk0p10/size", "1\n"),
            ("mmcblk0/mmcblk0p10/dev", "179:10\n"),
            ("mmcblk0/queue/x", ""),
            ("mmcblk1boot0/size", "8192\n"),
            ("mmcblk1boot0/device/type", "MMC\n"),
            ("sdb/size", "0\n"),
            ("sdb/device/model", "Reader without a card"),
            ("sdc/size", "2048\n"),
            ("sdc/dev", "8:32\n"),
            ("sdc/removable", "1\n"),
            ("sdc/device/model", ""),
            ("loop0/size", "2048\n"),
            ("mtdblock3/size", "2048\n"),
            ("mtdblock3/device/x", ""),
        ]);
        let mounts = "22 1 0:21 / /proc rw - proc proc rw\n\
             40 22 8:1 /sub /mnt/my\\040ssd rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
             41 22 0:40 / /mnt/card rw - btrfs /dev/mmcblk0p2 rw\n\
             nonsense\n";
        let disks = list(sys.path(), mounts, Some(Path::new("/mnt/my ssd")));
        let told: Vec<_> =
            disks.iter().map(|d| (d.path.to_str().unwrap(), d.model.as_str(), d.removable, d.is_data)).collect();
        assert_eq!(
            told,
            [
                ("/dev/mmcblk0", "SC32G", true, false),
                ("/dev/sdc", "", true, false),
                ("/dev/sda", "Samsung Portable SSD T5\\u{1b}[2J", false, true),
            ]
        );
        assert_eq!(disks[0].mounted, ["/mnt/card"], "btrfs names its device");
        assert_eq!(disks[2].mounted, ["/mnt/my ssd"]);
        let parts: Vec<_> = disks[0].partitions.iter().map(|p| (p.path.to_str().unwrap(), p.bytes)).collect();
        assert_eq!(parts, [("/dev/mmcblk0p2", 61_272_064 * 512), ("/dev/mmcblk0p10", 512)]);
        assert_eq!(disks[2].bytes, 1_000_215_216 * 512);
    }

    #[test]
    fn a_machine_without_sysfs_has_no_disks() {
        assert_eq!(list(Path::new("/nonexistent"), "", None), []);
    }
}
