//! Registration at a portmapper that was here first (RFC 1833 §3: GETPORT, and SET and UNSET from this machine only).

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::portmap::{Mapping, PORTMAP_PROGRAM, PORTMAP_VERSION};
use super::rpc::RecordMark;
use super::xdr::{self, Decoder};

const SET: u32 = 1;
const UNSET: u32 = 2;
const GETPORT: u32 = 3;
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
    #[error("the portmapper on this machine refuses to register program {program}; see rpcinfo -p")]
    Refused {
        /// What was to be registered.
        program: u32,
    },
    /// Another server is registered, and there.
    #[error(
        "another server of program {program} answers on port {port} of this machine and has the portmapper's entry (see rpcinfo -p): stop that one"
    )]
    Taken {
        /// What was to be registered.
        program: u32,
        /// Where the other one is.
        port: u16,
    },
}

/// Registers `mappings` with the portmapper at `port` of this machine, in place of what an earlier run left behind when it
/// was killed. Either all are registered or nothing is changed.
pub(super) fn register(port: u16, mappings: &[Mapping]) -> Result<(), RpcbindError> {
    let silent = |source| RpcbindError::Silent { port, source };
    let mut stream = connect(port).map_err(silent)?;
    for mapping in mappings {
        let holder = registered(&mut stream, mapping).map_err(silent)?;
        if holder != 0 && holder != mapping.port && is_served(holder) {
            return Err(RpcbindError::Taken { program: mapping.program, port: holder });
        }
    }
    for mapping in mappings {
        // A false answer means that there was nothing.
        change(&mut stream, UNSET, mapping).map_err(silent)?;
        if !change(&mut stream, SET, mapping).map_err(silent)? {
            // Those before it are of no use alone.
            let _ = unregister(port, mappings);
            return Err(RpcbindError::Refused { program: mapping.program });
        }
    }
    Ok(())
}

/// Whether `mappings` are registered with the portmapper at `port` of this machine; one that lacks a version answers with
/// another of the same program, so this tells a portmapper that lost all of a program. Asks from any port: each check
/// would keep a privileged one busy for a minute.
pub(super) fn is_registered(port: u16, mappings: &[Mapping]) -> Result<bool, RpcbindError> {
    let ask = || -> io::Result<bool> {
        let here = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let mut stream = TcpStream::connect_timeout(&here, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        for mapping in mappings {
            if registered(&mut stream, mapping)? != mapping.port {
                return Ok(false);
            }
        }
        Ok(true)
    };
    ask().map_err(|source| RpcbindError::Silent { port, source })
}

/// Takes the registration back, as far as nobody else has it by now.
pub(super) fn unregister(port: u16, mappings: &[Mapping]) -> Result<(), RpcbindError> {
    let silent = |source| RpcbindError::Silent { port, source };
    let mut stream = connect(port).map_err(silent)?;
    for mapping in mappings {
        if registered(&mut stream, mapping).map_err(silent)? == mapping.port {
            change(&mut stream, UNSET, mapping).map_err(silent)?;
        }
    }
    Ok(())
}

/// Whether somebody listens on a TCP port of this machine.
fn is_served(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port), PATIENCE).is_ok()
}

/// The port that is registered for the program; 0: none.
fn registered(stream: &mut TcpStream, mapping: &Mapping) -> io::Result<u16> {
    ask(stream, GETPORT, mapping, decode_port)
}

/// SET or UNSET: whether it did that.
fn change(stream: &mut TcpStream, procedure: u32, mapping: &Mapping) -> io::Result<bool> {
    ask(stream, procedure, mapping, decode_answer)
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

fn ask<T>(
    stream: &mut TcpStream,
    procedure: u32,
    mapping: &Mapping,
    decode: fn(&[u8], u32) -> Option<T>,
) -> io::Result<T> {
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
    decode(&answer[..length], xid).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The boolean of an accepted, successful reply to the call `wanted`: the answer to SET and UNSET.
#[must_use]
pub fn decode_answer(answer: &[u8], wanted: u32) -> Option<bool> {
    results(answer, wanted)?.bool().ok()
}

/// The port in an accepted, successful reply to the call `wanted`: the answer to GETPORT.
#[must_use]
pub fn decode_port(answer: &[u8], wanted: u32) -> Option<u16> {
    u16::try_from(results(answer, wanted)?.u32().ok()?).ok()
}

fn results(answer: &[u8], wanted: u32) -> Option<Decoder<'_>> {
    let mut d = Decoder::new(answer);
    let (xid, reply, accepted) = (d.u32().ok()?, d.u32().ok()?, d.u32().ok()?);
    let _verifier = (d.u32().ok()?, d.opaque(MAX_ANSWER).ok()?);
    let success = d.u32().ok()?;
    ((xid, reply, accepted, success) == (wanted, 1, 0, 0)).then_some(d)
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
