//! Registration at a portmapper that was here first (RFC 1833 §3: SET and UNSET, from this machine only).

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::portmap::{Mapping, PORTMAP_PROGRAM, PORTMAP_VERSION};
use super::rpc::RecordMark;
use super::xdr::{self, Decoder};

const SET: u32 = 1;
const UNSET: u32 = 2;
/// It is on this machine: longer means that it hangs.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest answer that is read.
const MAX_ANSWER: usize = 400;

/// Registration failed.
#[derive(Debug, thiserror::Error)]
pub enum RpcbindError {
    /// Nobody there, or no sense in what it says.
    #[error("the portmapper on port {port} of this machine does not answer: {source}")]
    Silent {
        /// Its port.
        port: u16,
        /// What went wrong.
        source: io::Error,
    },
    /// It said no.
    #[error(
        "the portmapper on this machine refuses to register program {program} (another NFS server runs here? see rpcinfo -p)"
    )]
    Refused {
        /// What was to be registered.
        program: u32,
    },
}

/// Registers `mappings` with the portmapper at `port` of this machine, in place of what is there under their numbers.
pub(super) fn register(port: u16, mappings: &[Mapping]) -> Result<(), RpcbindError> {
    let silent = |source| RpcbindError::Silent { port, source };
    let mut stream = connect(port).map_err(silent)?;
    for mapping in mappings {
        // What an earlier run left behind when it was killed; a false answer means that there was nothing.
        call(&mut stream, UNSET, mapping).map_err(silent)?;
        if !call(&mut stream, SET, mapping).map_err(silent)? {
            return Err(RpcbindError::Refused { program: mapping.program });
        }
    }
    Ok(())
}

/// Takes the registration back.
pub(super) fn unregister(port: u16, mappings: &[Mapping]) -> Result<(), RpcbindError> {
    let silent = |source| RpcbindError::Silent { port, source };
    let mut stream = connect(port).map_err(silent)?;
    for mapping in mappings {
        call(&mut stream, UNSET, mapping).map_err(silent)?;
    }
    Ok(())
}

/// rpcbind takes registrations for privileged owners from privileged ports only.
fn connect(port: u16) -> io::Result<TcpStream> {
    let here = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for source in (600..1024).rev() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        match socket.bind(&here(source).into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
            other => other?,
        }
        match socket.connect_timeout(&here(port).into(), PATIENCE) {
            Ok(()) => {
                let stream = TcpStream::from(socket);
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            // The port is still held by a connection that was closed a moment ago.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn call(stream: &mut TcpStream, procedure: u32, mapping: &Mapping) -> io::Result<bool> {
    let mut message = vec![0; 4];
    let xid = mapping.program ^ (mapping.version << 20) ^ procedure;
    for word in [xid, 0, 2, PORTMAP_PROGRAM, PORTMAP_VERSION, procedure, 0, 0, 0, 0] {
        xdr::put_u32(&mut message, word);
    }
    for word in [mapping.program, mapping.version, mapping.protocol, u32::from(mapping.port)] {
        xdr::put_u32(&mut message, word);
    }
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
    let mut answer = [0; MAX_ANSWER];
    stream.read_exact(&mut answer[..length])?;
    decode_answer(&answer[..length], xid).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The boolean of an accepted, successful reply to the call `wanted`.
#[must_use]
pub fn decode_answer(answer: &[u8], wanted: u32) -> Option<bool> {
    let d = &mut Decoder::new(answer);
    let (xid, reply, accepted) = (d.u32().ok()?, d.u32().ok()?, d.u32().ok()?);
    let _verifier = (d.u32().ok()?, d.opaque(MAX_ANSWER).ok()?);
    let success = d.u32().ok()?;
    ((xid, reply, accepted, success) == (wanted, 1, 0, 0)).then(|| d.bool().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfs::rpc::{Refusal, put_refusal, put_success};

    #[test]
    fn only_a_successful_answer_to_the_call_counts() {
        let mut answer = Vec::new();
        put_success(&mut answer, 9);
        xdr::put_bool(&mut answer, true);
        assert_eq!(decode_answer(&answer, 9), Some(true));
        assert_eq!(decode_answer(&answer, 8), None);
        assert_eq!(decode_answer(&answer[..answer.len() - 1], 9), None);
        answer.clear();
        put_refusal(&mut answer, 9, Refusal::NoProcedure);
        assert_eq!(decode_answer(&answer, 9), None);
    }
}
