//! What a kernel's file says of itself: its release, whether it is of 32 or 64 bits, and what is built into it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::drivers::Parts;
use super::packed::{MAX_UNPACKED, Packing};

/// Enough to see what it is, and where in a zImage the packed kernel begins.
const HEAD: u64 = 256 << 10;
const CHUNK: usize = 256 << 10;
/// What may lie across two chunks: a needle and the release after it.
const OVERLAP: usize = 256;
/// A packed configuration has 60 KB.
const MAX_CONFIG: usize = 512 << 10;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// 32 or 64; `None` if it is no kernel that is known here.
    pub(super) bits: Option<u8>,
    /// `6.12.47+rpt-rpi-v8`.
    pub(super) release: Option<String>,
    /// What is built in, as far as the kernel itself tells.
    pub(super) parts: Option<Parts>,
    /// Whether an NFS root and the configuration of addresses have their messages in it; `None` if it was not read.
    pub(super) strings: Option<(bool, bool)>,
}

/// How a kernel lies in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Unpacked.
    Plain,
    /// Packed, from here on.
    Packed(u64, Packing),
    /// Something else.
    Unknown,
}

impl Kernel {
    /// Reads a kernel's beginning, and all of it if `whole`. What cannot be read is not known.
    pub(super) fn read(mut file: File, whole: bool) -> Self {
        let mut head = Vec::new();
        if (&file).take(HEAD).read_to_end(&mut head).is_err() {
            return Self::default();
        }
        let (form, mut bits) = look(&head);
        if let (None, Form::Packed(start, packing)) = (bits, form) {
            let rest = head.get(usize::try_from(start).unwrap_or(usize::MAX)..).unwrap_or_default();
            let mut inner = Vec::new();
            // It ends early: only its beginning is there.
            let _ = packing.unpack(rest).and_then(|packed| packed.take(4096).read_to_end(&mut inner));
            bits = look(&inner).1;
        }
        let mut kernel = Self { bits, ..Self::default() };
        if whole {
            let start = if let Form::Packed(start, _) = form { start } else { 0 };
            let packed = file.seek(SeekFrom::Start(start)).map(|_| BufReader::new(file.take(MAX_UNPACKED)));
            let done = match (form, packed) {
                (Form::Plain, Ok(plain)) => kernel.scan(plain),
                (Form::Packed(_, packing), Ok(packed)) => packing.unpack(packed).and_then(|plain| kernel.scan(plain)),
                _ => Ok(()),
            };
            if done.is_err() {
                (kernel.strings, kernel.parts) = (None, None);
            }
        }
        kernel
    }

    /// Looks through an unpacked kernel.
    fn scan(&mut self, mut plain: impl Read) -> io::Result<()> {
        let (mut nfs_root, mut ip_config) = (false, false);
        let mut config: Option<Vec<u8>> = None;
        let mut window = Vec::with_capacity(CHUNK + OVERLAP);
        loop {
            let kept = window.len();
            (&mut plain).take(CHUNK as u64).read_to_end(&mut window)?;
            if window.len() == kept {
                break;
            }
            if let Some(config) = config.as_mut().filter(|config| config.len() < MAX_CONFIG) {
                config.extend(window.get(kept..).unwrap_or_default());
            }
            let candidates = window.iter().enumerate().filter(|(_, byte)| matches!(byte, b'L' | b'R' | b'I'));
            for (at, _) in candidates {
                let rest = window.get(at..).unwrap_or_default();
                nfs_root |= rest.starts_with(b"Root-NFS: ");
                ip_config |= rest.starts_with(b"IP-Config: ");
                if config.is_none() && rest.starts_with(b"IKCFG_ST") {
                    config = rest.get(8..).map(<[u8]>::to_vec);
                }
                if self.release.is_none() {
                    self.release = rest.strip_prefix(b"Linux version ").and_then(release);
                }
            }
            window.drain(..window.len().saturating_sub(OVERLAP));
        }
        self.strings = Some((nfs_root, ip_config));
        // Without CONFIG_IKCONFIG the kernel's own scripts leave the marks in no kernel.
        let text = config.and_then(|packed| {
            let mut text = Vec::new();
            Packing::Gzip.unpack(&packed[..]).ok()?.take(4 << 20).read_to_end(&mut text).ok()?;
            Some(String::from_utf8_lossy(&text).into_owned())
        });
        self.parts = text.map(|text| Parts::from_config(&text));
        Ok(())
    }
}

/// The release that a banner goes on with.
fn release(banner: &[u8]) -> Option<String> {
    let end = banner.iter().take(65).position(|byte| *byte == b' ')?;
    let word = banner.get(..end)?;
    let plain = word.first()?.is_ascii_digit() && word.iter().all(u8::is_ascii_graphic);
    plain.then(|| String::from_utf8_lossy(word).into_owned())
}

fn look(head: &[u8]) -> (Form, Option<u8>) {
    let at = |start: usize, magic: &[u8]| head.get(start..).is_some_and(|rest| rest.starts_with(magic));
    let word = |start: usize| head.get(start..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    if let Some(packing) = Packing::of(head) {
        return (Form::Packed(0, packing), None);
    }
    // Documentation/arch/arm64/booting.rst.
    if at(56, b"ARMd") {
        return (Form::Plain, Some(64));
    }
    // A kernel that unpacks itself under EFI: drivers/firmware/efi/libstub/zboot-header.S.
    if at(0, b"MZ") && at(4, b"zimg") {
        let start = word(8).unwrap_or(0);
        let inner = usize::try_from(start).ok().and_then(|start| head.get(start..)).unwrap_or_default();
        let form = Packing::of(inner).map_or(Form::Unknown, |packing| Form::Packed(start.into(), packing));
        return (form, Some(64));
    }
    // arch/arm/boot/compressed/head.S; where the packed kernel begins, only its own first bytes tell.
    if word(36) == Some(0x016f_2818) {
        let start = (64..head.len()).find(|at| {
            let rest = head.get(*at..).unwrap_or_default();
            // A gzip stream without a name, as the kernel's own makefile makes it.
            rest.starts_with(b"\x1f\x8b\x08\x00") || Packing::of(rest).is_some_and(|packing| packing != Packing::Gzip)
        });
        let form =
            start.and_then(|start| Some(Form::Packed(u64::try_from(start).ok()?, Packing::of(head.get(start..)?)?)));
        return (form.unwrap_or(Form::Unknown), Some(32));
    }
    (Form::Unknown, None)
}

#[cfg(test)]
mod tests {
    use super::super::drivers::Built;
    use super::*;
    use std::io::Write;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// An arm64 kernel's image as far as anybody looks at it here.
    fn arm64(strings: &[&[u8]]) -> Vec<u8> {
        let mut image = vec![0; 64];
        image[56..60].copy_from_slice(b"ARMd");
        for string in strings {
            // Across the border of two chunks.
            image.resize(image.len().next_multiple_of(CHUNK) - 5, 7);
            image.extend(*string);
        }
        image.resize(image.len() + 1000, 0);
        image
    }

    fn read(data: &[u8], whole: bool) -> Kernel {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(data).unwrap();
        file.rewind().unwrap();
        Kernel::read(file, whole)
    }

    const BANNER: &[u8] = b"Linux version 6.12.47+rpt-rpi-v8 (serge@raspberrypi.com) (gcc) #1\n";

    #[test]
    fn release_and_strings_are_found_however_the_kernel_is_packed() {
        let plain = arm64(&[b"Linux version %s", BANNER, b"\x013Root-NFS: no NFS server address\n", b"IP-Config: "]);
        let mut zboot = vec![0; 4096];
        zboot[..2].copy_from_slice(b"MZ");
        zboot[4..12].copy_from_slice(b"zimg\0\x10\0\0");
        zboot.extend(gzip(&plain));
        let mut z_image = vec![1; 20_000];
        z_image[36..40].copy_from_slice(&0x016f_2818_u32.to_le_bytes());
        z_image.extend(gzip(&plain));
        for (what, data, bits) in
            [("plain", &plain, 64), ("gzip", &gzip(&plain), 64), ("zboot", &zboot, 64), ("zImage", &z_image, 32)]
        {
            let kernel = read(data, true);
            assert_eq!(kernel.release.as_deref(), Some("6.12.47+rpt-rpi-v8"), "{what}");
            assert_eq!((kernel.bits, kernel.strings), (Some(bits), Some((true, true))), "{what}");
            let quick = read(data, false);
            assert_eq!((quick.bits, quick.release, quick.strings), (Some(bits), None, None), "{what}");
        }
        assert_eq!(read(&gzip(&plain)[..2000], true).strings, None, "cut off");
        assert_eq!(read(b"no kernel", true), Kernel::default());
    }

    #[test]
    fn beginnings_that_lie_are_no_kernels() {
        let mut zboot = [0; 100];
        zboot[..8].copy_from_slice(b"MZ\0\0zimg");
        zboot[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        for data in [&zboot[..], b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"", &zboot[..9]] {
            let kernel = read(data, true);
            assert_eq!((kernel.release, kernel.parts), (None, None));
        }
    }

    #[test]
    fn a_configuration_in_the_kernel_is_read() {
        let config = gzip(b"CONFIG_BCMGENET=y\nCONFIG_NFS_FS=m\n");
        let kernel = read(&arm64(&[BANNER, &[b"IKCFG_ST", &config[..], b"IKCFG_ED"].concat()]), true);
        let parts = kernel.parts.unwrap();
        assert_eq!(
            (parts.get("genet"), parts.get("nfs"), parts.get("macb")),
            (Built::In, Built::Module, Built::Absent)
        );
    }
}
