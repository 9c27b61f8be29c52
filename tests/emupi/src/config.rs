//! `config.txt`, as far as it decides which files are fetched (Raspberry Pi documentation, "config.txt").

use crate::model::{Model, Pi};
use std::collections::BTreeMap;

/// Everything after this column of a line is ignored.
const LINE_LIMIT: usize = 98;
/// Files including files including …
const INCLUDE_DEPTH: u32 = 4;

/// What the file says for one board.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    values: BTreeMap<String, String>,
    /// `initramfs NAME ADDRESS` or `ramfsfile=`, comma-separated names taken apart.
    pub initramfs: Vec<String>,
    /// Overlays in order, parameters cut off.
    pub overlays: Vec<String>,
}

impl Config {
    /// The value of a setting; the last one in the file counts.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// A setting that is on or off; `None` if it is absent or no number.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.trim().parse::<i64>().ok().map(|n| n != 0)
    }

    /// Whether a setting is present and on.
    pub fn on(&self, key: &str) -> bool {
        self.flag(key) == Some(true)
    }

    /// Reads the file for one board. `include` supplies included files; `None` if one is missing.
    pub fn parse(text: &[u8], pi: &Pi, include: &mut dyn FnMut(&str) -> Option<Vec<u8>>) -> Config {
        let mut parser = Parser { pi, config: Config::default(), filters: BTreeMap::new() };
        parser.file(text, include, 0);
        parser.config
    }
}

/// Kinds of filter: a new one replaces the old one of its kind, different kinds must all hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    None,
    Model,
    Serial,
    BoardType,
    Tryboot,
    Other,
}

struct Parser<'a> {
    pi: &'a Pi,
    config: Config,
    filters: BTreeMap<Kind, bool>,
}

impl Parser<'_> {
    fn file(&mut self, text: &[u8], include: &mut dyn FnMut(&str) -> Option<Vec<u8>>, depth: u32) {
        for line in text.split(|&b| b == b'\n') {
            let line = String::from_utf8_lossy(&line[..line.len().min(LINE_LIMIT)]);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(filter) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                self.filter(filter.trim());
            } else if self.filters.values().all(|holds| *holds) {
                self.line(line, include, depth);
            }
        }
    }

    fn line(&mut self, line: &str, include: &mut dyn FnMut(&str) -> Option<Vec<u8>>, depth: u32) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("include"), Some(name)) => {
                if let Some(text) = (depth < INCLUDE_DEPTH).then(|| include(name)).flatten() {
                    self.file(&text, include, depth + 1);
                }
            }
            // The one setting without an equals sign.
            (Some("initramfs"), Some(name)) if !name.starts_with('=') => self.config.initramfs = names(name),
            _ => {
                let Some((key, value)) = line.split_once('=') else { return };
                self.set(key.trim(), value.trim());
            }
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        match key {
            "ramfsfile" => self.config.initramfs = names(value),
            "dtoverlay" | "device_tree_overlay" => {
                // Parameters follow a comma, or a colon in old files; an empty name only ends the parameters' scope.
                let name = value.split([',', ':']).next().unwrap_or_default().trim();
                if !name.is_empty() {
                    self.config.overlays.push(name.to_owned());
                }
            }
            _ => {
                self.config.values.insert(key.to_owned(), value.to_owned());
            }
        }
    }

    fn filter(&mut self, filter: &str) {
        let (kind, holds) = match filter {
            "all" => {
                self.filters.clear();
                return;
            }
            "none" => (Kind::None, false),
            "tryboot" => (Kind::Tryboot, false),
            _ => {
                if let Some(serial) = filter.strip_prefix("0x") {
                    let serial = u64::from_str_radix(serial, 16).ok();
                    (Kind::Serial, serial.is_some_and(|s| s == self.pi.serial || s == u64::from(self.pi.serial32())))
                } else if let Some(board) = filter.strip_prefix("board-type=") {
                    let board = u32::from_str_radix(board.trim_start_matches("0x"), 16).ok();
                    (Kind::BoardType, board == Some(self.pi.board_type()))
                } else if is_model(filter) {
                    (Kind::Model, sees(self.pi.model).contains(&filter))
                } else {
                    // [EDID=…], [gpio4=1], [HDMI:0], [partition=2]: no monitor, no pins, no card.
                    (Kind::Other, false)
                }
            }
        };
        self.filters.insert(kind, holds);
    }
}

fn names(list: &str) -> Vec<String> {
    list.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

fn is_model(filter: &str) -> bool {
    filter
        .strip_prefix("pi")
        .or_else(|| filter.strip_prefix("cm"))
        .is_some_and(|rest| rest.bytes().next().is_some_and(|b| b.is_ascii_digit()))
}

/// The model filters a board sees (documentation, "Conditional filters").
fn sees(model: Model) -> &'static [&'static str] {
    match model {
        Model::Pi3B | Model::Bootcode => &["pi3"],
        Model::Pi3BPlus => &["pi3", "pi3+"],
        Model::Pi4B => &["pi4"],
        Model::Pi400 => &["pi4", "pi400"],
        Model::Cm4 => &["pi4", "cm4"],
        Model::Pi5 => &["pi5"],
        Model::Cm5 => &["pi5", "cm5"],
        Model::X86Pxe | Model::Laptop => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(model: Model, text: &str) -> Config {
        Config::parse(text.as_bytes(), &Pi::new(model, 0x1000_0000_1234_5678), &mut |_| None)
    }

    #[test]
    fn raspberry_pi_os_as_shipped() {
        let text = "# comment\ndtparam=audio=on\ncamera_auto_detect=1\nauto_initramfs=1\ndtoverlay=vc4-kms-v3d\n\
                    arm_64bit=1\n\n[cm4]\notg_mode=1\n\n[cm5]\ndtoverlay=dwc2,dr_mode=host\n\n[all]\nenable_uart=1\n";
        let pi3 = read(Model::Pi3B, text);
        assert!(pi3.on("auto_initramfs") && pi3.on("arm_64bit") && pi3.on("enable_uart"));
        assert_eq!(pi3.overlays, ["vc4-kms-v3d"]);
        assert_eq!(read(Model::Cm5, text).overlays, ["vc4-kms-v3d", "dwc2"]);
        assert_eq!((read(Model::Cm4, text).on("otg_mode"), pi3.on("otg_mode")), (true, false));
    }

    #[test]
    fn debian_as_shipped() {
        let text = "arm_64bit=1\nkernel=vmlinuz-6.1.0-18-arm64\ninitramfs initrd.img-6.1.0-18-arm64\r\n\n[cm4]\nfoo=1\n[all]\n";
        let config = read(Model::Pi3B, text);
        assert_eq!(config.get("kernel"), Some("vmlinuz-6.1.0-18-arm64"));
        assert_eq!(config.initramfs, ["initrd.img-6.1.0-18-arm64"]);
    }

    #[test]
    fn filters_of_a_kind_replace_and_of_different_kinds_combine() {
        let text = "[pi4]\na=1\n[pi3]\nb=1\n[0x12345678]\nc=1\n[0x1]\nd=1\n[all]\ne=1\n[none]\nf=1\n[pi3]\ng=1\n\
                    [all]\n[board-type=0x08]\nh=1\n[all]\n[EDID=X-Y]\ni=1\n[all]\n[pi3+]\nj=1\n";
        let seen = |model| {
            let config = read(model, text);
            ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"].into_iter().filter(|k| config.on(k)).collect::<String>()
        };
        assert_eq!(seen(Model::Pi3B), "bceh");
        assert_eq!(seen(Model::Pi3BPlus), "bcej");
        assert_eq!(seen(Model::Pi4B), "ae");
        // [pi02] and the like are filters too, for boards that are not played here.
        assert!(!read(Model::Pi3B, "[pi02]\na=1\n").on("a"));
    }

    #[test]
    fn includes_are_read_in_place_and_may_be_missing_or_endless() {
        let pi = Pi::new(Model::Pi4B, 1);
        let mut asked = Vec::new();
        let config = Config::parse(b"a=1\ninclude usercfg.txt\nb=2\n[pi3]\ninclude never.txt\n", &pi, &mut |name| {
            asked.push(name.to_owned());
            Some(b"a=3\nb=3\ninclude usercfg.txt\n".to_vec())
        });
        assert_eq!((config.get("a"), config.get("b")), (Some("3"), Some("2")));
        assert_eq!(asked, ["usercfg.txt"; 4]);
    }

    #[test]
    fn long_lines_are_cut() {
        let long = format!("kernel={}tail", "k".repeat(98 - 7));
        assert_eq!(read(Model::Pi4B, &long).get("kernel").map(str::len), Some(91));
    }

    #[test]
    fn several_ramdisks() {
        assert_eq!(read(Model::Pi4B, "initramfs a,b followkernel").initramfs, ["a", "b"]);
        assert_eq!(read(Model::Pi4B, "ramfsfile=c\nramfsaddr=-1").initramfs, ["c"]);
    }
}
