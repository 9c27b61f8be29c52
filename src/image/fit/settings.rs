//! What config.txt says to one family of boards, as far as it decides what the firmware loads (Raspberry Pi
//! documentation, "config.txt" and "Conditional filters").

use std::collections::BTreeMap;

use crate::pi::Model;

/// The firmware reads no further in a line.
const MAX_LINE: usize = 98;
/// Files that include files.
const MAX_DEPTH: u32 = 4;
/// Lines in all, with those of files that are included again and again.
const MAX_LINES: usize = 20_000;

/// The settings in force for a family's plain board: the 4B of the Pi 4, not the Compute Module 4.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    values: BTreeMap<String, String>,
    /// Names of `initramfs NAME …` or `ramfsfile=`.
    pub(crate) initramfs: Vec<String>,
}

impl Settings {
    /// Reads config.txt; `include` gives the text of the files it includes.
    pub(crate) fn read<'a>(text: &str, model: Model, include: &'a dyn Fn(&str) -> Option<&'a str>) -> Self {
        let mut reader =
            Reader { model, include, left: MAX_LINES, filters: BTreeMap::new(), settings: Self::default() };
        reader.file(text, 0);
        reader.settings
    }

    /// The last value of a key; an empty one counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether a number is set and not 0; `None` if it is not set.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.parse::<i64>().ok().map(|number| number != 0)
    }

    pub(crate) fn on(&self, key: &str) -> bool {
        self.flag(key) == Some(true)
    }

    /// The firmware's own two files, without a suffix of the Pi 4's: `start` and `fixup`, or what is asked for instead.
    pub(crate) fn firmware(&self, model: Model) -> Option<(String, String)> {
        let four = match model {
            Model::Pi5 => return None,
            Model::Pi4 => "4",
            _ => "",
        };
        let kind = if self.on("start_debug") {
            "db"
        } else if self.on("start_x") {
            "x"
        } else if self.get("gpu_mem").and_then(|mb| mb.parse::<u32>().ok()).is_some_and(|mb| mb <= 16) {
            "cd"
        } else {
            ""
        };
        // start_x.elf, but start4x.elf.
        let gap = if four.is_empty() && !kind.is_empty() { "_" } else { "" };
        let named = |key: &str, name: &str, ending: &str| {
            let default = || format!("{name}{four}{gap}{kind}.{ending}");
            self.get(key).map_or_else(default, str::to_owned)
        };
        Some((named("start_file", "start", "elf"), named("fixup_file", "fixup", "dat")))
    }

    /// The initramfs that goes with a kernel, by its own name.
    pub(crate) fn initramfs_of(&self, kernel: &str) -> Vec<String> {
        if !self.initramfs.is_empty() {
            return self.initramfs.clone();
        }
        match kernel.strip_prefix("kernel").filter(|_| self.on("auto_initramfs")) {
            Some(rest) => vec![format!("initramfs{}", rest.strip_suffix(".img").unwrap_or(rest))],
            None => Vec::new(),
        }
    }
}

/// A filter replaces the one of its kind; all kinds have to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Model,
    None,
    Other,
}

struct Reader<'a> {
    model: Model,
    include: &'a dyn Fn(&str) -> Option<&'a str>,
    /// Lines that are still read.
    left: usize,
    filters: BTreeMap<Kind, bool>,
    settings: Settings,
}

impl Reader<'_> {
    fn file(&mut self, text: &str, depth: u32) {
        for line in text.lines() {
            // What is behind the end of a line that is read has to be gone past as well.
            let Some(left) = self.left.checked_sub(1 + line.len() / MAX_LINE) else {
                self.left = 0;
                return;
            };
            self.left = left;
            let end = line.char_indices().map(|(at, _)| at).take_while(|at| *at <= MAX_LINE).last().unwrap_or(0);
            let line = if line.len() > MAX_LINE { line.get(..end).unwrap_or(line) } else { line }.trim();
            if let Some(filter) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                self.filter(filter.trim());
            } else if !line.starts_with('#') && self.filters.values().all(|holds| *holds) {
                self.line(line, depth);
            }
        }
    }

    fn line(&mut self, line: &str, depth: u32) {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("include"), Some(name)) if depth < MAX_DEPTH => {
                if let Some(text) = (self.include)(name) {
                    self.file(text, depth + 1);
                }
            }
            (Some("initramfs"), Some(name)) if !name.starts_with('=') => self.settings.initramfs = names(name),
            _ => match line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some(("ramfsfile", value)) => self.settings.initramfs = names(value),
                Some((key, value)) => {
                    self.settings.values.insert(key.to_owned(), value.to_owned());
                }
                None => {}
            },
        }
    }

    fn filter(&mut self, filter: &str) {
        let of_model = ["pi", "cm"].iter().any(|start| filter.strip_prefix(start).is_some_and(starts_with_digit));
        let (kind, holds) = match filter {
            "all" => return self.filters.clear(),
            "none" => (Kind::None, false),
            _ if of_model => (Kind::Model, sees(self.model).contains(&filter)),
            // Serials, boards, pins, monitors, a trial boot: not every board of the family.
            _ => (Kind::Other, false),
        };
        self.filters.insert(kind, holds);
    }
}

fn starts_with_digit(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_digit())
}

fn names(list: &str) -> Vec<String> {
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The model filters that a family's plain board sees.
const fn sees(model: Model) -> &'static [&'static str] {
    match model {
        Model::Pi1 => &["pi1"],
        Model::Pi2 => &["pi2"],
        Model::Pi3 => &["pi3"],
        Model::Pi3Plus => &["pi3", "pi3+"],
        Model::Pi4 => &["pi4"],
        Model::Pi5 => &["pi5"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(model: Model, text: &str) -> Settings {
        Settings::read(text, model, &|name| (name == "more.txt").then_some("kernel=mine.img\n[none]\n"))
    }

    #[test]
    fn the_last_value_in_force_counts() {
        let text = "kernel=a\n[pi4]\nkernel=b\n[cm4]\nkernel=c\n[pi3+]\nkernel=d\n[pi4]\n[gpio4=1]\nkernel=e\n[all]\n#kernel=f\n";
        for (model, kernel) in [(Model::Pi3, "a"), (Model::Pi3Plus, "d"), (Model::Pi4, "b"), (Model::Pi5, "a")] {
            assert_eq!(read(model, text).get("kernel"), Some(kernel), "{model}");
        }
        assert_eq!(read(Model::Pi4, "kernel=a\nkernel=\n").get("kernel"), None);
        let long = format!("kernel={}\n", "x".repeat(200));
        assert_eq!(read(Model::Pi4, &long).get("kernel").map(str::len), Some(MAX_LINE - "kernel=".len()));
    }

    #[test]
    fn included_files_leave_their_filter_behind() {
        let settings = read(Model::Pi4, "kernel=a\ninclude more.txt\nkernel=b\n");
        assert_eq!(settings.get("kernel"), Some("mine.img"));
        let endless = Settings::read("include a\n", Model::Pi4, &|_| Some("include a\nx=1\n"));
        assert!(endless.on("x"));
    }

    #[test]
    fn files_that_include_themselves_again_and_again_end() {
        let text = format!("kernel=a\n{}kernel=b\n", "include a\n".repeat(4000));
        let asked = std::cell::Cell::new(0);
        let include = |_: &str| {
            asked.set(asked.get() + 1);
            Some(text.as_str())
        };
        assert_eq!(Settings::read(&text, Model::Pi4, &include).get("kernel"), Some("a"), "not read to its end");
        assert!(asked.get() <= MAX_LINES, "{}", asked.get());
        let long = "x".repeat(64 << 10);
        asked.set(0);
        let include = |_: &str| {
            asked.set(asked.get() + 1);
            Some(long.as_str())
        };
        Settings::read(&text, Model::Pi4, &include);
        assert!(asked.get() < 100, "{}", asked.get());
    }

    #[test]
    fn the_firmwares_files_follow_the_settings() {
        for (model, text, pair) in [
            (Model::Pi3, "", ("start.elf", "fixup.dat")),
            (Model::Pi3, "start_x=1", ("start_x.elf", "fixup_x.dat")),
            (Model::Pi4, "", ("start4.elf", "fixup4.dat")),
            (Model::Pi4, "start_x=1", ("start4x.elf", "fixup4x.dat")),
            (Model::Pi4, "gpu_mem=16", ("start4cd.elf", "fixup4cd.dat")),
            (Model::Pi1, "start_debug=1", ("start_db.elf", "fixup_db.dat")),
            (Model::Pi3, "start_file=mine.elf", ("mine.elf", "fixup.dat")),
        ] {
            let found = read(model, text).firmware(model).unwrap();
            assert_eq!((found.0.as_str(), found.1.as_str()), pair, "{model} {text}");
        }
        assert_eq!(read(Model::Pi5, "start_x=1").firmware(Model::Pi5), None);
    }

    #[test]
    fn an_initramfs_is_named_or_goes_with_its_kernel() {
        for (text, kernel, expected) in [
            ("auto_initramfs=1", "kernel8.img", vec!["initramfs8"]),
            ("auto_initramfs=1", "kernel_2712.img", vec!["initramfs_2712"]),
            ("auto_initramfs=1", "kernel.img", vec!["initramfs"]),
            ("auto_initramfs=1", "vmlinuz", vec![]),
            ("auto_initramfs=1\nauto_initramfs=0", "kernel8.img", vec![]),
            ("initramfs initrd.img followkernel", "vmlinuz", vec!["initrd.img"]),
            ("initramfs a,b 0x00f00000\nauto_initramfs=1", "kernel8.img", vec!["a", "b"]),
            ("ramfsfile=c", "kernel8.img", vec!["c"]),
            ("", "kernel8.img", vec![]),
        ] {
            assert_eq!(read(Model::Pi4, text).initramfs_of(kernel), expected, "{text}");
        }
    }
}
