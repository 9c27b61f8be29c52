//! Rule `trim`: fewer bytes over TFTP. Where the kernel mounts an NFS root and drives the network port by itself, the
//! initramfs is half of what a Pi loads and for nothing.
//!
//! It is left out by lines of its own in config.txt, between two marks, so that nothing of the user's is touched and all
//! of it can be taken back. What it would take to boot stays what it is: where anything is unknown, or the user asks for
//! something that only an initramfs does, it is loaded.

use super::AdaptError;
use super::editor::{Editor, Side};
use crate::image::fit::{Built, Depth, Evidence, MODELS, judge};
use crate::pi::Model;

const CONFIG: &str = "config.txt";
const BEGIN: &str = "# piboot trim: this kernel mounts its root by itself (option trim '0' takes this out)";
const END: &str = "# piboot trim ends";

/// Families that share filters, and the filters that their boards see (config_txt/conditional.adoc).
const GROUPS: [(&[Model], &[&str]); 5] = [
    (&[Model::Pi1], &["pi0", "pi1"]),
    (&[Model::Pi2], &["pi2"]),
    (&[Model::Pi3, Model::Pi3Plus], &["pi02", "pi3"]),
    (&[Model::Pi4], &["pi4"]),
    (&[Model::Pi5], &["pi5"]),
];

pub(super) fn apply(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    let Some(old) = editor.text(Side::Boot, CONFIG)? else { return Ok(()) };
    let (before, after) = cut(&old);
    let (mut lines, mut saved) = (Vec::new(), Vec::new());
    if editor.target.trim && !wants_initramfs(editor)? {
        let config = format!("{before}{after}");
        let mut evidence = editor.evidence(Depth::Quick);
        evidence.texts.insert(CONFIG.to_owned(), config.clone());
        if unknown(&evidence) {
            evidence = editor.evidence(Depth::Whole);
            evidence.texts.insert(CONFIG.to_owned(), config);
        }
        (lines, saved) = plan(&evidence);
    }
    let new = put(&before, &lines, &after);
    let mut bytes = Vec::new();
    for name in saved {
        bytes.extend(editor.size(Side::Boot, &name)?);
    }
    let most = bytes.into_iter().max().unwrap_or(0);
    editor.report.spared_bytes = most;
    let what = if lines.is_empty() {
        "the initramfs is loaded again".to_owned()
    } else {
        format!(
            "no initramfs, which saves {:.1} MB at each boot: the kernel mounts its root by itself",
            most as f64 / 1e6
        )
    };
    editor.write(Side::Boot, CONFIG, &new, &what)
}

/// Words of the command line that an initramfs acts on, and a kernel does not.
fn wants_initramfs(editor: &Editor<'_>) -> Result<bool, AdaptError> {
    let cmdline = editor.text(Side::Boot, "cmdline.txt")?.unwrap_or_default();
    let acted_on = |word: &str| {
        let key = word.split_once('=').map_or(word, |(key, _)| key);
        matches!(key, "boot" | "netroot" | "overlayroot" | "cryptopts" | "break") && word != "boot=nfs"
            || key.starts_with("rd.")
    };
    Ok(cmdline.split_ascii_whitespace().any(acted_on))
}

/// The initramfs that a family loads because of `auto_initramfs`; one that is named is the user's wish.
fn automatic(evidence: &Evidence, model: Model) -> Option<(Built, String)> {
    let verdict = judge(evidence, model);
    let name = verdict.loads.initramfs.first()?.clone();
    evidence.settings(model).initramfs.is_empty().then_some((verdict.alone, name))
}

fn unknown(evidence: &Evidence) -> bool {
    MODELS.iter().any(|model| automatic(evidence, *model).is_some_and(|(alone, _)| alone == Built::Unknown))
}

/// The lines that leave out what is superfluous, and the files it is.
fn plan(evidence: &Evidence) -> (Vec<String>, Vec<String>) {
    let (mut filters, mut files, mut everywhere) = (Vec::new(), Vec::new(), true);
    for (models, names) in GROUPS {
        let loaded: Vec<_> = models.iter().filter_map(|model| automatic(evidence, *model)).collect();
        if loaded.is_empty() {
            continue;
        }
        if loaded.iter().any(|(alone, _)| *alone != Built::In) {
            everywhere = false;
            continue;
        }
        filters.extend_from_slice(names);
        files.extend(loaded.into_iter().map(|(_, name)| name));
    }
    if filters.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let filters = if everywhere { vec!["all"] } else { filters };
    let mut lines: Vec<String> =
        filters.iter().flat_map(|filter| [format!("[{filter}]"), "auto_initramfs=0".to_owned()]).collect();
    if !everywhere {
        lines.push("[all]".to_owned());
    }
    (lines, files)
}

/// What is before and after the rule's own lines.
fn cut(text: &str) -> (String, String) {
    let (mut before, mut after, mut own) = (String::new(), None::<String>, false);
    for line in text.split_inclusive('\n') {
        let word = line.trim_end();
        match (own, after.as_mut()) {
            (false, None) if word == BEGIN => (own, after) = (true, Some(String::new())),
            (false, None) => before.push_str(line),
            (true, Some(_)) if word == END => own = false,
            // A mark whose other end is gone: what is not ours is kept.
            (true, Some(_)) if word == "auto_initramfs=0" || word.starts_with('[') => {}
            (_, Some(after)) => {
                own = false;
                after.push_str(line);
            }
            (true, None) => {}
        }
    }
    (before, after.unwrap_or_default())
}

fn put(before: &str, lines: &[String], after: &str) -> String {
    let mut text = before.to_owned();
    if !lines.is_empty() {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        for line in [BEGIN].into_iter().chain(lines.iter().map(String::as_str)).chain([END]) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text + after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_and_go_and_what_is_the_users_stays() {
        let lines = ["[all]".to_owned(), "auto_initramfs=0".to_owned()];
        for text in ["", "auto_initramfs=1\n", "a=1\r\n[pi4]\r\nb=2\r\n"] {
            let put_in = put(text, &lines, "");
            assert_eq!(cut(&put_in), (text.to_owned(), String::new()));
            let more = format!("{put_in}dtparam=spi=on\n");
            assert_eq!(cut(&more), (text.to_owned(), "dtparam=spi=on\n".to_owned()), "in its place");
        }
        assert_eq!(put("a=1", &lines, ""), format!("a=1\n{BEGIN}\n[all]\nauto_initramfs=0\n{END}\n"));
        let halved = format!("a=1\n{BEGIN}\nauto_initramfs=0\ndtoverlay=mine\nb=2\n");
        assert_eq!(cut(&halved), ("a=1\n".to_owned(), "dtoverlay=mine\nb=2\n".to_owned()));
        assert!(BEGIN.len() < 98, "the firmware reads no further");
    }
}
