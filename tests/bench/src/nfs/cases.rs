//! What one client asks for, case by case.

use std::time::{Duration, Instant};

use piboot::nfs::proto::Procedure;
use piboot::nfs::xdr::{self, Decoder};

use super::client::{Connection, FileHandle, post_op_handle, post_op_size, skip_wcc};
use crate::measure::Error;

const MIB: usize = 1 << 20;
/// The file that is written and read.
pub const FILE: usize = 96 * MIB;
/// Entries made, looked up, listed and removed.
const ENTRIES: usize = 1500;
const GETATTRS: usize = 10_000;
const SMALL_READS: usize = 8_000;
const SMALL: usize = 4096;

/// What a case did.
pub struct Outcome {
    /// How much, in the case's unit.
    pub units: usize,
    /// How long the client took.
    pub wall: Duration,
}

/// What cases work on.
pub struct Scene<'a> {
    connection: &'a mut Connection,
    root: FileHandle,
    file: FileHandle,
    dir: FileHandle,
    entries: Vec<FileHandle>,
}

/// What a case counts.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    /// Mebibytes.
    MiB,
    /// Requests.
    Request,
    /// Directory entries.
    Entry,
}

impl Unit {
    /// Names of the server's CPU time and the client's time for one.
    pub fn metrics(self) -> (&'static str, &'static str) {
        match self {
            Self::MiB => ("cpu_us_per_mib", "wall_us_per_mib"),
            Self::Request => ("cpu_us_per_op", "wall_us_per_op"),
            Self::Entry => ("cpu_us_per_entry", "wall_us_per_entry"),
        }
    }
}

/// Something to measure.
pub struct Case {
    /// As printed.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    run: fn(&mut Scene<'_>) -> Result<usize, Error>,
}

impl Case {
    const fn new(name: &'static str, unit: Unit, run: fn(&mut Scene<'_>) -> Result<usize, Error>) -> Self {
        Self { name, unit, run }
    }
}

/// All cases, in an order in which they can be run: `create` makes what those behind it want.
pub const CASES: [Case; 12] = [
    Case::new("write-commit", Unit::MiB, |s| s.write()),
    Case::new("read-1m", Unit::MiB, |s| s.read(MIB, 4)),
    Case::new("read-128k", Unit::MiB, |s| s.read(128 << 10, 8)),
    Case::new("read-4k-w1", Unit::Request, |s| s.read_small(1)),
    Case::new("read-4k-w8", Unit::Request, |s| s.read_small(8)),
    Case::new("getattr-w1", Unit::Request, |s| s.getattr(1)),
    Case::new("getattr-w8", Unit::Request, |s| s.getattr(8)),
    Case::new("access", Unit::Request, |s| s.access()),
    Case::new("create", Unit::Request, |s| s.create()),
    Case::new("lookup", Unit::Request, |s| s.lookup()),
    Case::new("readdirplus", Unit::Entry, |s| s.list()),
    Case::new("remove", Unit::Request, |s| s.remove()),
];

impl<'a> Scene<'a> {
    /// A new directory and a written file below `root`.
    pub fn new(connection: &'a mut Connection, root: &[u8]) -> Result<Self, Error> {
        let mut scene =
            Self { connection, root: root.to_vec(), file: Vec::new(), dir: Vec::new(), entries: Vec::new() };
        let root = scene.root.clone();
        scene.file = made(scene.connection.call(Procedure::Create, |out| {
            put_name(out, &root, "file");
            xdr::put_u32(out, 0);
            put_mode(out, 0o644);
        })?)?;
        scene.dir = made(scene.connection.call(Procedure::MkDir, |out| {
            put_name(out, &root, "directory");
            put_mode(out, 0o755);
        })?)?;
        // The first pass allocates; the second is what is measured.
        scene.write()?;
        Ok(scene)
    }

    /// Runs one case.
    pub fn run(&mut self, case: &Case) -> Result<Outcome, Error> {
        let begun = Instant::now();
        let units = (case.run)(self)?;
        Ok(Outcome { units, wall: begun.elapsed() })
    }

    fn write(&mut self) -> Result<usize, Error> {
        const UNSTABLE: u32 = 0;
        let data: Vec<u8> = (0..MIB).map(|n| (n % 251).to_le_bytes()[0]).collect();
        let file = &self.file;
        let arguments = |n: usize, out: &mut Vec<u8>| {
            xdr::put_opaque(out, file);
            xdr::put_u64(out, (n * MIB) as u64);
            xdr::put_u32(out, MIB as u32);
            xdr::put_u32(out, UNSTABLE);
            xdr::put_opaque(out, &data);
        };
        self.connection.run(Procedure::Write, FILE / MIB, 4, arguments, |_, mut d| {
            skip_wcc(&mut d)?;
            expect(d.u32()? as usize, MIB, "bytes written")
        })?;
        let file = &self.file;
        self.connection.call(Procedure::Commit, |out| {
            xdr::put_opaque(out, file);
            xdr::put_u64(out, 0);
            xdr::put_u32(out, 0);
        })?;
        Ok(FILE / MIB)
    }

    fn read(&mut self, size: usize, window: usize) -> Result<usize, Error> {
        self.reads(FILE / size, size, window, |n| n)?;
        Ok(FILE / MIB)
    }

    fn read_small(&mut self, window: usize) -> Result<usize, Error> {
        // A full-period sequence: each offset looks random, and every server sees the same ones.
        self.reads(SMALL_READS, SMALL, window, |n| (n * 7919 + 13) % (FILE / SMALL))?;
        Ok(SMALL_READS)
    }

    fn reads(&mut self, count: usize, size: usize, window: usize, place: fn(usize) -> usize) -> Result<(), Error> {
        let file = &self.file;
        let arguments = |n: usize, out: &mut Vec<u8>| {
            xdr::put_opaque(out, file);
            xdr::put_u64(out, (place(n) * size) as u64);
            xdr::put_u32(out, size as u32);
        };
        self.connection.run(Procedure::Read, count, window, arguments, |n, mut d| {
            post_op_size(&mut d)?;
            let (count, _end, data) = (d.u32()?, d.bool()?, d.opaque(size)?);
            expect(count as usize, size, "bytes read")?;
            let first = place(n) * size;
            expect(usize::from(data[0]), first % MIB % 251, "first byte")?;
            expect(usize::from(data[size - 1]), (first + size - 1) % MIB % 251, "last byte")
        })
    }

    fn getattr(&mut self, window: usize) -> Result<usize, Error> {
        let file = &self.file;
        let arguments = |_: usize, out: &mut Vec<u8>| xdr::put_opaque(out, file);
        self.connection.run(Procedure::GetAttr, GETATTRS, window, arguments, |_, mut d| {
            d.fixed::<20>()?;
            expect(usize::try_from(d.u64()?)?, FILE, "size")
        })?;
        Ok(GETATTRS)
    }

    fn access(&mut self) -> Result<usize, Error> {
        const ALL: u32 = 0x3f;
        let file = &self.file;
        let arguments = |_: usize, out: &mut Vec<u8>| {
            xdr::put_opaque(out, file);
            xdr::put_u32(out, ALL);
        };
        self.connection.run(Procedure::Access, GETATTRS, 1, arguments, |_, _| Ok(()))?;
        Ok(GETATTRS)
    }

    fn create(&mut self) -> Result<usize, Error> {
        let (dir, entries) = (&self.dir, &mut self.entries);
        entries.clear();
        let arguments = |n: usize, out: &mut Vec<u8>| {
            put_name(out, dir, &entry_name(n));
            xdr::put_u32(out, 1);
            put_mode(out, 0o644);
        };
        self.connection.run(Procedure::Create, ENTRIES, 1, arguments, |_, d| {
            entries.push(made(d)?);
            Ok(())
        })?;
        Ok(ENTRIES)
    }

    fn lookup(&mut self) -> Result<usize, Error> {
        let (dir, entries) = (&self.dir, &self.entries);
        let arguments = |n: usize, out: &mut Vec<u8>| put_name(out, dir, &entry_name(n % ENTRIES));
        self.connection.run(Procedure::Lookup, 4 * ENTRIES, 1, arguments, |n, mut d| {
            if d.opaque(64)? == entries[n % ENTRIES] { Ok(()) } else { Err(Error::new("another handle")) }
        })?;
        Ok(4 * ENTRIES)
    }

    fn list(&mut self) -> Result<usize, Error> {
        const TIMES: usize = 3;
        for _ in 0..TIMES {
            let (mut cookie, mut verifier, mut seen) = (0, [0; 8], 0);
            loop {
                let dir = &self.dir;
                let mut d = self.connection.call(Procedure::ReadDirPlus, |out| {
                    xdr::put_opaque(out, dir);
                    xdr::put_u64(out, cookie);
                    out.extend_from_slice(&verifier);
                    xdr::put_u32(out, 8192);
                    xdr::put_u32(out, 32768);
                })?;
                post_op_size(&mut d)?;
                verifier = d.fixed()?;
                while d.bool()? {
                    d.u64()?;
                    let name = d.opaque(255)?;
                    cookie = d.u64()?;
                    let size = post_op_size(&mut d)?;
                    let handle = if d.bool()? { d.opaque(64)? } else { &[] };
                    if !matches!(name, b"." | b"..") {
                        seen += 1;
                        if size.is_none() || handle.is_empty() {
                            return Err(Error::new("an entry without attributes or handle"));
                        }
                    }
                }
                if d.bool()? {
                    break;
                }
            }
            expect(seen, ENTRIES, "entries")?;
        }
        Ok(TIMES * ENTRIES)
    }

    fn remove(&mut self) -> Result<usize, Error> {
        let dir = &self.dir;
        let arguments = |n: usize, out: &mut Vec<u8>| put_name(out, dir, &entry_name(n));
        self.connection.run(Procedure::Remove, ENTRIES, 1, arguments, |_, _| Ok(()))?;
        Ok(ENTRIES)
    }
}

fn entry_name(n: usize) -> String {
    format!("entry-{n:05}.service")
}

/// `diropargs3`.
fn put_name(out: &mut Vec<u8>, dir: &[u8], name: &str) {
    xdr::put_opaque(out, dir);
    xdr::put_opaque(out, name.as_bytes());
}

/// `sattr3` with nothing but the mode.
fn put_mode(out: &mut Vec<u8>, mode: u32) {
    for word in [1, mode, 0, 0, 0, 0, 0] {
        xdr::put_u32(out, word);
    }
}

fn made(mut d: Decoder<'_>) -> Result<FileHandle, Error> {
    post_op_handle(&mut d)
}

fn expect(got: usize, wanted: usize, what: &str) -> Result<(), Error> {
    if got == wanted { Ok(()) } else { Err(Error::new(format!("{what}: {got} instead of {wanted}"))) }
}
