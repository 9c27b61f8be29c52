//! A call of every procedure, encoded by an independent implementation.

use nfs3_types::nfs3::{self, Nfs3Option, nfs_fh3, stable_how};
use nfs3_types::xdr_codec::{Opaque, Pack};

use super::{at, mode};

/// What the calls are about.
pub(crate) struct About<'a> {
    /// The handle that comes first.
    pub(crate) object: &'a nfs_fh3,
    /// The second handle of RENAME and LINK.
    pub(crate) other: &'a nfs_fh3,
    /// The entry that is looked up, removed or renamed.
    pub(crate) name: &'a [u8],
    /// The entry that is made.
    pub(crate) new: &'a [u8],
}

pub(crate) const NFS: u32 = 100_003;
pub(crate) const MOUNT: u32 = 100_005;

/// Procedures of NFSv3, NULL left out.
pub(crate) const NFS_PROCEDURES: std::ops::RangeInclusive<u32> = 1..=21;

/// The arguments of a call that any server would carry out, given the right handle.
pub(crate) fn nfs_args(procedure: u32, about: &About<'_>) -> Vec<u8> {
    let object = || about.object.clone();
    let (name, new) = (at(about.object, about.name), at(about.object, about.new));
    let verifier = nfs3::cookieverf3([0; 8]);
    match procedure {
        1 => encoded(&nfs3::GETATTR3args { object: object() }),
        2 => {
            let new_attributes = nfs3::sattr3 { size: Nfs3Option::Some(0), ..mode(0o777) };
            encoded(&nfs3::SETATTR3args { object: object(), new_attributes, guard: Nfs3Option::None })
        }
        3 => encoded(&nfs3::LOOKUP3args { what: name }),
        4 => encoded(&nfs3::ACCESS3args { object: object(), access: 0x3f }),
        5 => encoded(&nfs3::READLINK3args { symlink: object() }),
        6 => encoded(&nfs3::READ3args { file: object(), offset: 0, count: 4096 }),
        7 => {
            let data = Opaque::borrowed(b"overwritten");
            encoded(&nfs3::WRITE3args { file: object(), offset: 0, count: 11, stable: stable_how::FILE_SYNC, data })
        }
        8 => {
            let empty = nfs3::sattr3 { size: Nfs3Option::Some(0), ..mode(0o644) };
            encoded(&nfs3::CREATE3args { where_: new, how: nfs3::createhow3::UNCHECKED(empty) })
        }
        9 => encoded(&nfs3::MKDIR3args { where_: new, attributes: mode(0o755) }),
        10 => {
            let symlink_data = nfs3::nfspath3(Opaque::borrowed(b"../target"));
            let symlink = nfs3::symlinkdata3 { symlink_attributes: nfs3::sattr3::default(), symlink_data };
            encoded(&nfs3::SYMLINK3args { where_: new, symlink })
        }
        11 => encoded(&nfs3::MKNOD3args { where_: new, what: nfs3::mknoddata3::NF3FIFO(mode(0o600)) }),
        12 => encoded(&nfs3::REMOVE3args { object: name }),
        13 => encoded(&nfs3::RMDIR3args { object: name }),
        14 => encoded(&nfs3::RENAME3args { from: name, to: at(about.other, about.new) }),
        15 => encoded(&nfs3::LINK3args { file: object(), link: at(about.other, about.new) }),
        16 => encoded(&nfs3::READDIR3args { dir: object(), cookie: 0, cookieverf: verifier, count: 4096 }),
        17 => {
            let (dircount, maxcount) = (4096, 32768);
            encoded(&nfs3::READDIRPLUS3args { dir: object(), cookie: 0, cookieverf: verifier, dircount, maxcount })
        }
        18 => encoded(&nfs3::FSSTAT3args { fsroot: object() }),
        19 => encoded(&nfs3::FSINFO3args { fsroot: object() }),
        20 => encoded(&nfs3::PATHCONF3args { object: object() }),
        21 => encoded(&nfs3::COMMIT3args { file: object(), offset: 0, count: 0 }),
        _ => Vec::new(),
    }
}

pub(crate) fn encoded(value: &impl Pack) -> Vec<u8> {
    let mut out = Vec::new();
    value.pack(&mut out).unwrap();
    out
}
