//! A client that costs little itself: one connection, requests as bytes, a window of them under way.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use piboot::nfs::proto::{MOUNT_PROGRAM, NFS_PROGRAM, Procedure, V3};
use piboot::nfs::xdr::{self, Decoder};
use socket2::{Domain, Socket, Type};

use crate::measure::Error;

/// Longest answer: a READ of 1 MiB with what comes before it.
const INBOX: usize = (1 << 20) + 4096;
/// Bytes before the results of a successful call: mark, transaction id, "reply", "accepted", no verifier, "success".
const HEADER: usize = 28;
/// A server that says nothing for this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A file handle.
pub type FileHandle = Vec<u8>;

/// A connection to a server.
pub struct Connection {
    stream: TcpStream,
    inbox: Vec<u8>,
    start: usize,
    end: usize,
    next_xid: u32,
    outbox: Vec<u8>,
}

impl Connection {
    /// Connects from an address of loopback.
    pub fn open(from: Ipv4Addr, port: u16) -> Result<Self, Error> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        socket.connect_timeout(&SocketAddr::from(server).into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, inbox: vec![0; INBOX], start: 0, end: 0, next_xid: 1, outbox: Vec::new() })
    }

    /// Asks the MOUNT program for the root of an export.
    pub fn mount(&mut self, path: &str) -> Result<FileHandle, Error> {
        begin(&mut self.outbox, self.next_xid, MOUNT_PROGRAM, 1);
        xdr::put_opaque(&mut self.outbox, path.as_bytes());
        self.send()?;
        let (_, results) = self.receive()?;
        let d = &mut Decoder::new(results);
        match d.u32()? {
            0 => Ok(d.opaque(64)?.to_vec()),
            status => Err(Error::new(format!("MNT {path} gave {status}"))),
        }
    }

    /// One request; its results behind the status.
    pub fn call(&mut self, procedure: Procedure, arguments: impl FnOnce(&mut Vec<u8>)) -> Result<Decoder<'_>, Error> {
        begin(&mut self.outbox, self.next_xid, NFS_PROGRAM, procedure as u32);
        arguments(&mut self.outbox);
        self.send()?;
        let (_, results) = self.receive()?;
        checked(procedure, results)
    }

    /// `count` requests, `window` of them under way at any time. `arguments` encodes the n-th and `results` sees what
    /// the n-th brought, behind the status; the answers may come in another order.
    pub fn run(
        &mut self,
        procedure: Procedure,
        count: usize,
        window: usize,
        mut arguments: impl FnMut(usize, &mut Vec<u8>),
        mut results: impl FnMut(usize, Decoder<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let first = self.next_xid;
        let (mut sent, mut received) = (0, 0);
        while received < count {
            while sent < count && sent - received < window {
                begin(&mut self.outbox, self.next_xid, NFS_PROGRAM, procedure as u32);
                arguments(sent, &mut self.outbox);
                self.send()?;
                sent += 1;
            }
            let (xid, bytes) = self.receive()?;
            results(usize::try_from(xid.wrapping_sub(first))?, checked(procedure, bytes)?)?;
            received += 1;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Error> {
        let length = u32::try_from(self.outbox.len() - 4)?;
        xdr::patch_u32(&mut self.outbox, 0, length | 1 << 31);
        self.next_xid = self.next_xid.wrapping_add(1);
        Ok(self.stream.write_all(&self.outbox)?)
    }

    /// The next answer: its transaction id and its results.
    fn receive(&mut self) -> Result<(u32, &[u8]), Error> {
        self.fill(4)?;
        let mark = u32::from_be_bytes(*self.inbox[self.start..].first_chunk::<4>().ok_or(Error::new("no mark"))?);
        let whole = 4 + usize::try_from(mark & !(1 << 31))?;
        if mark >> 31 == 0 || !(HEADER..=INBOX).contains(&whole) {
            return Err(Error::new(format!("an answer with the record mark {mark:#x}")));
        }
        self.fill(whole)?;
        let answer = &self.inbox[self.start..self.start + whole];
        self.start += whole;
        let d = &mut Decoder::new(&answer[4..]);
        let xid = d.u32()?;
        let head = [d.u32()?, d.u32()?, d.u32()?, d.u32()?, d.u32()?];
        if head != [1, 0, 0, 0, 0] {
            return Err(Error::new(format!("the call was refused: {head:?}")));
        }
        Ok((xid, d.rest()))
    }

    /// Waits until `wanted` bytes are in the inbox.
    fn fill(&mut self, wanted: usize) -> Result<(), Error> {
        if self.start + wanted > INBOX || self.start == self.end {
            self.inbox.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.end - self.start < wanted {
            match self.stream.read(&mut self.inbox[self.end..])? {
                0 => return Err(Error::new("the server closed the connection")),
                read => self.end += read,
            }
        }
        Ok(())
    }
}

/// Starts a call in an empty `out`: place for the mark, header, root's credential, no verifier.
fn begin(out: &mut Vec<u8>, xid: u32, program: u32, procedure: u32) {
    const AUTH_SYS: u32 = 1;
    out.clear();
    for word in [0, xid, 0, 2, program, V3, procedure, AUTH_SYS] {
        xdr::put_u32(out, word);
    }
    // Stamp, the machine's name, uid, gid, groups.
    xdr::put_u32(out, 28);
    xdr::put_u32(out, 1);
    xdr::put_opaque(out, b"bench");
    for word in [0, 0, 0, 0, 0] {
        xdr::put_u32(out, word);
    }
}

fn checked(procedure: Procedure, results: &[u8]) -> Result<Decoder<'_>, Error> {
    let mut d = Decoder::new(results);
    match d.u32()? {
        0 => Ok(d),
        status => Err(Error::new(format!("{procedure:?} gave {status}"))),
    }
}

/// Skips `post_op_attr` and says the size of the file, if it is there.
pub fn post_op_size(d: &mut Decoder<'_>) -> Result<Option<u64>, Error> {
    if !d.bool()? {
        return Ok(None);
    }
    d.fixed::<20>()?;
    let size = d.u64()?;
    d.fixed::<56>()?;
    Ok(Some(size))
}

/// Skips `wcc_data`.
pub fn skip_wcc(d: &mut Decoder<'_>) -> Result<(), Error> {
    if d.bool()? {
        d.fixed::<24>()?;
    }
    post_op_size(d)?;
    Ok(())
}

/// `post_op_fh3`, which every server gives for what it has just made.
pub fn post_op_handle(d: &mut Decoder<'_>) -> Result<FileHandle, Error> {
    if d.bool()? { Ok(d.opaque(64)?.to_vec()) } else { Err(Error::new("no handle of what was made")) }
}
