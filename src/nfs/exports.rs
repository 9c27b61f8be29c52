//! The export table: what is served to whom. Immutable; a change is a new table, in which what did not change is shared.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::attr::Place;
use super::fs::{handle_support, object, sys};
use super::handle::{HandleKey, KernelHandle};
use super::identity;
use crate::pi::Mac;
use crate::quota::Quota;
use crate::random;

/// A directory tree that clients may mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Number inside file handles. Must stay the same for the same tree, over restarts too, and never be used for another.
    pub id: u16,
    /// What clients mount: `/running_lion/root`.
    pub name: Arc<str>,
    /// The tree.
    pub dir: PathBuf,
    /// The directory is where an overlay is to be mounted, and this is where that keeps its index: until it is, there is nothing
    /// to serve.
    pub layered: Option<PathBuf>,
    /// Refuse every change.
    pub read_only: bool,
    /// What a caller with uid 0 is.
    pub root: RootIs,
    /// Who may use it.
    pub holder: Who,
    /// What its files may take, together with those of other exports that have the same one.
    pub quota: Option<Quota>,
}

/// What a caller with uid 0 is on an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RootIs {
    /// Nobody (`root_squash`).
    #[default]
    Nobody,
    /// Root (`no_root_squash`): what a root file system needs.
    Root,
}

/// Who may use an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// The address that this hardware address holds at the moment.
    Mac(Mac),
    /// Fixed addresses.
    Addresses(Vec<AddressRange>),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => write!(f, "{mac}"),
            Self::Addresses(ranges) => {
                for (n, range) in ranges.iter().enumerate() {
                    write!(f, "{}{range}", if n == 0 { "" } else { " " })?;
                }
                Ok(())
            }
        }
    }
}

/// An address, or all that share its first bits: `192.0.2.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    address: IpAddr,
    prefix: u8,
}

/// The text is no address range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an address or a range such as 192.0.2.0/24")]
pub struct ParseRangeError(pub String);

impl AddressRange {
    /// Whether `peer` lies in the range.
    #[must_use]
    pub fn contains(&self, peer: IpAddr) -> bool {
        fn same(a: &[u8], b: &[u8], bits: u8) -> bool {
            let (whole, rest) = (usize::from(bits / 8), bits % 8);
            a.get(..whole) == b.get(..whole)
                && (rest == 0
                    || matches!((a.get(whole), b.get(whole)), (Some(x), Some(y)) if (x ^ y) >> (8 - rest) == 0))
        }
        match (self.address, peer.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(&a.octets(), &b.octets(), self.prefix),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(&a.octets(), &b.octets(), self.prefix),
            _ => false,
        }
    }
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for AddressRange {
    type Err = ParseRangeError;

    fn from_str(text: &str) -> Result<Self, ParseRangeError> {
        let wrong = || ParseRangeError(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let mut range = Self::from(address.parse::<IpAddr>().map_err(|_| wrong())?);
        if let Some(prefix) = prefix {
            range.prefix = prefix.parse().ok().filter(|bits| *bits <= range.prefix).ok_or_else(wrong)?;
        }
        Ok(range)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Why an export is in the table but cannot be served now: clients are told to wait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("export {name}: {dir}: {why}", dir = dir.display())]
pub struct Unavailable {
    /// The export.
    pub name: Arc<str>,
    /// Its directory.
    pub dir: PathBuf,
    /// What is wrong, for people.
    pub why: String,
}

/// The opened tree of an export.
#[derive(Debug)]
pub(super) struct Volume {
    /// A real descriptor of the root: `open_by_handle_at` takes no `O_PATH`.
    pub(super) root: OwnedFd,
    /// The root's handle.
    pub(super) root_handle: KernelHandle,
    /// The root's inode number.
    pub(super) root_ino: u64,
    /// Nothing elsewhere belongs to the export.
    pub(super) place: Place,
    /// In every handle: another disk under the same export id makes handles stale.
    pub(super) tag: u32,
    /// `fattr3.fsid`: the export, not the device, whose number may change over a reboot.
    pub(super) fsid: u64,
    /// Part of the write verifier: what was written to the tree as it was opened before, and not committed, may be lost
    /// with it, so clients have to see another verifier.
    pub(super) opening: [u8; 8],
    /// It is an overlay.
    layered: bool,
    /// What that has copied up of the lower layer, by handle.
    index: Option<OwnedFd>,
    /// Reads may ask the page cache alone.
    pub(super) nowait: AtomicBool,
}

impl Volume {
    pub(super) fn may_read_nowait(&self) -> bool {
        self.nowait.load(Ordering::Relaxed)
    }

    /// Whether it is an overlay, whose files may lie in two layers.
    pub(super) const fn is_layered(&self) -> bool {
        self.layered
    }

    /// Whether the overlay has copied up what this handle is of, or deleted it. Asked as root.
    pub(super) fn has_copied_up(&self, handle: &KernelHandle) -> bool {
        let names = self.index.as_ref().zip(handle.index_name());
        names.is_some_and(|(index, name)| rustix::fs::statat(index, name, AtFlags::SYMLINK_NOFOLLOW).is_ok())
    }

    /// The file system cannot tell what is in memory.
    pub(super) fn no_nowait(&self) {
        self.nowait.store(false, Ordering::Relaxed);
    }

    fn open(export: &Export, key: &HandleKey) -> Result<Self, String> {
        let open = || -> Result<Option<Self>, Errno> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(&export.dir, flags, Mode::empty())?;
            let layered = identity::is_overlay(&root)?;
            if export.layered.is_some() && !layered {
                return Ok(None);
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let index =
                export.layered.as_ref().map(|index| rustix::fs::open(index, flags, Mode::empty())).transpose()?;
            let attr = object::stat_at(root.as_fd(), c"")?;
            let root_handle = sys::name_to_handle(root.as_fd(), c"")?;
            // A trial: proves the capability and that the file system takes its own handles back.
            sys::open_by_handle(root.as_fd(), &root_handle)?;
            let tag = identity::tag(&root, key) ^ mode_tag(export.read_only, key);
            let fsid = key.hash(format!("export {} {}", export.id, export.name).as_bytes());
            Ok(Some(Self {
                root,
                root_handle,
                root_ino: attr.ino,
                place: attr.place,
                tag,
                fsid,
                opening: fresh_number()?,
                layered,
                index,
                nowait: AtomicBool::new(true),
            }))
        };
        let opened = open().map_err(|errno| match errno {
            Errno::NOENT => "the directory does not exist (is the volume mounted?)".to_owned(),
            Errno::OPNOTSUPP | Errno::OVERFLOW => handle_support(&export.dir)
                .ok()
                .and_then(|support| support.refusal)
                .unwrap_or_else(|| "the file system gives no file handles".to_owned()),
            Errno::PERM => "file handles cannot be opened: piboot must run as root (CAP_DAC_READ_SEARCH)".to_owned(),
            other => other.to_string(),
        })?;
        opened.ok_or_else(|| "its layers are not mounted".to_owned())
    }
}

fn fresh_number() -> Result<[u8; 8], Errno> {
    let mut number = [0; 8];
    random::fill(&mut number).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    Ok(number)
}

/// A handle that was given out for reading alone is none where its export's number names a tree that may be written to: it may
/// lead to a file that others have too.
fn mode_tag(read_only: bool, key: &HandleKey) -> u32 {
    let [.., a, b, c, d] = if read_only { key.hash(b"read-only").to_be_bytes() } else { [0; 8] };
    u32::from_be_bytes([a, b, c, d])
}

/// An export and its opened tree.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) export: Export,
    pub(super) volume: Result<Volume, Unavailable>,
}

impl Entry {
    fn open(export: Export, key: &HandleKey) -> Self {
        let volume = Volume::open(&export, key).map_err(|why| Unavailable {
            name: Arc::clone(&export.name),
            dir: export.dir.clone(),
            why,
        });
        Self { export, volume }
    }

    /// Whether the directory is still the one that is open: another volume may be mounted there by now.
    fn is_current(&self) -> bool {
        let Ok(volume) = &self.volume else { return false };
        let now = rustix::fs::open(&self.export.dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .and_then(|fd| object::stat_at(fd.as_fd(), c""));
        now.is_ok_and(|attr| (attr.ino, attr.place) == (volume.root_ino, volume.place))
    }
}

/// All exports, by id.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<Arc<Entry>>);

impl Table {
    /// The table after a change: entries of `self` that did not change go on undisturbed.
    pub(super) fn replaced(&self, exports: Vec<Export>, key: &HandleKey) -> Self {
        let mut entries: Vec<Arc<Entry>> = Vec::with_capacity(exports.len());
        for export in exports {
            if entries.iter().any(|other| other.export.id == export.id || other.export.name == export.name) {
                log::error!("export {}: its name or id {} is used twice: not served", export.name, export.id);
                continue;
            }
            let entry = match self.by_id(export.id) {
                Some(old) if old.export == export && old.is_current() => Arc::clone(old),
                _ => Arc::new(Entry::open(export, key)),
            };
            if let Err(unavailable) = &entry.volume {
                log::error!("{unavailable}: clients wait until it is back");
            }
            entries.push(entry);
        }
        entries.sort_by_key(|entry| entry.export.id);
        Self(entries)
    }

    pub(super) fn by_id(&self, id: u16) -> Option<&Arc<Entry>> {
        self.0.binary_search_by_key(&id, |entry| entry.export.id).ok().and_then(|n| self.0.get(n))
    }

    pub(super) fn by_name(&self, name: &[u8]) -> Option<&Arc<Entry>> {
        self.0.iter().find(|entry| entry.export.name.as_bytes() == name)
    }

    pub(super) fn entries(&self) -> &[Arc<Entry>] {
        &self.0
    }

    /// What cannot be served now.
    pub(super) fn unavailable(&self) -> Vec<Unavailable> {
        self.0.iter().filter_map(|entry| entry.volume.as_ref().err().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_contain_what_shares_their_bits() {
        for (text, inside, outside) in [
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.0/23", "192.0.3.255", "192.0.4.0"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("127.0.0.1", "::ffff:127.0.0.1", "::1"),
        ] {
            assert!(range(text).contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!range(text).contains(outside.parse().unwrap()), "{text} {outside}");
        }
        assert!(range("0.0.0.0/0").contains("203.0.113.9".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "10.0.0", "x/8", "10.0.0.0/", "::/129", "10.0.0.0/-1"] {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad}");
        }
    }

    fn export(id: u16, dir: &std::path::Path) -> Export {
        let name = Arc::from(format!("/pi{id}/root"));
        let holder = Who::Addresses(vec![range("127.0.0.1")]);
        Export {
            id,
            name,
            dir: dir.to_owned(),
            layered: None,
            read_only: false,
            root: RootIs::Nobody,
            holder,
            quota: None,
        }
    }

    #[test]
    fn a_change_leaves_other_exports_as_they_are() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let key = HandleKey::new([3; 16]);
        let one = Table::default().replaced(vec![export(1, dir.path())], &key);
        let two = one.replaced(vec![export(2, dir.path()), export(1, dir.path())], &key);
        assert!(Arc::ptr_eq(one.by_id(1).unwrap(), two.by_id(1).unwrap()));
        assert!(two.by_name(b"/pi2/root").is_some());
        let read_only = Export { read_only: true, ..export(1, dir.path()) };
        let three = two.replaced(vec![read_only, export(2, &dir.path().join("absent"))], &key);
        assert!(!Arc::ptr_eq(three.by_id(1).unwrap(), two.by_id(1).unwrap()));
        assert_eq!(three.unavailable().len(), 1);
        assert!(three.unavailable()[0].why.contains("does not exist"));
        // Where layers are not mounted there is a directory all the same, which is nothing to serve.
        let unmounted =
            two.replaced(vec![Export { layered: Some(dir.path().join("index")), ..export(1, dir.path()) }], &key);
        assert_eq!(unmounted.unavailable()[0].why, "its layers are not mounted");
        let double = Table::default().replaced(vec![export(1, dir.path()), export(1, dir.path())], &key);
        assert_eq!(double.entries().len(), 1);
    }
}
