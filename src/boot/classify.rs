//! What a requested file is to a boot, told by its name as the firmware asks for it.

use crate::pi::{Mac, Serial};

/// The part of a boot that a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// bootcode.bin, start*.elf, fixup*.dat, EEPROM updates.
    Firmware,
    /// config.txt, cmdline.txt and what they include.
    Config,
    /// Device tree and overlays.
    DeviceTree,
    /// The kernel.
    Kernel,
    /// The initial ramdisk.
    Initramfs,
    /// Anything else.
    Other,
}

impl FileKind {
    /// Judges by the last component of `path`.
    #[must_use]
    pub fn of(path: &[u8]) -> Self {
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default().to_ascii_lowercase();
        let starts = |prefix: &[u8]| name.starts_with(prefix);
        let ends = |suffix: &[u8]| name.ends_with(suffix);
        if ends(b".dtb") || ends(b".dtbo") || starts(b"dt-blob") {
            Self::DeviceTree
        } else if starts(b"initramfs") || starts(b"initrd") {
            Self::Initramfs
        } else if starts(b"kernel") || starts(b"vmlinu") || name == b"image" || starts(b"image-") || starts(b"u-boot") {
            Self::Kernel
        } else if ends(b".elf") || ends(b".dat") || ends(b".bin") || ends(b".upd") || ends(b".sig") {
            Self::Firmware
        } else if ends(b".txt") {
            Self::Config
        } else {
            Self::Other
        }
    }
}

/// A TFTP path's first component when it is a Pi's own prefix, and the rest.
#[must_use]
pub fn split_prefix(path: &[u8]) -> (Option<Serial>, Option<Mac>, &[u8]) {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let Some(slash) = path.iter().position(|&b| b == b'/') else { return (None, None, path) };
    let (first, rest) = (&path[..slash], &path[slash + 1..]);
    match (Serial::from_prefix(first), Mac::from_dashed(first)) {
        (None, None) => (None, None, path),
        (serial, mac) => (serial, mac, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_stage() {
        for (path, kind) in [
            (&b"38c128c0/start4.elf"[..], FileKind::Firmware),
            (b"bootcode.bin", FileKind::Firmware),
            (b"38c128c0/config.txt", FileKind::Config),
            (b"38c128c0/overlays/vc4-kms-v3d.dtbo", FileKind::DeviceTree),
            (b"38c128c0/bcm2711-rpi-4-b.dtb", FileKind::DeviceTree),
            (b"38c128c0/kernel8.img", FileKind::Kernel),
            (b"38c128c0/initramfs8", FileKind::Initramfs),
            (b"initrd.img", FileKind::Initramfs),
            (b"38c128c0/", FileKind::Other),
            (b"", FileKind::Other),
        ] {
            assert_eq!(FileKind::of(path), kind, "{}", String::from_utf8_lossy(path));
        }
    }

    #[test]
    fn only_a_pis_own_prefix_is_split_off() {
        assert_eq!(split_prefix(b"38c128c0/a/b"), (Some(Serial(0x38c1_28c0)), None, &b"a/b"[..]));
        assert_eq!(split_prefix(b"/38c128c0/"), (Some(Serial(0x38c1_28c0)), None, &b""[..]));
        assert_eq!(split_prefix(b"overlays/x.dtbo"), (None, None, &b"overlays/x.dtbo"[..]));
        assert!(split_prefix(b"dc-a6-32-01-36-c2/x").1.is_some());
    }
}
