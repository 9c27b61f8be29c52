//! Asks another NFS server what a Pi would ask it: where NFS and MOUNT are, and whether a directory may be mounted
//! (RFC 1833 §3, RFC 1813 §5). With a time limit for each step, so that a server that hangs holds nobody up for long.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::portmap::{PORTMAP_PROGRAM, PORTMAP_VERSION};
use super::proto::{MOUNT_PROGRAM, NFS_PROGRAM};
use super::rpc::RecordMark;
use super::server::PORTMAP_PORT;
use super::xdr::{self, Decoder};

/// Of NFS and of MOUNT.
const VERSION: u32 = 3;
const NULL: u32 = 0;
const GETPORT: u32 = 3;
const MNT: u32 = 1;
const UMNT: u32 = 3;
const TCP: u32 = 6;
/// A server on the same network answers in milliseconds; a disk that has to spin up takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// A file handle and a list of ways to authenticate.
const MAX_ANSWER: usize = 4096;
/// MNT3ERR_NOENT, MNT3ERR_ACCES
const NO_ENTRY: u32 = 2;
const NO_ACCESS: u32 = 13;

/// Why a Pi could not mount from there.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody there, or no sense in what it says.
    #[error("{what} of the NFS server {server} (TCP port {port}) does not answer: {source}")]
    Silent {
        /// The part.
        what: &'static str,
        /// The server.
        server: Ipv4Addr,
        /// The part's port.
        port: u16,
        /// What went wrong.
        source: io::Error,
    },
    /// The portmapper does not know it.
    #[error(
        "the portmapper of {server} knows no {what} over TCP: switch NFSv3 on there (nfsd: 'vers3=y' in /etc/nfs.conf, and rpcbind; NFS-Ganesha: Protocols = 3)"
    )]
    NotThere {
        /// The part.
        what: &'static str,
        /// The server.
        server: Ipv4Addr,
    },
    /// It said no.
    #[error("the NFS server {server} refuses to let {path} be mounted: {why}")]
    Refused {
        /// The server.
        server: Ipv4Addr,
        /// The directory.
        path: String,
        /// Its reason.
        why: String,
    },
}

/// Whether a client like a Pi can mount `path` from `server` by NFSv3 over TCP. Takes at most some 30 s.
///
/// # Errors
/// [`ClientError`]: what it would fail at.
pub fn probe(server: Ipv4Addr, path: &str) -> Result<(), ClientError> {
    let silent = |what, port| move |source| ClientError::Silent { what, server, port, source };
    let portmapper = "the portmapper";
    let mut stream = connect(server, PORTMAP_PORT).map_err(silent(portmapper, PORTMAP_PORT))?;
    let mut port_of = |what, program, version| -> Result<u16, ClientError> {
        let mut arguments = Vec::new();
        for word in [program, version, TCP, 0] {
            xdr::put_u32(&mut arguments, word);
        }
        let answer = call(&mut stream, (PORTMAP_PROGRAM, PORTMAP_VERSION, GETPORT), &arguments);
        let answer = answer.map_err(silent(portmapper, PORTMAP_PORT))?;
        let port = Decoder::new(&answer).u32().ok().and_then(|port| u16::try_from(port).ok());
        port.filter(|port| *port != 0).ok_or(ClientError::NotThere { what, server })
    };
    let nfs = port_of("NFSv3", NFS_PROGRAM, VERSION)?;
    let mount = port_of("MOUNT (version 3)", MOUNT_PROGRAM, VERSION)?;
    let ask =
        |port, (program, version)| connect(server, port).and_then(|mut s| call(&mut s, (program, version, NULL), &[]));
    ask(nfs, (NFS_PROGRAM, VERSION)).map_err(silent("NFS", nfs))?;
    let mut stream = connect(server, mount).map_err(silent("MOUNT", mount))?;
    let mut arguments = Vec::new();
    xdr::put_opaque(&mut arguments, path.as_bytes());
    let answer = call(&mut stream, (MOUNT_PROGRAM, VERSION, MNT), &arguments).map_err(silent("MOUNT", mount))?;
    let status = Decoder::new(&answer).u32().map_err(|_| silent("MOUNT", mount)(io::ErrorKind::InvalidData.into()))?;
    let why = match status {
        0 => {
            // It need not remember this one.
            let _ = call(&mut stream, (MOUNT_PROGRAM, VERSION, UMNT), &arguments);
            return Ok(());
        }
        NO_ENTRY => "there is no such directory, or it is not exported".to_owned(),
        NO_ACCESS => "it is not exported to this address".to_owned(),
        other => format!("status {other} of RFC 1813 §5.1"),
    };
    Err(ClientError::Refused { server, path: path.to_owned(), why })
}

/// From a privileged port where one is free: servers may insist on that, as kernels mount from one.
fn connect(server: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let mut socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    for source in (700..1024).rev() {
        match socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, source)).into()) {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(_) => {
                socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
                break;
            }
        }
    }
    socket.connect_timeout(&SocketAddr::from((server, port)).into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Calls a procedure as root (AUTH_SYS, RFC 5531 §8) and returns its results.
fn call(
    stream: &mut TcpStream,
    (program, version, procedure): (u32, u32, u32),
    arguments: &[u8],
) -> io::Result<Vec<u8>> {
    let mut credentials = Vec::new();
    // Stamp, machine name, user, group, and no more groups.
    xdr::put_u32(&mut credentials, 0);
    xdr::put_opaque(&mut credentials, b"piboot");
    for word in [0, 0, 0] {
        xdr::put_u32(&mut credentials, word);
    }
    let xid = 0x7069_0000 ^ (program << 8) ^ procedure;
    let mut message = vec![0; 4];
    for word in [xid, 0, 2, program, version, procedure, 1] {
        xdr::put_u32(&mut message, word);
    }
    xdr::put_opaque(&mut message, &credentials);
    // No verifier.
    xdr::put_u32(&mut message, 0);
    xdr::put_u32(&mut message, 0);
    message.extend_from_slice(arguments);
    let length = u32::try_from(message.len() - 4).unwrap_or(0);
    xdr::patch_u32(&mut message, 0, length | 1 << 31);
    stream.write_all(&message)?;
    let mut mark = [0; 4];
    stream.read_exact(&mut mark)?;
    let mark = RecordMark::decode(mark);
    let length = usize::try_from(mark.length).unwrap_or(usize::MAX);
    if !mark.last || length > MAX_ANSWER {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    results(&answer, xid).ok_or_else(|| io::Error::other("it does not do what it was asked for"))
}

/// The results in an accepted, successful reply.
fn results(answer: &[u8], wanted: u32) -> Option<Vec<u8>> {
    let mut d = Decoder::new(answer);
    let (xid, reply, accepted) = (d.u32().ok()?, d.u32().ok()?, d.u32().ok()?);
    let _verifier = (d.u32().ok()?, d.opaque(MAX_ANSWER).ok()?);
    let success = d.u32().ok()?;
    ((xid, reply, accepted, success) == (wanted, 1, 0, 0)).then(|| d.rest().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_successful_reply_to_the_call_has_results() {
        let reply = |words: [u32; 6]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        assert_eq!(results(&[reply([7, 1, 0, 0, 0, 0]), vec![1, 2]].concat(), 7), Some(vec![1, 2]));
        for words in [[8, 1, 0, 0, 0, 0], [7, 0, 0, 0, 0, 0], [7, 1, 1, 0, 0, 0], [7, 1, 0, 0, 0, 1]] {
            assert_eq!(results(&reply(words), 7), None, "{words:?}");
        }
        assert_eq!(results(&reply([7, 1, 0, 0, 0, 0])[..20], 7), None);
    }

    #[test]
    fn nobody_there_is_said_of_the_part_that_is_missing() {
        // TEST-NET-1 (RFC 5737) is routed nowhere; a namespace without routes says so at once.
        let error = probe(Ipv4Addr::new(127, 255, 255, 254), "/export").unwrap_err().to_string();
        assert!(error.contains("the portmapper of the NFS server 127.255.255.254 (TCP port 111)"), "{error}");
    }
}
