//! From what a board fetched to a QEMU that runs it.

use crate::board::{File, Ready};
use crate::frame::Mac;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The machine QEMU plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// A generic arm64 machine with a fast network card. It brings its own device tree.
    Virt,
    /// A Raspberry Pi 3B with the fetched device tree. Its USB network is slow (some 280 KB/s) and changes the first byte
    /// of the MAC address to 40, whatever is asked for; the guest has to set it back (`smsc95xx.macaddr=` on the command
    /// line has the right one).
    Raspi3b,
}

/// Why nothing could be handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    /// The boot was run without keeping contents.
    #[error("{0} was not kept in memory: boot with `keep`")]
    NotKept(String),
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A Raspberry Pi machine needs a device tree.
    #[error("the board found no device tree, and -M raspi3b needs one")]
    NoDeviceTree,
}

/// The files on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handoff {
    /// The kernel, as fetched: an Image or a gzip of one, QEMU takes both.
    pub kernel: PathBuf,
    /// All ramdisks, joined as the firmware joins them.
    pub initramfs: Option<PathBuf>,
    /// The device tree.
    pub device_tree: Option<PathBuf>,
    /// The command line.
    pub cmdline: String,
}

/// Writes kernel, ramdisk, device tree and `cmdline.txt` to `dir`, and every fetched file under `dir/tftp`.
///
/// # Errors
/// See [`HandoffError`].
pub fn write(ready: &Ready, dir: &Path) -> Result<Handoff, HandoffError> {
    // Absolute, so that QEMU finds the files from wherever it is started.
    let made = fs::create_dir_all(dir).and_then(|()| dir.canonicalize());
    let dir = &made.map_err(|source| HandoffError::Write { path: dir.to_owned(), source })?;
    for file in &ready.files {
        put(&dir.join("tftp").join(inside(&file.path)), content(file)?)?;
    }
    let kernel = dir.join("kernel");
    put(&kernel, content(&ready.kernel)?)?;
    let mut joined = Vec::new();
    for file in &ready.initramfs {
        joined.extend_from_slice(content(file)?);
    }
    let initramfs = (!joined.is_empty()).then(|| dir.join("initramfs"));
    if let Some(path) = &initramfs {
        put(path, &joined)?;
    }
    let device_tree = ready.device_tree.as_ref().map(|file| (dir.join("device-tree.dtb"), file));
    if let Some((path, file)) = &device_tree {
        put(path, content(file)?)?;
    }
    put(&dir.join("cmdline.txt"), format!("{}\n", ready.cmdline).as_bytes())?;
    let device_tree = device_tree.map(|(path, _)| path);
    Ok(Handoff { kernel, initramfs, device_tree, cmdline: ready.cmdline.clone() })
}

fn content(file: &File) -> Result<&[u8], HandoffError> {
    file.content.as_deref().ok_or_else(|| HandoffError::NotKept(file.path.clone()))
}

/// Names come from a server: only their plain parts are used.
fn inside(name: &str) -> PathBuf {
    Path::new(name).components().filter(|c| matches!(c, Component::Normal(_))).collect()
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), HandoffError> {
    let write = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)
    };
    write().map_err(|source| HandoffError::Write { path: path.to_owned(), source })
}

impl Handoff {
    /// The QEMU command line, program first. The guest takes over the board's tap interface and MAC address; `serial` is
    /// where its console goes (`stdio`, `file:…`, `unix:…`); `append` is added to the kernel's command line: the serial
    /// port is called `ttyAMA0` on [`Machine::Virt`], and `ttyS1` by an upstream kernel on [`Machine::Raspi3b`].
    ///
    /// # Errors
    /// [`HandoffError::NoDeviceTree`].
    pub fn qemu(
        &self,
        machine: Machine,
        tap: &str,
        mac: Mac,
        serial: &str,
        append: &[&str],
    ) -> Result<Vec<String>, HandoffError> {
        // KVM hangs on arm64 guests under nested virtualisation; emulation always works.
        let mut args: Vec<String> = ["qemu-system-aarch64", "-accel", "tcg", "-display", "none", "-monitor", "none"]
            .into_iter()
            .chain(["-no-reboot"])
            .map(str::to_owned)
            .collect();
        let mut add = |key: &str, value: String| args.extend([key.to_owned(), value]);
        let card = match machine {
            Machine::Virt => {
                for (key, value) in [("-M", "virt"), ("-cpu", "cortex-a53"), ("-m", "1024"), ("-smp", "2")] {
                    add(key, value.to_owned());
                }
                // No romfile: the kernel is given, and the file may not be installed.
                format!("virtio-net-pci,netdev=lan,mac={mac},romfile=")
            }
            Machine::Raspi3b => {
                add("-M", "raspi3b".to_owned());
                add("-dtb", self.device_tree.as_ref().ok_or(HandoffError::NoDeviceTree)?.display().to_string());
                // Its first serial port is the one that a Pi 3 has for Bluetooth.
                add("-serial", "null".to_owned());
                format!("usb-net,netdev=lan,mac={mac}")
            }
        };
        add("-serial", serial.to_owned());
        add("-netdev", format!("tap,id=lan,ifname={tap},script=no,downscript=no"));
        add("-device", card);
        add("-kernel", self.kernel.display().to_string());
        if let Some(path) = &self.initramfs {
            add("-initrd", path.display().to_string());
        }
        let words: Vec<&str> = [self.cmdline.as_str()].into_iter().chain(append.iter().copied()).collect();
        add("-append", words.join(" "));
        Ok(args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_the_network_stay_inside() {
        for (name, path) in [("a/b", "a/b"), ("../../etc/x", "etc/x"), ("/etc/x", "etc/x"), ("5b/./c", "5b/c")] {
            assert_eq!(inside(name), Path::new(path));
        }
    }

    #[test]
    fn a_raspberry_pi_machine_gets_the_fetched_tree_and_virt_does_not() {
        let mut handoff = Handoff {
            kernel: "/x/kernel".into(),
            initramfs: Some("/x/initramfs".into()),
            device_tree: Some("/x/device-tree.dtb".into()),
            cmdline: "root=/dev/nfs".into(),
        };
        let mac = Mac([0xb8, 0x27, 0xeb, 1, 2, 3]);
        let virt = handoff.qemu(Machine::Virt, "tap0", mac, "stdio", &["console=ttyAMA0"]).unwrap().join(" ");
        assert!(virt.contains("-device virtio-net-pci,netdev=lan,mac=b8:27:eb:01:02:03"), "{virt}");
        assert!(virt.ends_with("-append root=/dev/nfs console=ttyAMA0") && !virt.contains("-dtb"), "{virt}");
        let board = handoff.qemu(Machine::Raspi3b, "tap0", mac, "stdio", &[]).unwrap().join(" ");
        assert!(board.contains("-M raspi3b -dtb /x/device-tree.dtb") && board.contains("usb-net"), "{board}");
        handoff.device_tree = None;
        assert!(handoff.qemu(Machine::Raspi3b, "tap0", mac, "stdio", &[]).is_err());
    }
}
