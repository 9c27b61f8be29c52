//! What has to hold of any bytes on their way into the NFS server: the body of the fuzz targets, and of tests/nfs_corpus.rs
//! for the stored inputs. Each returns whether the input was understood.

#![allow(dead_code, reason = "each target uses its part")]

use piboot::nfs::args::{self, Args};
use piboot::nfs::handle::{HandleKey, KernelHandle};
use piboot::nfs::proto::{MAX_HANDLE, MAX_PATH, MOUNT_PROGRAM, NFS_PROGRAM, Procedure};
use piboot::nfs::rpc::{Auth, MAX_GROUPS, decode_call};
use piboot::nfs::{acl, mount, portmap, rpcbind};

/// A record on any port: the call header, and the arguments of the programs that are served.
pub(crate) fn rpc(record: &[u8]) -> bool {
    let Ok(call) = decode_call(record) else { return false };
    if let Auth::Sys(sys) = call.auth {
        assert!(sys.groups().len() <= MAX_GROUPS);
    }
    assert!(record.ends_with(call.args));
    match call.program {
        NFS_PROGRAM => Procedure::from_number(call.procedure).is_some_and(|procedure| decoded(procedure, call.args)),
        MOUNT_PROGRAM => mounting(call.version, call.procedure, call.args),
        acl::ACL_PROGRAM => asked_for_lists(call.procedure, call.args),
        portmap::PORTMAP_PROGRAM => mapped(call.procedure, call.args),
        _ => false,
    }
}

/// Arguments of an NFS procedure, which the first byte chooses.
pub(crate) fn nfs_args(input: &[u8]) -> bool {
    let Some((number, bytes)) = input.split_first() else { return false };
    Procedure::from_number(u32::from(*number) % 22).is_some_and(|procedure| decoded(procedure, bytes))
}

fn decoded(procedure: Procedure, bytes: &[u8]) -> bool {
    let Ok(decoded) = args::decode(procedure, bytes) else { return false };
    let Some((handle, args)) = decoded else { return procedure == Procedure::Null };
    assert!(handle.len() <= MAX_HANDLE);
    match args {
        Args::Lookup { name }
        | Args::Remove { name }
        | Args::RmDir { name }
        | Args::Create { name, .. }
        | Args::MkDir { name, .. }
        | Args::MkNod { name, .. } => assert!(name.len() <= MAX_PATH),
        Args::Write { data, .. } => assert!(data.len() < bytes.len()),
        Args::SymLink { name, target, .. } => assert!(name.len() <= MAX_PATH && target.len() <= MAX_PATH),
        Args::Rename { from, to_dir, to } => {
            assert!(to_dir.len() <= MAX_HANDLE && from.len() <= MAX_PATH && to.len() <= MAX_PATH);
        }
        Args::Link { dir, name } => assert!(dir.len() <= MAX_HANDLE && name.len() <= MAX_PATH),
        _ => {}
    }
    true
}

/// A call of MOUNT: a byte for the version, one for the procedure, and the arguments.
pub(crate) fn mount_args(input: &[u8]) -> bool {
    let Some(([version, procedure], bytes)) = input.split_first_chunk() else { return false };
    mounting((*version).into(), (*procedure).into(), bytes)
}

fn mounting(version: u32, procedure: u32, bytes: &[u8]) -> bool {
    match mount::decode(version, procedure, bytes) {
        Ok(mount::Request::Mnt(path)) => {
            assert!(version == 3 && path.len() <= MAX_PATH && bytes[4..].starts_with(path));
            true
        }
        Ok(mount::Request::Umnt(path)) => {
            assert!(path.len() <= MAX_PATH && bytes[4..].starts_with(path));
            true
        }
        Ok(_) => true,
        Err(_) => false,
    }
}

fn asked_for_lists(procedure: u32, bytes: &[u8]) -> bool {
    match acl::decode(procedure, bytes) {
        Ok(acl::Request::GetAcl(handle, _)) => {
            assert!(handle.len() <= MAX_HANDLE && bytes[4..].starts_with(handle));
            true
        }
        Ok(acl::Request::Null) => true,
        Err(_) => false,
    }
}

/// A question to the portmapper: a byte for the procedure, and the arguments.
pub(crate) fn portmap_args(input: &[u8]) -> bool {
    let Some((procedure, bytes)) = input.split_first() else { return false };
    mapped((*procedure).into(), bytes)
}

fn mapped(procedure: u32, bytes: &[u8]) -> bool {
    match portmap::decode(procedure, bytes) {
        Ok(portmap::Request::GetPort { program, version, protocol }) => {
            let words = [program, version, protocol].map(u32::to_be_bytes);
            assert!(bytes.len() >= 16 && bytes.starts_with(words.as_flattened()));
            true
        }
        Ok(portmap::Request::Null | portmap::Request::Dump) => true,
        Err(_) => false,
    }
}

/// What rpcbind says to a registration: the transaction id of the question, and the answer.
pub(crate) fn rpcbind_answer(input: &[u8]) -> bool {
    let Some((xid, answer)) = input.split_first_chunk() else { return false };
    let decoded = rpcbind::decode_answer(answer, u32::from_be_bytes(*xid));
    // Id, REPLY, accepted, a verifier, SUCCESS and the boolean.
    assert!(decoded.is_none() || answer.len() >= 28 && answer.starts_with(xid));
    // And what it says to a question for a port, which is a number in the place of the boolean.
    let port = rpcbind::decode_port(answer, u32::from_be_bytes(*xid));
    assert_eq!(port.filter(|port| *port < 2), decoded.map(u16::from));
    decoded.is_some()
}

/// A handle from the wire: nothing that was not sealed opens, and what opens is what was sealed.
pub(crate) fn handle(input: &[u8]) -> bool {
    let key = HandleKey::new(*b"a key to fuzz by");
    // Nobody guesses 64 bits of a keyed checksum: what opens has found a hole.
    assert!(key.open(input).is_err());
    let Some((kind, bytes)) = input.split_first() else { return false };
    let Some(kernel) = KernelHandle::new(*kind, bytes) else { return false };
    let sealed = key.seal(7, 9, &kernel);
    let opened = key.open(sealed.bytes()).map(|opened| (opened.export, opened.tag, opened.kernel));
    assert_eq!(opened, Ok((7, 9, kernel)));
    true
}
