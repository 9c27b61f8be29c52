//! Arguments of the NFSv3 procedures (RFC 1813 §3.3), decoded without copying.

use super::proto::{MAX_HANDLE, MAX_PATH, Procedure};
use super::xdr::{Decoder, Malformed};

/// `nfstime3`: seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds; the protocol ends in 2106.
    pub seconds: u32,
    /// Nanoseconds, not checked on decoding.
    pub nanoseconds: u32,
}

/// `set_atime`, `set_mtime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetTime {
    /// Leave it alone.
    #[default]
    Keep,
    /// The server's now.
    Now,
    /// This time.
    To(Time),
}

/// `sattr3`: what to change of an object's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length of a regular file.
    pub size: Option<u64>,
    /// Time of last access.
    pub atime: SetTime,
    /// Time of last modification.
    pub mtime: SetTime,
}

/// `createhow3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateHow {
    /// Take an existing file.
    Unchecked(SetAttr),
    /// Fail if there is one.
    Guarded(SetAttr),
    /// Fail if there is one, unless it was made with this verifier.
    Exclusive([u8; 8]),
}

/// `mknoddata3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the RFC's own names")]
pub enum Node {
    BlockDevice {
        set: SetAttr,
        major: u32,
        minor: u32,
    },
    CharDevice {
        set: SetAttr,
        major: u32,
        minor: u32,
    },
    Socket {
        set: SetAttr,
    },
    Fifo {
        set: SetAttr,
    },
    /// A type that MKNOD does not make: answered with BADTYPE.
    Other,
}

/// `stable_how`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Stability {
    /// In the page cache.
    Unstable = 0,
    /// The data and what is needed to find it is on the disk.
    DataSync = 1,
    /// Data and all attributes are on the disk.
    FileSync = 2,
}

/// Arguments of one call, without the handle that comes first in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the RFC's own names")]
pub enum Args<'a> {
    GetAttr,
    SetAttr { set: SetAttr, guard: Option<Time> },
    Lookup { name: &'a [u8] },
    Access { wanted: u32 },
    ReadLink,
    Read { offset: u64, count: u32 },
    Write { offset: u64, count: u32, stable: Stability, data: &'a [u8] },
    Create { name: &'a [u8], how: CreateHow },
    MkDir { name: &'a [u8], set: SetAttr },
    SymLink { name: &'a [u8], set: SetAttr, target: &'a [u8] },
    MkNod { name: &'a [u8], node: Node },
    Remove { name: &'a [u8] },
    RmDir { name: &'a [u8] },
    Rename { from: &'a [u8], to_dir: &'a [u8], to: &'a [u8] },
    Link { dir: &'a [u8], name: &'a [u8] },
    ReadDir { cookie: u64, verifier: [u8; 8], count: u32 },
    ReadDirPlus { cookie: u64, verifier: [u8; 8], dircount: u32, maxcount: u32 },
    FsStat,
    FsInfo,
    PathConf,
    Commit { offset: u64, count: u32 },
}

/// Decodes the arguments of `procedure`: the handle that comes first, and the rest. `None` for NULL.
///
/// # Errors
/// [`Malformed`]: answer GARBAGE_ARGS.
pub fn decode(procedure: Procedure, bytes: &[u8]) -> Result<Option<(&[u8], Args<'_>)>, Malformed> {
    if procedure == Procedure::Null {
        return Ok(None);
    }
    let d = &mut Decoder::new(bytes);
    let handle = d.opaque(MAX_HANDLE)?;
    let args = match procedure {
        // NULL was answered above; the arm keeps the match whole.
        Procedure::Null | Procedure::GetAttr => Args::GetAttr,
        Procedure::SetAttr => Args::SetAttr { set: set_attr(d)?, guard: optional(d, time)? },
        Procedure::Lookup => Args::Lookup { name: name(d)? },
        Procedure::Access => Args::Access { wanted: d.u32()? },
        Procedure::ReadLink => Args::ReadLink,
        Procedure::Read => Args::Read { offset: d.u64()?, count: d.u32()? },
        Procedure::Write => Args::Write {
            offset: d.u64()?,
            count: d.u32()?,
            stable: stability(d)?,
            // No limit of its own: the record that holds it has one.
            data: d.opaque(bytes.len())?,
        },
        Procedure::Create => Args::Create { name: name(d)?, how: create_how(d)? },
        Procedure::MkDir => Args::MkDir { name: name(d)?, set: set_attr(d)? },
        Procedure::SymLink => Args::SymLink { name: name(d)?, set: set_attr(d)?, target: d.opaque(MAX_PATH)? },
        Procedure::MkNod => Args::MkNod { name: name(d)?, node: node(d)? },
        Procedure::Remove => Args::Remove { name: name(d)? },
        Procedure::RmDir => Args::RmDir { name: name(d)? },
        Procedure::Rename => Args::Rename { from: name(d)?, to_dir: d.opaque(MAX_HANDLE)?, to: name(d)? },
        Procedure::Link => Args::Link { dir: d.opaque(MAX_HANDLE)?, name: name(d)? },
        Procedure::ReadDir => Args::ReadDir { cookie: d.u64()?, verifier: d.fixed()?, count: d.u32()? },
        Procedure::ReadDirPlus => {
            Args::ReadDirPlus { cookie: d.u64()?, verifier: d.fixed()?, dircount: d.u32()?, maxcount: d.u32()? }
        }
        Procedure::FsStat => Args::FsStat,
        Procedure::FsInfo => Args::FsInfo,
        Procedure::PathConf => Args::PathConf,
        Procedure::Commit => Args::Commit { offset: d.u64()?, count: d.u32()? },
    };
    Ok(Some((handle, args)))
}

/// A name, longer ones included: NAMETOOLONG is a better answer than GARBAGE_ARGS.
fn name<'a>(d: &mut Decoder<'a>) -> Result<&'a [u8], Malformed> {
    d.opaque(MAX_PATH)
}

fn optional<'a, T>(
    d: &mut Decoder<'a>,
    read: impl FnOnce(&mut Decoder<'a>) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    if d.bool()? { read(d).map(Some) } else { Ok(None) }
}

fn time(d: &mut Decoder<'_>) -> Result<Time, Malformed> {
    Ok(Time { seconds: d.u32()?, nanoseconds: d.u32()? })
}

fn set_time(d: &mut Decoder<'_>) -> Result<SetTime, Malformed> {
    match d.u32()? {
        0 => Ok(SetTime::Keep),
        1 => Ok(SetTime::Now),
        2 => time(d).map(SetTime::To),
        _ => Err(Malformed),
    }
}

fn set_attr(d: &mut Decoder<'_>) -> Result<SetAttr, Malformed> {
    Ok(SetAttr {
        mode: optional(d, Decoder::u32)?,
        uid: optional(d, Decoder::u32)?,
        gid: optional(d, Decoder::u32)?,
        size: optional(d, Decoder::u64)?,
        atime: set_time(d)?,
        mtime: set_time(d)?,
    })
}

fn stability(d: &mut Decoder<'_>) -> Result<Stability, Malformed> {
    match d.u32()? {
        0 => Ok(Stability::Unstable),
        1 => Ok(Stability::DataSync),
        2 => Ok(Stability::FileSync),
        _ => Err(Malformed),
    }
}

fn create_how(d: &mut Decoder<'_>) -> Result<CreateHow, Malformed> {
    match d.u32()? {
        0 => set_attr(d).map(CreateHow::Unchecked),
        1 => set_attr(d).map(CreateHow::Guarded),
        2 => d.fixed().map(CreateHow::Exclusive),
        _ => Err(Malformed),
    }
}

fn node(d: &mut Decoder<'_>) -> Result<Node, Malformed> {
    Ok(match d.u32()? {
        3 => Node::BlockDevice { set: set_attr(d)?, major: d.u32()?, minor: d.u32()? },
        4 => Node::CharDevice { set: set_attr(d)?, major: d.u32()?, minor: d.u32()? },
        6 => Node::Socket { set: set_attr(d)? },
        7 => Node::Fifo { set: set_attr(d)? },
        _ => Node::Other,
    })
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
