//! Access to a tree that somebody else filled: its symbolic links may point anywhere and are never followed.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use crate::storage::reopen_regular;

/// Files that are edited are configuration; what is larger is something else.
const MAX_FILE: u64 = 1 << 20;
/// Names of a directory that is looked through; those that are have a few dozen.
const MAX_NAMES: usize = 4096;
/// Name of a file while it is written; one adapt at a time works on a tree.
const TEMPORARY: &str = ".piboot-adapt.tmp";

/// Owner and mode of a new file; an existing one keeps its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

/// Configuration that everybody may read.
pub(super) const PUBLIC: Owner = Owner { uid: 0, gid: 0, mode: 0o644 };

/// Configuration that only root may read: it may hold passwords.
pub(super) const PRIVATE: Owner = Owner { uid: 0, gid: 0, mode: 0o600 };

/// A directory tree; every path is relative to its top and stays below it.
#[derive(Debug)]
pub(super) struct Tree {
    top: OwnedFd,
}

type Result<T> = rustix::io::Result<T>;

impl Tree {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { top: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Its top directory.
    pub(super) const fn top(&self) -> &OwnedFd {
        &self.top
    }

    /// A regular file's content, `None` if there is none or it is something else.
    pub(super) fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some((fd, stat)) = self.regular(path)? else { return Ok(None) };
        if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > MAX_FILE {
            return Err(Errno::FBIG);
        }
        let mut data = Vec::new();
        let read = File::from(fd).take(MAX_FILE).read_to_end(&mut data);
        read.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        Ok(Some(data))
    }

    /// What the path itself is, links not followed.
    pub(super) fn stat(&self, path: &str) -> Result<Option<Stat>> {
        let Some((directory, name)) = self.parent(path)? else { return Ok(None) };
        absent(rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW))
    }

    pub(super) fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.stat(path)?.is_some())
    }

    /// Target of a symbolic link, `None` for everything else.
    pub(super) fn read_link(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some((directory, name)) = self.parent(path)? else { return Ok(None) };
        match rustix::fs::readlinkat(directory, &name, Vec::new()) {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(Errno::INVAL | Errno::NOENT) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Names in a directory, sorted; none if there is no such directory. Names that are no UTF-8 are left out. More than
    /// [`MAX_NAMES`] are refused with `FBIG`.
    pub(super) fn list(&self, path: &str) -> Result<Vec<String>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Some(fd) = absent(self.resolve(path, flags))? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        let mut entries = rustix::fs::Dir::new(fd)?;
        while let Some(entry) = entries.read() {
            if let Ok(name) = entry?.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                if names.len() >= MAX_NAMES {
                    return Err(Errno::FBIG);
                }
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Gives a file this content, written beside and renamed; a link in its place is replaced, not followed. `false`
    /// if nothing had to change.
    pub(super) fn write(&self, path: &str, content: &[u8], new: Owner) -> Result<bool> {
        if self.read(path)?.as_deref() == Some(content) {
            return Ok(false);
        }
        let (directory, name) = self.make_parent(path)?;
        let old = absent(rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW))?;
        let owner = match old.filter(|stat| FileType::from_raw_mode(stat.st_mode).is_file()) {
            Some(stat) => Owner { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 },
            None => new,
        };
        self.replace(&directory, &name, owner, |file| {
            file.write_all(content).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
        })?;
        Ok(true)
    }

    /// Makes a symbolic link, in place of whatever file or link is there. `false` if nothing had to change.
    pub(super) fn link(&self, path: &str, target: &str) -> Result<bool> {
        if self.read_link(path)?.as_deref() == Some(target.as_bytes()) {
            return Ok(false);
        }
        let (directory, name) = self.make_parent(path)?;
        absent(rustix::fs::unlinkat(&directory, TEMPORARY, AtFlags::empty()))?;
        rustix::fs::symlinkat(target, &directory, TEMPORARY)?;
        let done = rustix::fs::renameat(&directory, TEMPORARY, &directory, &name);
        if done.is_err() {
            let _ = rustix::fs::unlinkat(&directory, TEMPORARY, AtFlags::empty());
        }
        done.map(|()| true)
    }

    /// Removes a file or link. `false` if there is none.
    pub(super) fn remove(&self, path: &str) -> Result<bool> {
        let Some((directory, name)) = self.parent(path)? else { return Ok(false) };
        Ok(absent(rustix::fs::unlinkat(directory, &name, AtFlags::empty()))?.is_some())
    }

    /// Makes a directory with this owner and mode, or gives them to the one that is there. `false` if nothing had to
    /// change.
    pub(super) fn directory(&self, path: &str, owner: Owner) -> Result<bool> {
        let (parent, name) = self.make_parent(path)?;
        let made = match rustix::fs::mkdirat(&parent, &name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(other) => return Err(other),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent, &name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        if (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777) == (owner.uid, owner.gid, owner.mode) {
            return Ok(made);
        }
        rustix::fs::fchown(&fd, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(owner.mode))?;
        Ok(true)
    }

    /// Gives a directory another place, where nothing is yet. `false` if there is no such directory, or something is there.
    pub(super) fn move_directory(&self, from: &str, to: &str) -> Result<bool> {
        let Some((old, name)) = self.parent(from)? else { return Ok(false) };
        let is_directory = |stat: &Stat| FileType::from_raw_mode(stat.st_mode).is_dir();
        if !self.stat(from)?.as_ref().is_some_and(is_directory) || self.exists(to)? {
            return Ok(false);
        }
        let (new, new_name) = self.make_parent(to)?;
        crate::storage::rename_new(&old, &name, &new, &new_name)?;
        Ok(true)
    }

    /// Sets the permission bits of a regular file. One that has other names, which may be those of an image or of other
    /// devices, is replaced by a copy of its own.
    pub(super) fn set_mode(&self, path: &str, mode: u32) -> Result<()> {
        let (fd, stat) = self.regular(path)?.ok_or(Errno::NOENT)?;
        if stat.st_nlink <= 1 {
            return rustix::fs::fchmod(fd, Mode::from_raw_mode(mode));
        }
        let (directory, name) = self.parent(path)?.ok_or(Errno::NOENT)?;
        // There is no getxattrat before Linux 6.13.
        let place = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name.as_bytes()].concat();
        let xattrs = crate::storage::tree_copy::read_xattrs(&place)?;
        let owner = Owner { uid: stat.st_uid, gid: stat.st_gid, mode };
        self.replace(&directory, &name, owner, |file| {
            let copied = std::io::copy(&mut File::from(fd), file);
            copied.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
            for xattr in &xattrs {
                rustix::fs::fsetxattr(&*file, xattr.name.as_slice(), &xattr.value, XattrFlags::empty())?;
            }
            Ok(())
        })
    }

    /// Puts a new file in the place of whatever has the name: written beside, and renamed.
    fn replace(
        &self,
        directory: &OwnedFd,
        name: &CString,
        owner: Owner,
        fill: impl FnOnce(&mut File) -> Result<()>,
    ) -> Result<()> {
        absent(rustix::fs::unlinkat(directory, TEMPORARY, AtFlags::empty()))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(directory, TEMPORARY, flags, Mode::RUSR | Mode::WUSR)?);
        // The owner takes capabilities and setuid bits off, so that it comes before both.
        let done = rustix::fs::fchown(&file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
            .and_then(|()| fill(&mut file))
            .and_then(|()| rustix::fs::fchmod(&file, Mode::from_raw_mode(owner.mode)))
            .and_then(|()| rustix::fs::fdatasync(&file))
            .and_then(|()| rustix::fs::renameat(directory, TEMPORARY, directory, name));
        if done.is_err() {
            let _ = rustix::fs::unlinkat(directory, TEMPORARY, AtFlags::empty());
        }
        done
    }

    /// Whether a file carries an extended attribute.
    pub(super) fn has_xattr(&self, path: &str, name: &str) -> Result<bool> {
        let Some((directory, file)) = self.parent(path)? else { return Ok(false) };
        let path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), file.as_bytes()].concat();
        match rustix::fs::lgetxattr_query(path.as_slice(), name) {
            Ok(_) => Ok(true),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOENT) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Whether the tree is mounted from another machine, which keeps no capabilities over NFSv3.
    pub(super) fn is_on_network(&self) -> bool {
        crate::storage::is_network(&self.top)
    }

    /// Opens a regular file; nothing else is ever opened.
    fn regular(&self, path: &str) -> Result<Option<(OwnedFd, Stat)>> {
        match absent(self.resolve(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC))? {
            Some(found) => reopen_regular(found),
            None => Ok(None),
        }
    }

    fn resolve(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        let path = path.trim_matches('/');
        let path = if path.is_empty() { "." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        crate::openat2::openat2(&self.top, path, flags, Mode::empty(), resolve)
    }

    /// The directory a path's last component lies in, `None` if that does not exist.
    fn parent(&self, path: &str) -> Result<Option<(OwnedFd, CString)>> {
        let (parent, name) = split(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(absent(self.resolve(parent, flags))?.map(|directory| (directory, name)))
    }

    /// The same, made if it does not exist: root's, 0755.
    fn make_parent(&self, path: &str) -> Result<(OwnedFd, CString)> {
        if let Some(found) = self.parent(path)? {
            return Ok(found);
        }
        let (parent, name) = split(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut directory = self.resolve("", flags)?;
        for part in parent.split('/').filter(|part| !part.is_empty()) {
            match rustix::fs::mkdirat(&directory, part, Mode::RWXU) {
                Ok(()) => {
                    let made = rustix::fs::openat(&directory, part, flags, Mode::empty())?;
                    // Whatever the umask says.
                    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                    directory = made;
                }
                Err(Errno::EXIST) => directory = rustix::fs::openat(&directory, part, flags, Mode::empty())?,
                Err(other) => return Err(other),
            }
        }
        Ok((directory, name))
    }
}

fn split(path: &str) -> Result<(&str, CString)> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let plain = !matches!(name, "" | "." | "..") && !parent.split('/').any(|part| part == "..");
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    if plain { Ok((parent, name)) } else { Err(Errno::INVAL) }
}

/// What is not there is `None`.
fn absent<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        // ELOOP: a link in the file's place, which callers treat as no file; ENOTDIR likewise.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(other) => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn links_of_the_tree_lead_nowhere() {
        let (outside, inside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("secret"), "secret").unwrap();
        symlink(outside.path(), inside.path().join("dir")).unwrap();
        symlink(outside.path().join("secret"), inside.path().join("file")).unwrap();
        let tree = Tree::open(inside.path()).unwrap();
        assert_eq!(tree.read("dir/secret").unwrap(), None);
        assert_eq!(tree.read("file").unwrap(), None);
        assert!(tree.list("dir").unwrap().is_empty());
        assert!(!tree.remove("dir/secret").unwrap());
        assert!(tree.write("dir/new", b"x", PUBLIC).is_err());
        assert!(tree.write("../escaped", b"x", PUBLIC).is_err());
        assert!(tree.write("a/../../escaped", b"x", PUBLIC).is_err());
        assert!(tree.write("file", b"mine", PUBLIC).unwrap());
        assert_eq!(fs::read(inside.path().join("file")).unwrap(), b"mine");
        let names: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");
    }

    #[test]
    fn a_directory_of_very_many_names_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let tree = Tree::open(place.path()).unwrap();
        for n in 0..MAX_NAMES {
            fs::File::create(place.path().join(n.to_string())).unwrap();
        }
        assert_eq!(tree.list("").unwrap().len(), MAX_NAMES);
        fs::File::create(place.path().join("more")).unwrap();
        assert_eq!(tree.list("").unwrap_err(), Errno::FBIG);
    }

    #[test]
    fn device_nodes_are_not_opened() {
        let place = tempfile::tempdir().unwrap();
        // No driver has this number: whoever opens it gets ENXIO.
        let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::from_bits_truncate(0o644));
        let number = nix::sys::stat::makedev(240, 77);
        nix::sys::stat::mknod(&place.path().join("fstab"), kind, mode, number).expect("run as root");
        assert_eq!(fs::File::open(place.path().join("fstab")).unwrap_err().raw_os_error(), Some(6), "ENXIO");
        let tree = Tree::open(place.path()).unwrap();
        assert_eq!(tree.read("fstab").unwrap(), None);
        assert_eq!(tree.set_mode("fstab", 0o600).unwrap_err(), Errno::NOENT);
        assert!(tree.write("fstab", b"text", PUBLIC).unwrap());
        assert_eq!(fs::read(place.path().join("fstab")).unwrap(), b"text");
    }

    #[test]
    fn a_file_with_another_name_is_left_alone_under_that() {
        let place = tempfile::tempdir().unwrap();
        let (tree, other) = (Tree::open(place.path()).unwrap(), tempfile::tempdir_in(place.path()).unwrap());
        let [program, text] = ["ping", "hosts"].map(|name| place.path().join(name));
        for path in [&program, &text] {
            fs::write(path, "as it is").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::chown(path, Some(3), Some(4)).unwrap();
            fs::hard_link(path, other.path().join(path.file_name().unwrap())).unwrap();
        }
        let named = |name: &str| fs::metadata(other.path().join(name)).unwrap();
        let before = ["ping", "hosts"].map(|name| (named(name).ino(), named(name).mode(), named(name).mtime_nsec()));
        tree.set_mode("ping", 0o4755).unwrap();
        assert!(tree.write("hosts", b"another", PUBLIC).unwrap());
        for (name, before) in ["ping", "hosts"].into_iter().zip(before) {
            assert_eq!((named(name).ino(), named(name).mode(), named(name).mtime_nsec()), before, "{name}");
            assert_eq!(fs::read(other.path().join(name)).unwrap(), b"as it is");
        }
        let meta = fs::metadata(&program).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (3, 4, 0o4755));
        assert_eq!(fs::read(&program).unwrap(), b"as it is");
        // With one name only there is nobody to be spared.
        let number = fs::metadata(&program).unwrap().ino();
        tree.set_mode("ping", 0o755).unwrap();
        assert_eq!(
            (fs::metadata(&program).unwrap().ino(), fs::metadata(&program).unwrap().mode() & 0o7777),
            (number, 0o755)
        );
    }

    #[test]
    fn a_rewritten_file_keeps_its_owner_and_mode() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("etc/shadow");
        let tree = Tree::open(place.path()).unwrap();
        assert!(tree.write("etc/shadow", b"a", Owner { uid: 0, gid: 42, mode: 0o640 }).unwrap());
        std::os::unix::fs::chown(&path, Some(7), Some(8)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4604)).unwrap();
        assert!(tree.write("etc/shadow", b"b", PUBLIC).unwrap());
        assert!(!tree.write("etc/shadow", b"b", PUBLIC).unwrap());
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (7, 8, 0o4604));
        assert_eq!(fs::metadata(place.path().join("etc")).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(place.path().join("etc")).unwrap().count(), 1);
    }
}
