//! The list of operating systems that Raspberry Pi Imager reads (its doc/json-schema/os-list-schema.json; versions 3 and 4
//! have `imager.devices`).

use serde::{Deserialize, Serialize};

use super::digest::Sum;
use super::url::Url;

/// Longest list that is read. The official one had 164 KB in 2026.
pub const MAX_BYTES: usize = 2 << 20;
/// Most braces in a list: by that it is known before reading it how much memory it can take.
const MAX_OBJECTS: usize = 5000;
/// Most systems of a list and all of its parts. The official one had some 300 in 2026.
pub const MAX_SYSTEMS: usize = 2000;
/// Groups within groups; what is deeper is left out.
const MAX_GROUPS: usize = 8;
/// Tags of one entry, and bytes of one of them; what is beyond is left out. Entries have them from their group, too.
const MAX_TAGS: usize = 64;
const MAX_TAG: usize = 64;
/// Longest texts.
const MAX_NAME: usize = 200;
const MAX_DESCRIPTION: usize = 400;

/// A list, its groups made flat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsList {
    /// Boards by which it can be filtered.
    pub boards: Vec<Board>,
    /// What can be downloaded, in the list's order.
    pub systems: Vec<System>,
    /// Parts of it that are elsewhere: the groups they belong to, and their address.
    pub parts: Vec<(Vec<String>, Url)>,
}

/// A board as the list knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// Its name: "Raspberry Pi 5".
    pub name: String,
    /// By what systems say that they fit it: "pi5-64bit".
    pub tags: Vec<String>,
    /// Whether only systems that say so fit it; otherwise those that say nothing do as well.
    pub exclusive: bool,
}

/// A system that can be downloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// Its name.
    pub name: String,
    /// What it is, in a sentence.
    pub description: String,
    /// The groups that it is in, outermost first.
    pub groups: Vec<String>,
    /// Where the image is.
    pub url: String,
    /// SHA-256 of the file there. Many entries have only that of the image inside of it.
    pub sha256: Option<String>,
    /// Bytes of the file there.
    pub download_bytes: Option<u64>,
    /// Bytes of the image inside of it.
    pub image_bytes: Option<u64>,
    /// Day on which it was released, as the list writes it.
    pub released: Option<String>,
    /// Tags of the boards it fits.
    pub boards: Vec<String>,
}

/// Why a list cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// More than [`MAX_BYTES`], or of more entries than any such list has.
    #[error("the list of systems is too long")]
    Long,
    /// No JSON, or of another kind.
    #[error("this is no list of systems as Raspberry Pi Imager reads it: {0}")]
    Format(String),
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    imager: Imager,
    os_list: Vec<Entry>,
}

#[derive(Default, Deserialize)]
struct Imager {
    #[serde(default)]
    devices: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    #[serde(default)]
    name: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    matching_type: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    name: String,
    #[serde(default)]
    description: String,
    url: Option<String>,
    extract_size: Option<u64>,
    image_download_size: Option<u64>,
    image_download_sha256: Option<String>,
    release_date: Option<String>,
    devices: Option<Vec<String>>,
    #[serde(default)]
    subitems: Vec<Entry>,
    subitems_url: Option<String>,
}

/// Reads a list, or a part of one that belongs into `groups`. Entries that cannot be used are left out.
///
/// # Errors
/// [`ListError`]
pub fn parse(bytes: &[u8], groups: &[String]) -> Result<OsList, ListError> {
    if bytes.len() > MAX_BYTES || bytes.iter().filter(|byte| **byte == b'{').count() > MAX_OBJECTS {
        return Err(ListError::Long);
    }
    let file: File = serde_json::from_slice(bytes).map_err(|e| ListError::Format(e.to_string()))?;
    let mut list = OsList::default();
    for device in file.imager.devices {
        // "No filtering" has none.
        if !device.tags.is_empty() && !device.name.is_empty() {
            let exclusive = device.matching_type == "exclusive";
            list.boards.push(Board { name: short(&device.name, MAX_NAME), tags: tags(device.tags), exclusive });
        }
    }
    let mut groups = groups.to_vec();
    for entry in file.os_list {
        add(&mut list, entry, &mut groups, &[])?;
    }
    Ok(list)
}

/// serde_json goes 128 levels deep at most.
fn add(list: &mut OsList, entry: Entry, groups: &mut Vec<String>, above: &[String]) -> Result<(), ListError> {
    let name = short(&entry.name, MAX_NAME);
    let boards = entry.devices.map_or_else(|| above.to_vec(), tags);
    if let Some(url) = entry.url.as_deref().and_then(|url| Url::parse(url).ok()) {
        if list.systems.len() >= MAX_SYSTEMS {
            return Err(ListError::Long);
        }
        list.systems.push(System {
            name: name.clone(),
            description: short(&entry.description, MAX_DESCRIPTION),
            groups: groups.clone(),
            url: url.as_str().to_owned(),
            sha256: entry.image_download_sha256.filter(|sum| Sum::parse(sum).is_ok()),
            download_bytes: entry.image_download_size.filter(|bytes| *bytes > 0),
            image_bytes: entry.extract_size.filter(|bytes| *bytes > 0),
            released: entry.release_date.map(|date| short(&date, 40)),
            boards: boards.clone(),
        });
    }
    let part = entry.subitems_url.as_deref().and_then(|url| Url::parse(url).ok());
    if (part.is_none() && entry.subitems.is_empty()) || groups.len() >= MAX_GROUPS {
        return Ok(());
    }
    groups.push(name);
    if let Some(url) = part {
        list.parts.push((groups.clone(), url));
    }
    for item in entry.subitems {
        add(list, item, groups, &boards)?;
    }
    groups.pop();
    Ok(())
}

fn tags(mut tags: Vec<String>) -> Vec<String> {
    tags.retain(|tag| tag.len() <= MAX_TAG);
    tags.truncate(MAX_TAGS);
    tags
}

fn short(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}

impl OsList {
    /// The board that people mean by "Raspberry Pi 5", "pi5", "5", "zero 2 w" or a tag.
    #[must_use]
    pub fn board(&self, asked: &str) -> Option<&Board> {
        let plain = |text: &str| {
            let text: String = text.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
            let rest = text.strip_prefix("raspberry").unwrap_or(&text);
            rest.strip_prefix("pi").unwrap_or(rest).to_owned()
        };
        let wanted = plain(asked);
        let named = self.boards.iter().find(|board| plain(&board.name) == wanted);
        named.or_else(|| self.boards.iter().find(|board| board.tags.iter().any(|tag| tag.eq_ignore_ascii_case(asked))))
    }

    /// The systems that fit a board.
    pub fn fitting<'a>(&'a self, board: Option<&'a Board>) -> impl Iterator<Item = &'a System> {
        self.systems.iter().filter(move |system| board.is_none_or(|board| board.fits(system)))
    }
}

impl Board {
    fn fits(&self, system: &System) -> bool {
        let silent = system.boards.is_empty() && !self.exclusive;
        silent || system.boards.iter().any(|tag| self.tags.contains(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &[u8] = include_bytes!("../../tests/data/os_list.json");

    #[test]
    fn a_list_is_read_with_its_groups_and_what_cannot_be_used_is_left_out() {
        let list = parse(SMALL, &[]).unwrap();
        let names: Vec<(String, &str)> = list.systems.iter().map(|s| (s.groups.join("/"), s.name.as_str())).collect();
        let expected = [
            ("", "Raspberry Pi OS (64-bit)"),
            ("Raspberry Pi OS (other)", "Raspberry Pi OS Lite (64-bit)"),
            ("Raspberry Pi OS (other)", "Raspberry Pi OS Lite (32-bit)"),
            ("Other general-purpose OS/Ubuntu", "Ubuntu Server 24.04 (64-bit)"),
            ("Other general-purpose OS/Ubuntu", "Says nothing of boards"),
        ];
        assert_eq!(names, expected.map(|(groups, name)| (groups.to_owned(), name)));
        let parts: Vec<(String, &str)> =
            list.parts.iter().map(|(groups, url)| (groups.join("/"), url.as_str())).collect();
        assert_eq!(parts, [("Misc".to_owned(), "https://example.org/misc.json")]);
        let lite = &list.systems[1];
        assert_eq!((lite.download_bytes, lite.image_bytes), (Some(524_875_608), Some(2_977_955_840)));
        assert_eq!((lite.released.as_deref(), &lite.sha256), (Some("2026-06-18"), &None));
        assert!(list.systems[3].sha256.as_deref().is_some_and(|sum| sum.starts_with("b2337")));
        assert_eq!(list.systems[4].boards, ["pi4-64bit"], "those of its group");
    }

    #[test]
    fn boards_are_known_by_what_people_call_them() {
        let list = parse(SMALL, &[]).unwrap();
        for (asked, name) in [
            ("Raspberry Pi 5", Some("Raspberry Pi 5")),
            ("pi5", Some("Raspberry Pi 5")),
            ("Pi 4", Some("Raspberry Pi 4")),
            ("4", Some("Raspberry Pi 4")),
            ("zero2w", Some("Raspberry Pi Zero 2 W")),
            ("pi1-32bit", Some("Raspberry Pi 1")),
            ("", None),
            ("No filtering", None),
            ("pi9", None),
        ] {
            assert_eq!(list.board(asked).map(|board| board.name.as_str()), name, "{asked}");
        }
        let fitting = |board: &str| list.fitting(list.board(board)).map(|s| s.name.as_str()).collect::<Vec<_>>();
        assert_eq!(fitting("pi1"), ["Raspberry Pi OS Lite (32-bit)"]);
        assert_eq!(fitting("pi4").len(), 5);
        assert_eq!(fitting("nothing").len(), 5, "all of them");
    }

    #[test]
    fn a_board_that_is_exclusive_takes_nothing_that_does_not_name_it() {
        let system = |boards: &[&str]| System {
            name: String::new(),
            description: String::new(),
            groups: Vec::new(),
            url: String::new(),
            sha256: None,
            download_bytes: None,
            image_bytes: None,
            released: None,
            boards: boards.iter().map(|tag| (*tag).to_owned()).collect(),
        };
        let board = |exclusive| Board { name: "x".into(), tags: vec!["a".into(), "b".into()], exclusive };
        let fits = |exclusive, boards: &[&str]| board(exclusive).fits(&system(boards));
        assert!(fits(true, &["c", "b"]) && fits(false, &["b"]) && fits(false, &[]));
        assert!(!fits(true, &[]) && !fits(true, &["c"]) && !fits(false, &["c"]));
    }

    #[test]
    fn what_entries_have_of_their_groups_is_bounded() {
        let tags = vec!["t"; 10_000].join("\",\"");
        let items = vec!["{\"name\":\"x\",\"url\":\"http://h/x\"}"; MAX_SYSTEMS].join(",");
        let long = "l".repeat(MAX_TAG + 1);
        let text = format!("{{\"os_list\":[{{\"devices\":[\"{long}\",\"{tags}\"],\"subitems\":[{items}]}}]}}");
        let list = parse(text.as_bytes(), &[]).unwrap();
        assert_eq!(list.systems.len(), MAX_SYSTEMS);
        assert!(list.systems.iter().all(|system| system.boards == vec!["t"; MAX_TAGS]));
        let more = text.replacen("\"subitems\":[", "\"subitems\":[{\"name\":\"y\",\"url\":\"http://h/y\"},", 1);
        assert_eq!(parse(more.as_bytes(), &[]), Err(ListError::Long));
        let group = "{\"name\":\"g\",\"url\":\"http://h/x\",\"subitems\":[";
        let deep = format!("{{\"os_list\":[{}{}]}}", group.repeat(20), "]}".repeat(20));
        let list = parse(deep.as_bytes(), &[]).unwrap();
        assert_eq!(list.systems.iter().map(|system| system.groups.len()).max(), Some(MAX_GROUPS));
    }

    #[test]
    fn what_is_no_list_or_too_long_is_refused() {
        assert!(matches!(parse(b"<html>", &[]), Err(ListError::Format(_))));
        assert!(matches!(parse(b"{}", &[]), Err(ListError::Format(_))));
        assert_eq!(parse(&vec![b' '; MAX_BYTES + 1], &[]), Err(ListError::Long));
        let many = format!("{{\"os_list\":[{}{{}}]}}", "{},".repeat(MAX_OBJECTS));
        assert_eq!(parse(many.as_bytes(), &[]), Err(ListError::Long));
        let deep = "{\"subitems\":[".repeat(2000);
        assert!(matches!(parse(format!("{{\"os_list\":[{deep}").as_bytes(), &[]), Err(ListError::Format(_))));
        assert_eq!(parse(b"{\"os_list\":[]}", &[]), Ok(OsList::default()));
    }
}
