//! Numbers of NFS version 3 (RFC 1813) and MOUNT version 3 (its appendix I).

use rustix::io::Errno;

/// Program number of NFS.
pub const NFS_PROGRAM: u32 = 100_003;
/// Program number of MOUNT.
pub const MOUNT_PROGRAM: u32 = 100_005;
/// The only version of NFS spoken here, and the main one of MOUNT.
pub const V3: u32 = 3;
/// Longest file handle (RFC 1813 §2.4).
pub const MAX_HANDLE: usize = 64;
/// Longest name of a directory entry on Linux.
pub const MAX_NAME: usize = 255;
/// Longest path or symlink target that is read from the wire: Linux's PATH_MAX.
pub const MAX_PATH: usize = 4096;

/// `nfsstat3` (RFC 1813 §2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the RFC's own names")]
pub enum Status {
    Ok = 0,
    Perm = 1,
    NoEnt = 2,
    Io = 5,
    NxIo = 6,
    Acces = 13,
    Exist = 17,
    XDev = 18,
    NoDev = 19,
    NotDir = 20,
    IsDir = 21,
    Inval = 22,
    FBig = 27,
    NoSpc = 28,
    RoFs = 30,
    MLink = 31,
    NameTooLong = 63,
    NotEmpty = 66,
    DQuot = 69,
    Stale = 70,
    BadHandle = 10001,
    NotSync = 10002,
    BadCookie = 10003,
    NotSupp = 10004,
    TooSmall = 10005,
    ServerFault = 10006,
    BadType = 10007,
    Jukebox = 10008,
}

impl From<Errno> for Status {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::PERM => Self::Perm,
            Errno::NOENT => Self::NoEnt,
            Errno::NXIO => Self::NxIo,
            Errno::ACCESS => Self::Acces,
            // A busy object (mount point, swap file) looks like a permission problem to the client: NFSv3 has no EBUSY.
            Errno::BUSY | Errno::TXTBSY => Self::Acces,
            Errno::EXIST => Self::Exist,
            Errno::XDEV => Self::XDev,
            Errno::NODEV => Self::NoDev,
            Errno::NOTDIR => Self::NotDir,
            Errno::ISDIR => Self::IsDir,
            Errno::INVAL => Self::Inval,
            Errno::FBIG => Self::FBig,
            Errno::NOSPC => Self::NoSpc,
            Errno::ROFS => Self::RoFs,
            Errno::MLINK => Self::MLink,
            Errno::NAMETOOLONG => Self::NameTooLong,
            Errno::NOTEMPTY => Self::NotEmpty,
            Errno::DQUOT => Self::DQuot,
            Errno::STALE => Self::Stale,
            Errno::OPNOTSUPP | Errno::NOSYS => Self::NotSupp,
            // The server is short of something for the moment: the client waits and asks again.
            Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::AGAIN => Self::Jukebox,
            _ => Self::Io,
        }
    }
}

/// `mountstat3` (RFC 1813, appendix I §5.1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the RFC's own names")]
pub enum MountStatus {
    Ok = 0,
    NoEnt = 2,
    Acces = 13,
    ServerFault = 10006,
}

/// A procedure of NFS version 3 (RFC 1813 §3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs, reason = "the RFC's own names")]
pub enum Procedure {
    Null,
    GetAttr,
    SetAttr,
    Lookup,
    Access,
    ReadLink,
    Read,
    Write,
    Create,
    MkDir,
    SymLink,
    MkNod,
    Remove,
    RmDir,
    Rename,
    Link,
    ReadDir,
    ReadDirPlus,
    FsStat,
    FsInfo,
    PathConf,
    Commit,
}

impl Procedure {
    /// All of them; the index is the number.
    pub const ALL: [Self; 22] = [
        Self::Null,
        Self::GetAttr,
        Self::SetAttr,
        Self::Lookup,
        Self::Access,
        Self::ReadLink,
        Self::Read,
        Self::Write,
        Self::Create,
        Self::MkDir,
        Self::SymLink,
        Self::MkNod,
        Self::Remove,
        Self::RmDir,
        Self::Rename,
        Self::Link,
        Self::ReadDir,
        Self::ReadDirPlus,
        Self::FsStat,
        Self::FsInfo,
        Self::PathConf,
        Self::Commit,
    ];

    /// The procedure with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Whether it changes the file system.
    #[must_use]
    pub const fn changes(self) -> bool {
        self.must_run_once() || matches!(self, Self::Write)
    }

    /// Whether a repeat would give another answer than the first call did.
    #[must_use]
    pub const fn must_run_once(self) -> bool {
        matches!(
            self,
            Self::SetAttr
                | Self::Create
                | Self::MkDir
                | Self::SymLink
                | Self::MkNod
                | Self::Remove
                | Self::RmDir
                | Self::Rename
                | Self::Link
        )
    }

    /// How many "no attributes" words follow the status of a failure that happened before any attribute was known:
    /// one per `post_op_attr`, two per `wcc_data`.
    #[must_use]
    pub const fn absent_words(self) -> usize {
        match self {
            Self::Null | Self::GetAttr => 0,
            Self::Rename => 4,
            Self::Link => 3,
            _ if self.changes() || matches!(self, Self::Commit) => 2,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_procedures_agree() {
        for (number, procedure) in (0_u32..).zip(Procedure::ALL) {
            assert_eq!(procedure as u32, number);
            assert_eq!(Procedure::from_number(number), Some(procedure));
        }
        assert_eq!(Procedure::from_number(22), None);
        assert_eq!(Procedure::from_number(u32::MAX), None);
    }
}
