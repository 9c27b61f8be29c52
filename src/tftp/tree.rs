//! The route chain: which file of which device a requested name means, and whether the asker may have it.
//!
//! Pis ask for `<serial>/start4.elf`, with `TFTP_PREFIX=2` for `<mac>/start4.elf`, without prefix when the probe of
//! `<prefix>/start*.elf` failed, and the boot ROM of a Pi 3 asks for plain `bootcode.bin` before its serial is known.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::pi::{Mac, Serial};

/// The one name that a Pi's boot ROM asks for, always at the root.
pub const ROM_FILE: &[u8] = b"bootcode.bin";
/// Components of a path at most; the deepest a Pi asks for is three (`<serial>/overlays/x.dtbo`).
const MAX_COMPONENTS: usize = 16;

/// A device whose boot files are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The device's id in the configuration.
    pub id: String,
    /// Its serial; `None` until a Pi 3B enrolled by MAC has shown it.
    pub serial: Option<Serial>,
    /// Its hardware address; with `None` anyone who knows the serial may read the files.
    pub mac: Option<Mac>,
    /// Directory of its boot files.
    pub boot: PathBuf,
}

/// All that is served, immutable: a change is a new value (see [`super::Handle::set_routes`]).
#[derive(Debug, Default)]
pub struct Routes {
    devices: Vec<Device>,
    by_serial: HashMap<Serial, usize>,
    by_mac: HashMap<Mac, usize>,
    fallback: Option<PathBuf>,
}

/// Where to look for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// The device whose file it is, and its path below the device's boot directory.
    pub device: Option<(&'a Device, RelativePath<'a>)>,
    /// Where to look for [`ROM_FILE`] if the device, or that file of it, does not exist.
    pub fallback: Option<&'a Path>,
}

/// Why a name leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No device has such a file.
    #[error("not found")]
    NotFound,
    /// The name tries to leave its tree.
    #[error("path is not allowed")]
    BadPath,
    /// The device's address is held by another than the asker.
    #[error("not your files")]
    NotYours,
}

/// A path of plain components: nothing empty, no `.` or `..`, no NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelativePath<'a>(Vec<&'a [u8]>);

impl<'a> RelativePath<'a> {
    /// Splits `path`; leading, doubled and trailing slashes and `.` mean nothing.
    ///
    /// # Errors
    /// [`Refusal::BadPath`] for `..` and NUL, [`Refusal::NotFound`] for a path deeper than any Pi asks for.
    pub fn new(path: &'a [u8]) -> Result<Self, Refusal> {
        let mut components = Vec::with_capacity(4);
        for component in path.split(|&b| b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(Refusal::BadPath),
                name if name.contains(&0) => return Err(Refusal::BadPath),
                name => components.push(name),
            }
        }
        if components.len() > MAX_COMPONENTS { Err(Refusal::NotFound) } else { Ok(Self(components)) }
    }

    /// The components, outermost first.
    #[must_use]
    pub fn components(&self) -> &[&'a [u8]] {
        &self.0
    }

    fn without_first(mut self) -> Self {
        self.0.remove(0);
        self
    }
}

impl Routes {
    /// Routes to `devices`. `fallback` is a directory of boot files that no Pi can write to, an image's: its
    /// [`ROM_FILE`] goes to anybody who asks for one, also to Pis whose address is not known (yet). Of two devices with
    /// the same serial or MAC the first wins.
    #[must_use]
    pub fn new(devices: Vec<Device>, fallback: Option<PathBuf>) -> Self {
        let mut routes = Self { fallback, ..Self::default() };
        for (index, device) in devices.iter().enumerate() {
            if let Some(serial) = device.serial {
                routes.by_serial.entry(serial).or_insert(index);
            }
            if let Some(mac) = device.mac {
                routes.by_mac.entry(mac).or_insert(index);
            }
        }
        routes.devices = devices;
        routes
    }

    /// Finds what `path` means to a client; `holder` tells the hardware address the client's IP belongs to and is asked
    /// only if it matters.
    ///
    /// # Errors
    /// [`Refusal`], which says what to answer.
    pub fn resolve<'a>(&'a self, path: &'a [u8], holder: impl FnOnce() -> Option<Mac>) -> Result<Target<'a>, Refusal> {
        let path = RelativePath::new(path)?;
        let Some(&first) = path.components().first() else { return Err(Refusal::NotFound) };
        let serial = Serial::from_prefix(first);
        let by_prefix = serial
            .and_then(|serial| self.by_serial.get(&serial))
            .or_else(|| Mac::from_dashed(first).and_then(|mac| self.by_mac.get(&mac)))
            .and_then(|&index| self.devices.get(index));
        if let Some(device) = by_prefix {
            if device.mac.is_some() && holder() != device.mac {
                return Err(Refusal::NotYours);
            }
            return Ok(Target { device: Some((device, path.without_first())), fallback: None });
        }
        let is_rom_file = path.components() == [ROM_FILE];
        let fallback = self.fallback.as_deref().filter(|_| is_rom_file);
        let by_address = holder().and_then(|mac| self.by_mac.get(&mac)).and_then(|&index| self.devices.get(index));
        let device = by_address.map(|device| {
            // A Pi enrolled by MAC that shows its serial for the first time: serve it, whoever listens learns the serial.
            let shows_serial = serial.is_some() && device.serial.is_none();
            (device, if shows_serial { path.without_first() } else { path })
        });
        if device.is_none() && fallback.is_none() {
            return Err(Refusal::NotFound);
        }
        Ok(Target { device, fallback })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LION: Mac = Mac([0xdc, 0xa6, 0x32, 0, 0, 1]);
    const PANDA: Mac = Mac([0xb8, 0x27, 0xeb, 0, 0, 2]);
    const STRANGER: Mac = Mac([0x52, 0x54, 0, 0, 0, 3]);

    fn routes() -> Routes {
        let device = |id: &str, serial: Option<u32>, mac| Device {
            id: id.to_owned(),
            serial: serial.map(Serial),
            mac,
            boot: PathBuf::from("/data").join(id),
        };
        Routes::new(
            vec![
                device("lion", Some(0x38c1_28c0), Some(LION)),
                device("panda", None, Some(PANDA)),
                device("open", Some(0x0000_00aa), None),
            ],
            Some(PathBuf::from("/data/image/boot")),
        )
    }

    /// `id:path` below the device, `fallback` or the refusal.
    fn resolve(path: &str, holder: Option<Mac>) -> String {
        match routes().resolve(path.as_bytes(), || holder) {
            Err(refusal) => refusal.to_string(),
            Ok(Target { device: Some((device, path)), fallback }) => {
                let path = path.components().iter().map(|c| String::from_utf8_lossy(c)).collect::<Vec<_>>().join("/");
                format!("{}:{path}{}", device.id, if fallback.is_some() { " or fallback" } else { "" })
            }
            Ok(Target { device: None, .. }) => "fallback".to_owned(),
        }
    }

    #[test]
    fn the_chain_in_its_order() {
        for (path, holder, meaning) in [
            // 1. serial of a known device
            ("38c128c0/start4.elf", Some(LION), "lion:start4.elf"),
            ("/38c128c0//overlays/./a.dtbo", Some(LION), "lion:overlays/a.dtbo"),
            ("38c128c0/start4.elf", Some(PANDA), "not your files"),
            ("38c128c0/start4.elf", Some(STRANGER), "not your files"),
            ("38c128c0/start4.elf", None, "not your files"),
            ("000000aa/start.elf", None, "open:start.elf"),
            ("000000aa/start.elf", Some(PANDA), "open:start.elf"),
            // 2. MAC as TFTP_PREFIX=2 writes it
            ("dc-a6-32-00-00-01/config.txt", Some(LION), "lion:config.txt"),
            ("dc-a6-32-00-00-01/config.txt", Some(PANDA), "not your files"),
            ("DC-A6-32-00-00-01/config.txt", Some(STRANGER), "not found"),
            // 3. by the client's address
            ("config.txt", Some(LION), "lion:config.txt"),
            ("overlays/a.dtbo", Some(PANDA), "panda:overlays/a.dtbo"),
            ("deadbeef/start.elf", Some(PANDA), "panda:start.elf"),
            ("deadbeef/start.elf", Some(LION), "lion:deadbeef/start.elf"),
            ("config.txt", Some(STRANGER), "not found"),
            ("deadbeef/start.elf", None, "not found"),
            // 4. the ROM's file
            ("bootcode.bin", None, "fallback"),
            ("bootcode.bin", Some(STRANGER), "fallback"),
            ("bootcode.bin", Some(PANDA), "panda:bootcode.bin or fallback"),
            ("x/bootcode.bin", None, "not found"),
            ("bootsig.bin", None, "not found"),
            // never
            ("38c128c0/../panda/x", Some(LION), "path is not allowed"),
            ("..", None, "path is not allowed"),
            ("", Some(LION), "not found"),
            ("/", Some(LION), "not found"),
            ("38c128c0", Some(LION), "lion:"),
        ] {
            assert_eq!(resolve(path, holder), meaning, "{path} asked by {holder:?}");
        }
    }

    #[test]
    fn backslashes_are_bytes_and_depth_is_bounded() {
        assert_eq!(resolve("overlays\\a.dtbo", Some(LION)), "lion:overlays\\a.dtbo");
        assert_eq!(resolve(&"a/".repeat(16), Some(LION)).len(), "lion:".len() + 31);
        assert_eq!(resolve(&"a/".repeat(17), Some(LION)), "not found");
        assert_eq!(RelativePath::new(b"a\0b"), Err(Refusal::BadPath));
    }

    #[test]
    fn the_holder_is_asked_only_when_it_matters() {
        let routes = routes();
        let asked = std::cell::Cell::new(false);
        let holder = || {
            asked.set(true);
            None
        };
        assert!(routes.resolve(b"000000aa/start.elf", holder).is_ok());
        assert!(!asked.get());
    }
}
