//! What a requested file is to a boot, told by its name as the firmware asks for it.

use crate::pi::{Mac, Model, Serial};

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
        } else if is_kernel(&name) {
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

/// The board that asks for a file of this name: the firmware knows what it runs on. `None` for what several ask for.
///
/// Names of device trees: raspberrypi/linux, arch/arm/boot/dts and arch/arm64/boot/dts/broadcom.
#[must_use]
pub fn board_of(path: &[u8]) -> Option<Model> {
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    let starts = |prefix: &str| name.starts_with(prefix.as_bytes());
    let any = |prefixes: &[&str]| prefixes.iter().any(|prefix| starts(prefix));
    if name.ends_with(b".dtb") {
        if any(&["bcm2710-rpi-3-b-plus.", "bcm2837-rpi-3-b-plus."]) {
            return Some(Model::Pi3Plus);
        }
        if any(&["bcm2709-rpi-2", "bcm2710-rpi-2", "bcm2836-rpi-2", "bcm2837-rpi-2"]) {
            return Some(Model::Pi2);
        }
        let chips = [
            (&["bcm2708-rpi", "bcm2835-rpi"][..], Model::Pi1),
            (&["bcm2710-rpi", "bcm2837-rpi"], Model::Pi3),
            (&["bcm2711-rpi"], Model::Pi4),
            (&["bcm2712-rpi", "bcm2712d0-rpi"], Model::Pi5),
        ];
        return chips.iter().find(|(names, _)| any(names)).map(|(_, model)| *model);
    }
    if any(&["start4", "fixup4", "recover4", "vl805.", "armstub8-gic"]) {
        return Some(Model::Pi4);
    }
    let five = any(&["kernel_2712", "initramfs_2712", "armstub8-2712"]);
    five.then_some(Model::Pi5)
}

/// The kernel, or what the firmware starts in its place: a boot loader, UEFI, or an image of all boot files (`boot_ramdisk=1`).
fn is_kernel(name: &[u8]) -> bool {
    let starts = [&b"kernel"[..], b"vmlinu", b"image-", b"zimage", b"u-boot", b"uboot"];
    starts.iter().any(|start| name.starts_with(start)) || matches!(name, b"image" | b"boot.img" | b"rpi_efi.fd")
}

/// Whether this is how a Pi is given a new bootloader: it writes it, which takes a while, and starts over by itself
/// (raspberrypi/documentation, boot-eeprom.adoc).
pub(super) fn is_bootloader_update(name: &str) -> bool {
    matches!(name, "pieeprom.upd" | "pieeprom.bin" | "vl805.bin" | "recovery.bin")
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
    fn what_a_board_asks_for_tells_which_it_is() {
        for (path, model) in [
            (&b"38c128c0/bcm2710-rpi-3-b-plus.dtb"[..], Some(Model::Pi3Plus)),
            (b"bcm2710-rpi-3-b.dtb", Some(Model::Pi3)),
            (b"bcm2710-rpi-cm3.dtb", Some(Model::Pi3)),
            (b"bcm2710-rpi-2-b.dtb", Some(Model::Pi2)),
            (b"bcm2708-rpi-zero-w.dtb", Some(Model::Pi1)),
            (b"bcm2711-rpi-400.dtb", Some(Model::Pi4)),
            (b"bcm2712d0-rpi-5-b.dtb", Some(Model::Pi5)),
            (b"38c128c0/start4.elf", Some(Model::Pi4)),
            (b"38c128c0/kernel_2712.img", Some(Model::Pi5)),
            (b"38c128c0/start.elf", None),
            (b"bcm2711-rpi-4-b.dtb.sig", None),
            (b"kernel8.img", None),
            (b"", None),
        ] {
            assert_eq!(board_of(path), model, "{}", String::from_utf8_lossy(path));
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
