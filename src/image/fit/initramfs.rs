//! What of an initramfs matters for a root over NFS: its modules, and who mounts there.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};

use super::drivers::part_of_module;
use super::packed::{MAX_UNPACKED, Packing};

/// A header of cpio's format newc (cpio(5)).
const HEADER: usize = 110;
/// Paths are shorter.
const MAX_NAME: u64 = 4096;
/// A small one is some 300 files, a large one 5000.
const MAX_ENTRIES: u32 = 200_000;
/// Archives in one file: uncompressed ones first, with what is compressed in itself (initramfs-tools since 0.142).
const MAX_ARCHIVES: u32 = 8;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Initramfs {
    /// The modules that matter.
    pub(super) modules: BTreeSet<&'static str>,
    /// Whether it has what mounts an NFS root: klibc's or util-linux's program with its script, or dracut's.
    pub(super) mounts_nfs: bool,
    /// Releases of the kernels whose modules it has.
    pub(super) releases: BTreeSet<String>,
}

impl Initramfs {
    /// Reads through an initramfs.
    ///
    /// # Errors
    /// When it is damaged or packed with something else than gzip, xz or zstd.
    pub(super) fn read(file: impl Read) -> io::Result<Self> {
        let mut found = Self::default();
        let mut file = BufReader::new(file.take(MAX_UNPACKED));
        for _ in 0..MAX_ARCHIVES {
            // The kernel skips zeros between archives (init/initramfs.c).
            loop {
                let zeros = file.fill_buf()?.iter().take_while(|byte| **byte == 0).count();
                if zeros == 0 {
                    break;
                }
                file.consume(zeros);
            }
            let head = file.fill_buf()?;
            if head.is_empty() {
                return Ok(found);
            }
            if head.starts_with(b"0707") {
                found.archive(&mut file)?;
                continue;
            }
            let packing = Packing::of(head).ok_or_else(|| io::Error::other("it is packed with an unknown program"))?;
            // The last one: what follows, if anything does, is the user's.
            found.archive(&mut BufReader::new(packing.unpack(file)?))?;
            return Ok(found);
        }
        Ok(found)
    }

    fn archive(&mut self, archive: &mut impl Read) -> io::Result<()> {
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        for _ in 0..MAX_ENTRIES {
            let mut header = [0; HEADER];
            archive.read_exact(&mut header)?;
            let text = std::str::from_utf8(&header).map_err(|_| damaged())?;
            if !text.starts_with("070701") && !text.starts_with("070702") {
                return Err(damaged());
            }
            let field = |number: usize| {
                let start = 6 + 8 * number;
                text.get(start..start + 8).and_then(|hex| u64::from_str_radix(hex, 16).ok()).ok_or_else(damaged)
            };
            let (size, name_size) = (field(6)?, field(11)?);
            if name_size > MAX_NAME {
                return Err(damaged());
            }
            let padded = (HEADER as u64 + name_size).next_multiple_of(4) - HEADER as u64;
            let mut name = Vec::new();
            if archive.take(padded).read_to_end(&mut name)? as u64 != padded {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            if name == b"TRAILER!!!" {
                return Ok(());
            }
            self.note(&String::from_utf8_lossy(name));
            let padded = size.next_multiple_of(4);
            if io::copy(&mut archive.take(padded), &mut io::sink())? != padded {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Err(damaged())
    }

    fn note(&mut self, path: &str) {
        let path = path.trim_start_matches("./").trim_start_matches("usr/");
        if let Some(rest) = path.strip_prefix("lib/modules/") {
            if let Some((release, _)) = rest.split_once('/')
                && self.releases.len() < 8
            {
                self.releases.insert(release.to_owned());
            }
            self.modules.extend(part_of_module(path));
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        // klibc's program, nfs-common's, dracut's hook.
        self.mounts_nfs |= matches!(name, "nfsmount" | "mount.nfs" | "nfsroot") || name.ends_with("parse-nfsroot.sh");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// An archive by cpio itself.
    fn cpio(names: &[&str]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x".repeat(name.len())).unwrap();
        }
        pipe(
            Command::new("cpio").args(["-o", "-H", "newc", "--quiet"]).current_dir(dir.path()),
            names.join("\n").as_bytes(),
        )
    }

    fn pipe(command: &mut Command, input: &[u8]) -> Vec<u8> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("tests/setup.sh installs it");
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    const KLIBC: [&str; 4] =
        ["usr/bin/nfsmount", "usr/lib/modules/6.12.47+rpt-rpi-v8/kernel/fs/nfs/nfs.ko", "scripts/nfs", "init"];

    #[test]
    fn each_packing_and_several_archives_are_read() {
        let plain = cpio(&KLIBC);
        let early = cpio(&["lib/modules/6.12.47+rpt-rpi-v8/kernel/drivers/net/usb/lan78xx.ko.xz"]);
        let expected =
            Initramfs { modules: ["nfs"].into(), mounts_nfs: true, releases: ["6.12.47+rpt-rpi-v8".to_owned()].into() };
        for program in ["cat", "gzip", "xz", "zstd"] {
            let packed = pipe(&mut Command::new(program), &plain);
            assert_eq!(Initramfs::read(&packed[..]).unwrap(), expected, "{program}");
            let both = [&early[..], &[0; 516], &packed].concat();
            let found = Initramfs::read(&both[..]).unwrap();
            assert_eq!(found.modules, ["lan78xx", "nfs"].into(), "{program}");
            assert!(Initramfs::read(&packed[..packed.len() / 2]).is_err(), "{program}, cut off");
        }
        assert!(Initramfs::read(&b"BZh91AY&SY of bzip2"[..]).is_err());
        assert_eq!(Initramfs::read(&b""[..]).unwrap(), Initramfs::default());
    }

    #[test]
    fn dracuts_and_others_are_known_by_what_mounts() {
        for (names, mounts) in [
            (&["usr/lib/dracut/hooks/cmdline/90-parse-nfsroot.sh"][..], true),
            (&["sbin/mount.nfs"], true),
            (&["bin/mount", "scripts/local"], false),
        ] {
            assert_eq!(Initramfs::read(&cpio(names)[..]).unwrap().mounts_nfs, mounts, "{names:?}");
        }
    }

    #[test]
    fn whatever_is_damaged_ends() {
        let archive = cpio(&KLIBC);
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random >> 33).unwrap()
        };
        for program in ["cat", "gzip", "xz", "zstd"] {
            let packed = pipe(&mut Command::new(program), &archive);
            for _ in 0..500 {
                let mut damaged = packed.clone();
                for _ in 0..=next() % 4 {
                    let at = next() % damaged.len();
                    damaged[at] = u8::try_from(next() & 0xff).unwrap();
                }
                // An answer or an error, and in no time.
                let _ = Initramfs::read(&damaged[..]);
            }
        }
    }

    #[test]
    fn lengths_that_lie_end_in_an_error() {
        let mut archive = cpio(&["a"]);
        archive[6 + 8 * 6..6 + 8 * 7].copy_from_slice(b"ffffffff");
        assert!(Initramfs::read(&archive[..]).is_err());
        archive[6 + 8 * 11..6 + 8 * 12].copy_from_slice(b"ffffffff");
        assert!(Initramfs::read(&archive[..]).is_err());
    }
}
