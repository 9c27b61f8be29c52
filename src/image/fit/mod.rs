//! Which boards can an image boot, from the network? Told from its files: what the firmware would load, and whether the
//! kernel and its initramfs come from there to an init on an NFS root.
//!
//! [`evidence`] looks at trees, [`rules`] decides and touches nothing.

mod drivers;
mod evidence;
mod initramfs;
mod kernel;
mod packed;
mod rules;
mod settings;

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::pi::Model;
use crate::printable::printable;

pub(crate) use drivers::Built;
pub(crate) use evidence::{Depth, Evidence};
pub(crate) use rules::{Issue, Verdict, judge};

/// All families, oldest first.
pub const MODELS: [Model; 6] = [Model::Pi1, Model::Pi2, Model::Pi3, Model::Pi3Plus, Model::Pi4, Model::Pi5];

/// Whether an image boots the boards of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fit {
    /// The family.
    pub model: Model,
    /// Whether nothing is known that keeps it from booting.
    pub ok: bool,
    /// What does, in words; empty if nothing.
    #[serde(default)]
    pub why: String,
    /// The kernel that its firmware starts, by its path in the boot files.
    #[serde(default)]
    pub kernel: Option<String>,
    /// What some boards of the family lack, what is worse than it could be, and what could not be told.
    #[serde(default)]
    pub partial: Vec<String>,
}

/// Looks at an image's two trees, which takes as long as unpacking its kernels: seconds on a router.
#[must_use]
pub fn examine(boot: &OwnedFd, root: &OwnedFd) -> Vec<Fit> {
    let evidence = Evidence::gather(boot, root, &MODELS, Depth::Whole);
    MODELS.iter().map(|model| Fit::of(*model, judge(&evidence, *model))).collect()
}

/// [`examine`] for the `boot` and `root` in an image's directory; nothing if they cannot be opened.
#[must_use]
pub fn examine_in(directory: &Path) -> Option<Vec<Fit>> {
    let open = |name| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(directory.join(name), flags, Mode::empty()).ok()
    };
    Some(examine(&open("boot")?, &open("root")?))
}

/// Why none of the kernels in an image's or a device's directory can keep changes of a system in memory; `None` if one can,
/// or if nothing tells.
#[must_use]
pub fn lacks_overlay_in(directory: &Path) -> Option<String> {
    let open = |name| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(directory.join(name), flags, Mode::empty()).ok()
    };
    Evidence::gather(&open("boot")?, &open("root")?, &MODELS, Depth::Quick).lacks_overlay()
}

impl Fit {
    fn of(model: Model, verdict: Verdict) -> Self {
        // Names of files are in them, and those are whatever the image says.
        let texts = |issues: &[Issue]| issues.iter().map(|issue| printable(issue.text.as_bytes())).collect::<Vec<_>>();
        Self {
            model,
            ok: verdict.issues.is_empty(),
            why: texts(&verdict.issues).join("; "),
            kernel: verdict.loads.kernel.map(|name| printable(name.as_bytes())),
            partial: texts(&verdict.partial),
        }
    }
}
