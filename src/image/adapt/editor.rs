//! What a rule works with: the two trees, the target, and the report.

use std::net::Ipv4Addr;
use std::path::Path;

use rustix::io::Errno;

use super::tree::{Owner, PRIVATE, PUBLIC, Tree};
use super::{AdaptError, Change, Pass, Regional, Report, Target, text};
use crate::config::PasswordHash;
use crate::image::fit::{Depth, Evidence, MODELS};
use crate::printable::printable;

/// Why a boot file goes.
pub(super) const IS_IN_ROOT: &str = "removed: it may hold passwords, and is in the root";

/// Which tree a path belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Boot,
    Root,
}

pub(super) struct Editor<'a> {
    boot: Tree,
    root: Tree,
    pub(super) target: &'a Target,
    /// The target's server.
    pub(super) server: Ipv4Addr,
    /// What the device is to have: the target's, and in fresh trees what the image was prepared with besides.
    pub(super) settings: Settings,
    /// Whether the trees are a fresh copy.
    pub(super) is_fresh: bool,
    pub(super) rule: &'static str,
    pub(super) report: Report,
}

/// What may come from the device's configuration, or from settings that came with the image.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    pub(super) user: Option<String>,
    pub(super) password: Option<PasswordHash>,
    pub(super) ssh_keys: Vec<String>,
    pub(super) regional: Regional,
}

type Result<T> = std::result::Result<T, AdaptError>;

impl<'a> Editor<'a> {
    pub(super) fn open(boot: &Path, root: &Path, target: &'a Target, server: Ipv4Addr, pass: Pass) -> Result<Self> {
        let open = |path: &Path| {
            Tree::open(path).map_err(|errno| AdaptError::Tree { path: path.display().to_string(), errno })
        };
        let settings = Settings {
            user: target.user.clone(),
            password: target.password.clone(),
            ssh_keys: target.ssh_keys.clone(),
            regional: target.regional.clone(),
        };
        Ok(Self {
            boot: open(boot)?,
            root: open(root)?,
            target,
            server,
            settings,
            is_fresh: pass == Pass::Fresh,
            rule: "",
            report: Report::default(),
        })
    }

    fn tree(&self, side: Side) -> &Tree {
        match side {
            Side::Boot => &self.boot,
            Side::Root => &self.root,
        }
    }

    /// The root tree, for what only looks.
    pub(super) fn look<T>(&self, path: &str, question: impl FnOnce(&Tree, &str) -> rustix::io::Result<T>) -> Result<T> {
        let answer = question(&self.root, path);
        self.check(Side::Root, "look at", path, answer)
    }

    pub(super) fn exists(&self, path: &str) -> Result<bool> {
        self.look(path, Tree::exists)
    }

    /// A file's lines, whatever their encoding.
    pub(super) fn text(&self, side: Side, path: &str) -> Result<Option<String>> {
        let data = self.check(side, "read", path, self.tree(side).read(path))?;
        Ok(data.map(|data| text::decode(&data)))
    }

    /// A boot file that is to go where only root reads it; in place of one that is too large to be text, a note. A device is
    /// made with it nevertheless.
    pub(super) fn movable(&mut self, name: &str) -> Result<Option<String>> {
        match self.boot.read(name) {
            Err(Errno::FBIG) => {
                let what = "too large to be moved out of the boot files: everybody can read it over TFTP";
                self.note(Side::Boot, name, what.to_owned());
                Ok(None)
            }
            read => Ok(self.check(Side::Boot, "read", name, read)?.map(|data| text::decode(&data))),
        }
    }

    /// Moves what [`movable`](Self::movable) read to `path` in the root, where only root reads it.
    pub(super) fn move_out_of_boot(&mut self, name: &str, path: &str, text: &str) -> Result<()> {
        let moved = "moved out of the boot files, which are served over TFTP";
        self.write_as(Side::Root, path, text, PRIVATE, moved)?;
        self.remove(Side::Boot, name, IS_IN_ROOT)
    }

    /// What both trees hold that bears on what they can boot.
    pub(super) fn evidence(&self, depth: Depth) -> Evidence {
        Evidence::gather(self.boot.top(), self.root.top(), &MODELS, depth)
    }

    /// A file's size in bytes.
    pub(super) fn size(&self, side: Side, path: &str) -> Result<Option<u64>> {
        let stat = self.check(side, "look at", path, self.tree(side).stat(path))?;
        Ok(stat.map(|stat| u64::try_from(stat.st_size).unwrap_or(0)))
    }

    pub(super) fn write(&mut self, side: Side, path: &str, content: &str, what: &str) -> Result<()> {
        self.write_as(side, path, content, PUBLIC, what)
    }

    pub(super) fn write_as(&mut self, side: Side, path: &str, content: &str, new: Owner, what: &str) -> Result<()> {
        let changed = self.check(side, "write", path, self.tree(side).write(path, &text::encode(content), new))?;
        self.changed(changed, side, path, what);
        Ok(())
    }

    pub(super) fn link(&mut self, path: &str, target: &str, what: &str) -> Result<()> {
        let changed = self.check(Side::Root, "link", path, self.root.link(path, target))?;
        self.changed(changed, Side::Root, path, what);
        Ok(())
    }

    pub(super) fn remove(&mut self, side: Side, path: &str, what: &str) -> Result<()> {
        let changed = self.check(side, "remove", path, self.tree(side).remove(path))?;
        self.changed(changed, side, path, what);
        Ok(())
    }

    pub(super) fn directory(&mut self, path: &str, owner: Owner, what: &str) -> Result<()> {
        let changed = self.check(Side::Root, "make directory", path, self.root.directory(path, owner))?;
        self.changed(changed, Side::Root, path, what);
        Ok(())
    }

    pub(super) fn move_directory(&mut self, from: &str, to: &str, what: &str) -> Result<bool> {
        let moved = self.check(Side::Root, "move", from, self.root.move_directory(from, to))?;
        self.changed(moved, Side::Root, to, what);
        Ok(moved)
    }

    pub(super) fn set_mode(&mut self, path: &str, mode: u32, what: &str) -> Result<()> {
        self.check(Side::Root, "set the mode of", path, self.root.set_mode(path, mode))?;
        self.changed(true, Side::Root, path, what);
        Ok(())
    }

    pub(super) fn note(&mut self, side: Side, path: &str, what: String) {
        let what = printable(what.as_bytes());
        self.report.notes.push(Change { rule: self.rule.to_owned(), path: shown(side, path), what });
    }

    fn changed(&mut self, changed: bool, side: Side, path: &str, what: &str) {
        if changed {
            let what = printable(what.as_bytes());
            self.report.changes.push(Change { rule: self.rule.to_owned(), path: shown(side, path), what });
        }
    }

    fn check<T>(&self, side: Side, what: &'static str, path: &str, result: rustix::io::Result<T>) -> Result<T> {
        result.map_err(|errno: Errno| AdaptError::File { rule: self.rule, what, path: shown(side, path), errno })
    }
}

fn shown(side: Side, path: &str) -> String {
    let tree = match side {
        Side::Boot => "boot",
        Side::Root => "root",
    };
    format!("{tree}/{}", printable(path.as_bytes()))
}
