//! The portmapper, version 2 (RFC 1833 §3): NULL, GETPORT and DUMP. Clients that were given no port ask here; the
//! kernel and klibc's nfsmount do so over TCP, and klibc falls back to UDP.

use std::net::IpAddr;

use super::activity::Activity;
use super::dispatch::Verdict;
use super::proto::{MOUNT_PROGRAM, NFS_PROGRAM, V3};
use super::rpc::{self, Call, Refusal, Unusable};
use super::server::Ports;
use super::xdr::{self, Decoder};
use crate::events::Nfs;

/// Program number of the portmapper.
pub const PORTMAP_PROGRAM: u32 = 100_000;
/// The version spoken.
pub const PORTMAP_VERSION: u32 = 2;
/// The protocol number of TCP.
pub const TCP: u32 = 6;
const UDP: u32 = 17;

/// `mapping`: a program and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Program number.
    pub program: u32,
    /// Version.
    pub version: u32,
    /// IP protocol number.
    pub protocol: u32,
    /// Port.
    pub port: u16,
}

/// A portmapper call that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the RFC's own names")]
pub enum Request {
    Null,
    GetPort { program: u32, version: u32, protocol: u32 },
    Dump,
}

/// Decodes a portmapper call.
///
/// # Errors
/// What to answer instead. SET, UNSET and CALLIT are not available: nobody else registers here.
pub fn decode(procedure: u32, args: &[u8]) -> Result<Request, Refusal> {
    match procedure {
        0 => Ok(Request::Null),
        3 => {
            let d = &mut Decoder::new(args);
            let mut words = || -> Result<_, xdr::Malformed> { Ok((d.u32()?, d.u32()?, d.u32()?, d.u32()?)) };
            let (program, version, protocol, _port) = words().map_err(|_| Refusal::GarbageArgs)?;
            Ok(Request::GetPort { program, version, protocol })
        }
        4 => Ok(Request::Dump),
        _ => Err(Refusal::NoProcedure),
    }
}

/// What is registered.
#[must_use]
pub fn mappings(nfs: u16, portmap: Option<u16>) -> Vec<Mapping> {
    let on = |program, version, protocol, port| Mapping { program, version, protocol, port };
    let mut all = Vec::with_capacity(5);
    if let Some(port) = portmap {
        all.push(on(PORTMAP_PROGRAM, PORTMAP_VERSION, TCP, port));
        all.push(on(PORTMAP_PROGRAM, PORTMAP_VERSION, UDP, port));
    }
    all.push(on(NFS_PROGRAM, V3, TCP, nfs));
    all.push(on(MOUNT_PROGRAM, V3, TCP, nfs));
    all.push(on(MOUNT_PROGRAM, 1, TCP, nfs));
    all
}

/// Answers a call that came over TCP.
pub(super) fn run(
    out: &mut Vec<u8>,
    ports: &Ports,
    activity: &Activity,
    peer: IpAddr,
    call: &Call<'_>,
) -> Result<Verdict, Refusal> {
    if call.program != PORTMAP_PROGRAM {
        return Err(Refusal::NoProgram);
    }
    if call.version != PORTMAP_VERSION {
        return Err(Refusal::NoVersion(PORTMAP_VERSION, PORTMAP_VERSION));
    }
    let request = decode(call.procedure, call.args)?;
    rpc::put_success(out, call.xid);
    let all = mappings(ports.nfs, ports.portmap);
    match request {
        Request::Null => {}
        Request::GetPort { program, version, protocol } => {
            let port = all
                .iter()
                .find(|m| (m.program, m.version, m.protocol) == (program, version, protocol))
                // A program that is here in another version: its port, and the program itself will tell which it speaks.
                .or_else(|| all.iter().find(|m| (m.program, m.protocol) == (program, protocol)))
                .map_or(0, |m| m.port);
            xdr::put_u32(out, u32::from(port));
            activity.emit(peer, Nfs::Getport { program, version, answered_port: port });
        }
        Request::Dump => {
            for mapping in &all {
                xdr::put_bool(out, true);
                for word in [mapping.program, mapping.version, mapping.protocol, u32::from(mapping.port)] {
                    xdr::put_u32(out, word);
                }
            }
            xdr::put_bool(out, false);
        }
    }
    Ok(Verdict::Reply)
}

/// Answers a datagram; `false` if nothing is to be sent.
pub(super) fn run_datagram(
    out: &mut Vec<u8>,
    ports: &Ports,
    activity: &Activity,
    peer: IpAddr,
    message: &[u8],
) -> bool {
    out.clear();
    let (xid, refusal) = match rpc::decode_call(message) {
        Ok(call) => match run(out, ports, activity, peer, &call) {
            Ok(_) => return true,
            Err(refusal) => (call.xid, refusal),
        },
        Err(Unusable::Answer(xid, refusal)) => (xid, refusal),
        Err(Unusable::NotACall) => return false,
    };
    out.clear();
    rpc::put_refusal(out, xid, refusal);
    true
}

#[cfg(test)]
mod tests {
    use nfs3_types::portmap as theirs;
    use nfs3_types::xdr_codec::{Pack, Unpack};

    use super::*;
    use crate::clock::Clock;
    use crate::events::{Sink, What};

    fn ask(procedure: u32, args: &[u8]) -> (Vec<u8>, Vec<Nfs>) {
        let (sink, mut events) = Sink::new(Clock::manual(0));
        let activity = Activity::new(sink);
        let mut message = Vec::new();
        for word in [5, 0, 2, PORTMAP_PROGRAM, 2, procedure, 0, 0, 0, 0] {
            xdr::put_u32(&mut message, word);
        }
        message.extend_from_slice(args);
        let mut out = Vec::new();
        let ports = Ports { nfs: 2049, portmap: Some(111) };
        assert!(run_datagram(&mut out, &ports, &activity, IpAddr::from([192, 0, 2, 1]), &message));
        let seen = std::iter::from_fn(|| events.try_recv().ok());
        let seen = seen.map(|event| match event.what {
            What::Nfs { event, .. } => event,
            other => panic!("{other:?}"),
        });
        (out, seen.collect())
    }

    fn port_of(prog: u32, vers: u32, prot: u32) -> (u32, Vec<Nfs>) {
        let mut args = Vec::new();
        theirs::mapping { prog, vers, prot, port: 0 }.pack(&mut args).unwrap();
        let (out, events) = ask(3, &args);
        (u32::from_be_bytes(*out.last_chunk().unwrap()), events)
    }

    #[test]
    fn getport_knows_tcp_programs_and_tells() {
        assert_eq!(port_of(NFS_PROGRAM, 3, TCP).0, 2049);
        assert_eq!(port_of(MOUNT_PROGRAM, 1, TCP).0, 2049);
        assert_eq!(port_of(PORTMAP_PROGRAM, 2, UDP).0, 111);
        assert_eq!(port_of(NFS_PROGRAM, 3, UDP).0, 0, "no NFS over UDP");
        assert_eq!(port_of(100_227, 3, TCP).0, 0, "no ACL program");
        let (_, events) = port_of(NFS_PROGRAM, 3, TCP);
        assert_eq!(events, [Nfs::Getport { program: NFS_PROGRAM, version: 3, answered_port: 2049 }]);
    }

    #[test]
    fn dump_is_read_by_another_decoder() {
        let (out, _) = ask(4, &[]);
        let list = nfs3_types::xdr_codec::List::<theirs::mapping>::unpack(&mut &out[24..]).unwrap().0;
        assert_eq!(list.0.len(), 5);
        assert!(list.0.iter().any(|m| (m.prog, m.vers, m.prot, m.port) == (NFS_PROGRAM, 3, TCP, 2049)));
    }

    #[test]
    fn nobody_can_register_here() {
        let (out, _) = ask(1, &[0; 16]);
        assert_eq!(out[20..24], 3_u32.to_be_bytes(), "PROC_UNAVAIL");
        assert_eq!(decode(3, &[0; 15]), Err(Refusal::GarbageArgs));
    }
}
