//! The last stage, much the same program on all boards: from config.txt to the kernel.

use super::session::Session;
use super::{File, Ready, Stop, failed};
use crate::config::Config;
use crate::model::{Model, Pi};
use crate::record::Event;
use std::collections::BTreeMap;

/// What differs between boards.
pub(super) trait Variant {
    /// Whether recovery.elf, dt-blob.bin and bootcfg.txt are looked for, and config.txt read twice.
    fn looks_for_relics(&self) -> bool;
    /// Kernels in order of preference.
    fn kernels(&self, config: &Config) -> Vec<&'static str>;
    /// Kernels that are only looked at.
    fn looks_at(&self, config: &Config) -> &'static [&'static str];
    /// The stub that runs before the kernel.
    fn stub(&self, kernel: &str, config: &Config) -> &'static str;
    /// Device trees in order of preference.
    fn device_trees(&self, pi: &Pi, upstream: bool) -> Vec<&'static str>;
    /// What overlay_map.dtb makes of a name.
    fn overlay<'n>(&self, name: &'n str) -> &'n str;
    /// The device behind `console=serial0`, if there is one.
    fn serial0(&self, config: &Config) -> Option<&'static str>;
}

/// start.elf up to the 3B+.
pub(super) struct Family3;
/// start4.elf.
pub(super) struct Family4;
/// The EEPROM of a Raspberry Pi 5.
pub(super) struct Family5;

/// Boards up to the 4 put the small UART on the header pins unless Bluetooth gives the good one up.
fn header_uart(config: &Config) -> Option<&'static str> {
    let swapped = config.overlays.iter().any(|o| ["disable-bt", "miniuart-bt", "pi3-disable-bt"].contains(&o.as_str()));
    match (swapped, config.on("enable_uart")) {
        (true, _) => Some("ttyAMA0"),
        (false, true) => Some("ttyS0"),
        (false, false) => None,
    }
}

impl Variant for Family3 {
    fn looks_for_relics(&self) -> bool {
        true
    }

    // 32 bits unless arm_64bit=1. A kernel8.img beside kernel7.img is looked at and left (firmware issue 1605); without
    // kernel7.img it is better than nothing.
    fn kernels(&self, config: &Config) -> Vec<&'static str> {
        if config.on("arm_64bit") { vec!["kernel8.img"] } else { vec!["kernel7.img", "kernel8.img"] }
    }

    fn looks_at(&self, config: &Config) -> &'static [&'static str] {
        if config.on("arm_64bit") { &["recovery8.img"] } else { &["kernel8.img", "kernel8-32.img", "kernel8.img"] }
    }

    fn stub(&self, kernel: &str, config: &Config) -> &'static str {
        if config.on("arm_64bit") || kernel.ends_with("kernel8.img") { "armstub8.bin" } else { "armstub8-32.bin" }
    }

    fn device_trees(&self, pi: &Pi, upstream: bool) -> Vec<&'static str> {
        // A firmware that finds no tree for the 3B+ makes do with the 3B's.
        let (plus, ours) = (pi.model == Model::Pi3BPlus, "bcm2710-rpi-3-b.dtb");
        match (plus, upstream) {
            (false, false) => vec![ours],
            (false, true) => vec!["bcm2837-rpi-3-b.dtb", ours],
            (true, false) => vec!["bcm2710-rpi-3-b-plus.dtb", ours],
            (true, true) => vec!["bcm2837-rpi-3-b-plus.dtb", "bcm2710-rpi-3-b-plus.dtb", ours],
        }
    }

    fn overlay<'n>(&self, name: &'n str) -> &'n str {
        match name {
            "pi3-disable-bt" => "disable-bt",
            "pi3-miniuart-bt" => "miniuart-bt",
            other => other,
        }
    }

    fn serial0(&self, config: &Config) -> Option<&'static str> {
        header_uart(config)
    }
}

impl Variant for Family4 {
    fn looks_for_relics(&self) -> bool {
        true
    }

    fn kernels(&self, config: &Config) -> Vec<&'static str> {
        match config.flag("arm_64bit") {
            Some(true) => vec!["kernel8.img"],
            Some(false) => vec!["kernel7l.img", "kernel7.img"],
            None => vec!["kernel8.img", "kernel7l.img", "kernel7.img"],
        }
    }

    fn looks_at(&self, _: &Config) -> &'static [&'static str] {
        &[]
    }

    fn stub(&self, kernel: &str, _: &Config) -> &'static str {
        if kernel.contains("kernel7") { "armstub8-32-gic.bin" } else { "armstub8-gic.bin" }
    }

    fn device_trees(&self, pi: &Pi, _: bool) -> Vec<&'static str> {
        // Upstream kernels use the same names here.
        match pi.model {
            Model::Cm4 => vec!["bcm2711-rpi-cm4.dtb", "bcm2711-rpi-4-b.dtb"],
            Model::Pi400 => vec!["bcm2711-rpi-400.dtb", "bcm2711-rpi-4-b.dtb"],
            _ => vec!["bcm2711-rpi-4-b.dtb"],
        }
    }

    fn overlay<'n>(&self, name: &'n str) -> &'n str {
        match name {
            "vc4-kms-v3d" => "vc4-kms-v3d-pi4",
            "vc4-fkms-v3d" => "vc4-fkms-v3d-pi4",
            other => Family3.overlay(other),
        }
    }

    fn serial0(&self, config: &Config) -> Option<&'static str> {
        header_uart(config)
    }
}

impl Variant for Family5 {
    fn looks_for_relics(&self) -> bool {
        false
    }

    fn kernels(&self, _: &Config) -> Vec<&'static str> {
        vec!["kernel_2712.img", "kernel8.img"]
    }

    fn looks_at(&self, _: &Config) -> &'static [&'static str] {
        &[]
    }

    fn stub(&self, _: &str, _: &Config) -> &'static str {
        "armstub8-2712.bin"
    }

    fn device_trees(&self, pi: &Pi, _: bool) -> Vec<&'static str> {
        match (pi.model, pi.is_d0()) {
            (Model::Cm5, _) if pi.board_type() == 0x1a => {
                vec!["bcm2712-rpi-cm5l-cm5io.dtb", "bcm2712-rpi-cm5-cm5io.dtb"]
            }
            (Model::Cm5, _) => vec!["bcm2712-rpi-cm5-cm5io.dtb"],
            (_, true) => vec!["bcm2712d0-rpi-5-b.dtb", "bcm2712-rpi-5-b.dtb"],
            (_, false) => vec!["bcm2712-rpi-5-b.dtb"],
        }
    }

    fn overlay<'n>(&self, name: &'n str) -> &'n str {
        match name {
            "vc4-kms-v3d" | "vc4-fkms-v3d" | "vc4-kms-v3d-pi4" => "vc4-kms-v3d-pi5",
            "disable-bt" => "disable-bt-pi5",
            other => other,
        }
    }

    fn serial0(&self, _: &Config) -> Option<&'static str> {
        // The debug connector.
        Some("ttyAMA10")
    }
}

/// Runs the stage.
pub(super) async fn run(session: &mut Session<'_>, variant: &dyn Variant) -> Result<Ready, Stop> {
    Firmware { prefix: session.prefix.clone(), os_prefix: String::new(), session, variant }.run().await
}

struct Firmware<'s, 'a> {
    session: &'s mut Session<'a>,
    variant: &'s dyn Variant,
    prefix: String,
    os_prefix: String,
}

impl Firmware<'_, '_> {
    async fn run(mut self) -> Result<Ready, Stop> {
        let config = self.read_config().await?;
        let upstream = config.on("upstream_kernel");
        self.choose_os_prefix(&config).await?;
        let kernel = self.choose_kernel(&config).await?;
        let mut initramfs = Vec::new();
        for name in ramdisks(&config, &kernel) {
            let path = self.os_path(&name);
            initramfs.extend(self.load(&path).await?);
        }
        let device_tree = self.device_tree(&config, upstream).await?;
        let overlays = if device_tree.is_some() { self.overlays(&config).await? } else { Vec::new() };
        let cmdline_txt = self.cmdline_txt(&config).await?;
        let kernel = self.kernel(&config, &kernel).await?;
        let cmdline = self.cmdline(&config, &cmdline_txt);
        let files = self.session.take_files();
        Ok(Ready { kernel, initramfs, device_tree, overlays, cmdline, cmdline_txt, files })
    }

    /// The board reads the file time and again; the last reading counts, with its includes.
    async fn read_config(&mut self) -> Result<Config, Stop> {
        if !self.variant.looks_for_relics() {
            return self.load_config().await;
        }
        self.session.probe(&format!("{}recovery.elf", self.prefix)).await?;
        self.load_config().await?;
        self.session.probe(&format!("{}dt-blob.bin", self.prefix)).await?;
        self.session.probe(&format!("{}recovery.elf", self.prefix)).await?;
        let config = self.load_config().await?;
        self.session.probe(&format!("{}bootcfg.txt", self.prefix)).await?;
        Ok(config)
    }

    async fn load_config(&mut self) -> Result<Config, Stop> {
        let path = format!("{}config.txt", self.prefix);
        let text = self.load_text(&path).await?.unwrap_or_default();
        let mut includes: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
        loop {
            // Up to the first include that has not been fetched yet; then from the start again.
            let mut missing = None;
            let config = Config::parse(&text, self.session.pi, &mut |name| match includes.get(name) {
                Some(text) => text.clone(),
                None => {
                    missing.get_or_insert_with(|| name.to_owned());
                    None
                }
            });
            let Some(name) = missing else { return Ok(config) };
            let text = self.load_text(&format!("{}{name}", self.prefix)).await?;
            includes.insert(name, text);
        }
    }

    /// A file is looked at first, then fetched: two requests each time.
    async fn load(&mut self, path: &str) -> Result<Option<File>, Stop> {
        if self.session.probe(path).await? { self.session.fetch(path).await } else { Ok(None) }
    }

    async fn load_text(&mut self, path: &str) -> Result<Option<Vec<u8>>, Stop> {
        if !self.session.probe(path).await? {
            return Ok(None);
        }
        Ok(self.session.read(path).await?.and_then(|f| f.content))
    }

    /// A name from config.txt: os_prefix applies unless it starts with a slash.
    fn os_path(&self, name: &str) -> String {
        match name.strip_prefix('/') {
            Some(absolute) => format!("{}{absolute}", self.prefix),
            None => format!("{}{}{name}", self.prefix, self.os_prefix),
        }
    }

    /// The prefix counts only if kernel and device tree exist under it (documentation, `os_prefix`).
    async fn choose_os_prefix(&mut self, config: &Config) -> Result<(), Stop> {
        let upstream = config.on("upstream_kernel").then_some("upstream/");
        let Some(wanted) = config.get("os_prefix").or(upstream).filter(|p| !p.is_empty()) else { return Ok(()) };
        self.os_prefix = wanted.to_owned();
        let kernels: Vec<String> = self.kernel_names(config);
        let trees = self.device_tree_names(config, upstream.is_some());
        for names in [kernels, trees] {
            let mut found = names.is_empty();
            for name in names {
                found = found || self.session.probe(&self.os_path(&name)).await?;
            }
            if !found {
                self.session
                    .log
                    .add(Event::Note(format!("os_prefix {wanted} ignored: no kernel or device tree there")));
                self.os_prefix.clear();
                return Ok(());
            }
        }
        Ok(())
    }

    fn kernel_names(&self, config: &Config) -> Vec<String> {
        match config.get("kernel") {
            Some(name) => vec![name.to_owned()],
            None => self.variant.kernels(config).into_iter().map(str::to_owned).collect(),
        }
    }

    fn device_tree_names(&self, config: &Config, upstream: bool) -> Vec<String> {
        match config.get("device_tree") {
            Some("") => Vec::new(),
            Some(name) => vec![name.to_owned()],
            None => self.variant.device_trees(self.session.pi, upstream).into_iter().map(str::to_owned).collect(),
        }
    }

    /// The first kernel that exists; with a single candidate there is nothing to look for yet.
    async fn choose_kernel(&mut self, config: &Config) -> Result<String, Stop> {
        let names = self.kernel_names(config);
        if let [only] = names.as_slice() {
            return Ok(only.clone());
        }
        for name in &names {
            if self.session.probe(&self.os_path(name)).await? {
                return Ok(name.clone());
            }
        }
        Err(no_kernel(&names.join(", ")))
    }

    async fn device_tree(&mut self, config: &Config, upstream: bool) -> Result<Option<File>, Stop> {
        let names = self.device_tree_names(config, upstream);
        for name in &names {
            let path = self.os_path(name);
            if let Some(file) = self.load(&path).await? {
                return Ok(Some(file));
            }
        }
        if !names.is_empty() {
            self.session.log.add(Event::Note(format!("no device tree: none of {}", names.join(", "))));
        }
        Ok(None)
    }

    async fn overlays(&mut self, config: &Config) -> Result<Vec<File>, Stop> {
        let folder = config.get("overlay_prefix").unwrap_or("overlays/").to_owned();
        // Overlays are shared unless the os_prefix has a README of its own (documentation, `overlay_prefix`).
        let own = !self.os_prefix.is_empty() && self.session.probe(&self.os_path(&format!("{folder}README"))).await?;
        let base = if own { self.os_path(&folder) } else { format!("{}{folder}", self.prefix) };
        let map = self.load(&format!("{base}overlay_map.dtb")).await?.is_some();
        if self.variant.looks_for_relics() {
            self.load_config().await?;
        }
        let mut files = Vec::new();
        for name in &config.overlays {
            let name = if map { self.variant.overlay(name) } else { name };
            match self.load(&format!("{base}{name}.dtbo")).await? {
                Some(file) => files.push(file),
                None => self.session.log.add(Event::Note(format!("overlay {name} not applied"))),
            }
        }
        Ok(files)
    }

    async fn cmdline_txt(&mut self, config: &Config) -> Result<String, Stop> {
        let path = self.os_path(config.get("cmdline").unwrap_or("cmdline.txt"));
        let text = self.load_text(&path).await?.unwrap_or_default();
        let line = text.split(|b| matches!(b, b'\n' | b'\r' | 0)).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(line).trim().to_owned())
    }

    /// The kernel is looked at twice more around the stub, then fetched (firmware issue 1605).
    async fn kernel(&mut self, config: &Config, name: &str) -> Result<File, Stop> {
        if config.get("kernel").is_none() {
            for other in self.variant.looks_at(config) {
                self.session.probe(&self.os_path(other)).await?;
            }
        }
        let path = self.os_path(name);
        if !self.session.probe(&path).await? {
            return Err(no_kernel(&self.session.last_result()));
        }
        let stub = config.get("armstub").unwrap_or_else(|| self.variant.stub(name, config));
        self.load(&format!("{}{stub}", self.prefix)).await?;
        match self.load(&path).await? {
            Some(kernel) if kernel.bytes > 0 => Ok(kernel),
            _ => Err(no_kernel(&self.session.last_result())),
        }
    }

    /// The firmware puts its own words in front (the address of the USB network chip among them) and says which device
    /// serial0 is. Frame buffer and memory words are left out: they mean nothing elsewhere.
    fn cmdline(&self, config: &Config, text: &str) -> String {
        let serial0 = self.variant.serial0(config);
        let mac = self.session.pi.mac.to_string().to_uppercase();
        let mut words =
            vec![format!("8250.nr_uarts={}", u8::from(serial0 == Some("ttyS0"))), format!("smsc95xx.macaddr={mac}")];
        for word in text.split_whitespace() {
            match (word.strip_prefix("console=serial0"), serial0) {
                (Some(rest), Some(device)) => words.push(format!("console={device}{rest}")),
                (Some(_), None) => {}
                (None, _) => words.push(word.to_owned()),
            }
        }
        words.join(" ")
    }
}

fn no_kernel(what: &str) -> Stop {
    failed("kernel", Some((0, 7)), format!("no kernel: {what}"))
}

/// Ramdisks by name; with auto_initramfs the one whose name goes with the kernel's.
fn ramdisks(config: &Config, kernel: &str) -> Vec<String> {
    if !config.initramfs.is_empty() || !config.on("auto_initramfs") {
        return config.initramfs.clone();
    }
    let (folder, file) =
        kernel.rsplit_once('/').map_or(("", kernel), |(_, file)| (&kernel[..kernel.len() - file.len()], file));
    match file.strip_prefix("kernel") {
        Some(rest) => vec![format!("{folder}initramfs{}", rest.strip_suffix(".img").unwrap_or(rest))],
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text.as_bytes(), &Pi::new(Model::Pi3B, 1), &mut |_| None)
    }

    #[test]
    fn the_ramdisk_goes_with_the_kernel() {
        let auto = config("auto_initramfs=1");
        for (kernel, ramdisk) in [
            ("kernel8.img", "initramfs8"),
            ("kernel_2712.img", "initramfs_2712"),
            ("kernel7l.img", "initramfs7l"),
            ("sub/kernel7.img", "sub/initramfs7"),
        ] {
            assert_eq!(ramdisks(&auto, kernel), [ramdisk]);
        }
        assert!(ramdisks(&auto, "vmlinuz").is_empty());
        assert!(ramdisks(&config(""), "kernel8.img").is_empty());
        assert_eq!(ramdisks(&config("auto_initramfs=1\ninitramfs a followkernel"), "kernel8.img"), ["a"]);
    }

    #[test]
    fn bits_decide_the_kernel() {
        assert_eq!(Family3.kernels(&config("arm_64bit=1")), ["kernel8.img"]);
        assert_eq!(Family3.kernels(&config(""))[0], "kernel7.img");
        assert_eq!(Family4.kernels(&config(""))[0], "kernel8.img");
        assert_eq!(Family4.kernels(&config("arm_64bit=0"))[0], "kernel7l.img");
        assert_eq!(Family5.kernels(&config("")), ["kernel_2712.img", "kernel8.img"]);
    }
}
