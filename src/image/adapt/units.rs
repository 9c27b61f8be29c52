//! systemd units in a tree: enabled by links in `*.wants`, masked by links to /dev/null (systemd.unit(5)).

use super::AdaptError;
use super::editor::{Editor, Side};
use super::tree::Tree;

const ETC: &str = "etc/systemd/system";
const VENDOR: [&str; 2] = ["usr/lib/systemd/system", "lib/systemd/system"];

impl Editor<'_> {
    /// Where the unit's file is, absolute as in a link to it.
    pub(super) fn unit(&self, name: &str) -> Result<Option<String>, AdaptError> {
        for directory in [ETC, VENDOR[0], VENDOR[1]] {
            let path = format!("{directory}/{name}");
            let masked = self.look(&path, Tree::read_link)?.is_some_and(|target| target == b"/dev/null");
            if !masked && self.exists(&path)? {
                return Ok(Some(format!("/{path}")));
            }
        }
        Ok(None)
    }

    /// Makes `target` want the unit, if there is such a unit.
    pub(super) fn enable(&mut self, name: &str, target: &str) -> Result<(), AdaptError> {
        if let Some(file) = self.unit(name)? {
            self.link(&format!("{ETC}/{target}.wants/{name}"), &file, &format!("enabled {name}"))?;
        }
        Ok(())
    }

    /// Keeps a unit from ever starting. Removing its links would not do: the first boot applies presets, which make
    /// them again (machine-id(5), "First Boot Semantics").
    pub(super) fn mask(&mut self, name: &str, why: &str) -> Result<(), AdaptError> {
        self.unwant(name, why)?;
        let path = format!("{ETC}/{name}");
        let vendor = [self.exists(&format!("{}/{name}", VENDOR[0]))?, self.exists(&format!("{}/{name}", VENDOR[1]))?];
        if vendor.contains(&true) && self.text(Side::Root, &path)?.is_none() {
            self.link(&path, "/dev/null", &format!("masked: {why}"))?;
        }
        Ok(())
    }

    /// Lets a unit not start by itself any more. At a first boot presets may undo that.
    pub(super) fn disable(&mut self, name: &str, why: &str) -> Result<(), AdaptError> {
        self.unwant(name, why)
    }

    /// Removes every link by which another unit wants or requires this one.
    fn unwant(&mut self, name: &str, why: &str) -> Result<(), AdaptError> {
        for directory in self.look(ETC, Tree::list)? {
            if directory.ends_with(".wants") || directory.ends_with(".requires") {
                self.remove(Side::Root, &format!("{ETC}/{directory}/{name}"), &format!("disabled: {why}"))?;
            }
        }
        Ok(())
    }
}
