//! The MOUNT program, version 3 (RFC 1813, appendix I), and what some clients still ask of version 1.

use std::sync::Arc;

use super::access::{Refused, View};
use super::dispatch::Verdict;
use super::proto::{MAX_PATH, MountStatus};
use super::rpc::{self, Call, Refusal};
use super::shared::{Shared, Worker};
use super::xdr::{self, Decoder, Malformed};

/// The only flavour that clients are told of (RFC 5531: AUTH_SYS).
const AUTH_SYS: u32 = 1;

/// A MOUNT procedure with its argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the RFC's own names")]
pub enum Request<'a> {
    Null,
    Mnt(&'a [u8]),
    Dump,
    Umnt(&'a [u8]),
    UmntAll,
    Export,
}

/// Decodes a MOUNT call.
///
/// # Errors
/// What to answer instead.
pub fn decode<'a>(version: u32, procedure: u32, args: &'a [u8]) -> Result<Request<'a>, Refusal> {
    let path = || -> Result<&'a [u8], Refusal> {
        Decoder::new(args).opaque(MAX_PATH).map_err(|Malformed| Refusal::GarbageArgs)
    };
    match (version, procedure) {
        (_, 0) => Ok(Request::Null),
        // Version 1 hands out handles of NFS version 2, which is not spoken.
        (3, 1) => path().map(Request::Mnt),
        (_, 2) => Ok(Request::Dump),
        (_, 3) => path().map(Request::Umnt),
        (_, 4) => Ok(Request::UmntAll),
        (_, 5) => Ok(Request::Export),
        _ => Err(Refusal::NoProcedure),
    }
}

/// An export's name as clients write it: with or without slashes at the end.
fn trimmed(path: &[u8]) -> &[u8] {
    let mut path = path;
    while let [rest @ .., b'/'] = path
        && !rest.is_empty()
    {
        path = rest;
    }
    path
}

pub(super) fn run(worker: &mut Worker, shared: &Shared, view: &Arc<View>, call: &Call<'_>) -> Result<Verdict, Refusal> {
    let request = decode(call.version, call.procedure, call.args)?;
    let out = &mut worker.reply;
    rpc::put_success(out, call.xid);
    match request {
        Request::Null => {}
        Request::Mnt(path) => mnt(out, shared, view, trimmed(path)),
        Request::Dump => {
            for name in shared.activity.mounts_of(view.peer) {
                xdr::put_bool(out, true);
                xdr::put_opaque(out, view.peer.to_string().as_bytes());
                xdr::put_opaque(out, name.as_bytes());
            }
            xdr::put_bool(out, false);
        }
        Request::Umnt(path) => {
            if let Ok((grant, _)) = view.find_name(trimmed(path)) {
                shared.activity.unmounted(Some(grant.entry.export.id), view.peer);
            }
        }
        Request::UmntAll => shared.activity.unmounted(None, view.peer),
        // Only what this client may use: the list of devices is nobody else's business.
        Request::Export => {
            for grant in view.grants() {
                xdr::put_bool(out, true);
                xdr::put_opaque(out, grant.entry.export.name.as_bytes());
                xdr::put_bool(out, true);
                xdr::put_opaque(out, view.peer.to_string().as_bytes());
                xdr::put_bool(out, false);
            }
            xdr::put_bool(out, false);
        }
    }
    Ok(Verdict::Reply)
}

fn mnt(out: &mut Vec<u8>, shared: &Shared, view: &View, path: &[u8]) {
    let refused = |status: MountStatus, why: String| {
        let shown: String = String::from_utf8_lossy(path).chars().filter(|c| !c.is_control()).take(120).collect();
        shared.activity.refused(view.peer, &shown, || why);
        status
    };
    let status = match view.find_name(path) {
        Ok((grant, volume)) => {
            let export = &grant.entry.export;
            let handle = shared.key.seal(export.id, volume.tag, &volume.root_handle);
            xdr::put_u32(out, MountStatus::Ok as u32);
            xdr::put_opaque(out, handle.bytes());
            xdr::put_u32(out, 1);
            xdr::put_u32(out, AUTH_SYS);
            shared.activity.mounted(export.id, &export.name, view.peer);
            return;
        }
        Err(Refused::NoExport) => refused(MountStatus::NoEnt, "there is no export of this name".to_owned()),
        Err(Refused::NotYours(entry) | Refused::Unknown(entry)) => refused(MountStatus::Acces, view.why_not(entry)),
        Err(Refused::Away) => refused(
            MountStatus::ServerFault,
            "its directory is not there at the moment (volume not mounted?)".to_owned(),
        ),
    };
    xdr::put_u32(out, status as u32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_with_slashes_at_the_end_and_nothing_else_is_bent() {
        assert_eq!(trimmed(b"/lion/root/"), b"/lion/root");
        assert_eq!(trimmed(b"/lion/root//"), b"/lion/root");
        assert_eq!(trimmed(b"/"), b"/");
        assert_eq!(trimmed(b""), b"");
        assert_eq!(trimmed(b"/lion//root"), b"/lion//root");
    }

    #[test]
    fn version_one_knows_no_mnt_and_lengths_are_checked() {
        assert_eq!(decode(1, 0, &[]), Ok(Request::Null));
        assert_eq!(decode(1, 1, &[0, 0, 0, 0]), Err(Refusal::NoProcedure));
        assert_eq!(decode(3, 1, &[0, 0, 0, 1, b'/', 0, 0, 0]), Ok(Request::Mnt(b"/")));
        assert_eq!(decode(3, 1, &[0xc0, 0, 0, 0, b'/', 0, 0, 0]), Err(Refusal::GarbageArgs));
        assert_eq!(decode(3, 6, &[]), Err(Refusal::NoProcedure));
    }
}
