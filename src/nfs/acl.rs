//! NFSACL version 3, a program beside NFS: as much of it as an overlay over a read-only export needs.
//!
//! Linux's overlayfs asks for the access control lists of what is below it and takes "not supported" for the answer to the
//! lookup itself (fs/overlayfs/inode.c, ovl_get_acl), so that only the owner of a directory could use it. It is spoken with
//! clients of read-only exports alone: others would ask for the lists of each directory in which they make a file.

use std::sync::Arc;

use super::access::View;
use super::dispatch::{Lane, Verdict, fail, permitted};
use super::ops::{self, Stop};
use super::proto::{MAX_HANDLE, Procedure};
use super::rpc::{self, Call, Refusal};
use super::shared::{Shared, Worker};
use super::xdr::{Decoder, Malformed};

/// Program number of NFSACL.
pub const ACL_PROGRAM: u32 = 100_227;

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Whether it is spoken.
    Null,
    /// The lists of a file: its handle, and which.
    GetAcl(&'a [u8], u32),
}

/// Decodes a call.
///
/// # Errors
/// What to answer instead; SETACL is for exports that may be written to.
pub fn decode(procedure: u32, args: &[u8]) -> Result<Request<'_>, Refusal> {
    match procedure {
        0 => Ok(Request::Null),
        1 => {
            let mut decoder = Decoder::new(args);
            let handle = decoder.opaque(MAX_HANDLE).map_err(|Malformed| Refusal::GarbageArgs)?;
            let mask = decoder.u32().map_err(|Malformed| Refusal::GarbageArgs)?;
            Ok(Request::GetAcl(handle, mask))
        }
        _ => Err(Refusal::NoProcedure),
    }
}

pub(super) fn run(
    worker: &mut Worker,
    shared: &Shared,
    view: &Arc<View>,
    call: &Call<'_>,
    lane: Lane,
) -> Result<Verdict, Refusal> {
    if !view.has_read_only() {
        return Err(Refusal::NoProgram);
    }
    let request = decode(call.procedure, call.args)?;
    if lane == Lane::Instant {
        return Ok(Verdict::Defer);
    }
    rpc::put_success(&mut worker.reply, call.xid);
    let Request::GetAcl(handle, mask) = request else { return Ok(Verdict::Reply) };
    // A failure of it looks like one of ACCESS: no attributes.
    let failed = match permitted(worker, shared, view, &call.auth, handle, Procedure::Access, lane) {
        Ok(op) if !op.grant.entry.export.read_only => return Err(Refusal::NoProgram),
        Ok(mut op) => match ops::get_acl(&mut op, mask) {
            Ok(_) => return Ok(Verdict::Reply),
            Err(Stop::Defer) => return Ok(Verdict::Defer),
            Err(Stop::Fail(status)) => status,
        },
        Err(status) => status,
    };
    fail(worker, Procedure::Access, failed);
    Ok(Verdict::Reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_decoded_or_refused() {
        let mut bytes = vec![0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0xf];
        assert_eq!(decode(1, &bytes), Ok(Request::GetAcl(&[1, 2, 3, 4, 5], 0xf)));
        for length in 0..bytes.len() {
            assert_eq!(decode(1, &bytes[..length]), Err(Refusal::GarbageArgs), "{length}");
        }
        bytes[3] = 65;
        bytes.resize(100, 0);
        assert_eq!(decode(1, &bytes), Err(Refusal::GarbageArgs), "no handle is so long");
        bytes[0] = 0xff;
        assert_eq!(decode(1, &bytes), Err(Refusal::GarbageArgs));
        assert_eq!((decode(0, &[]), decode(2, &bytes)), (Ok(Request::Null), Err(Refusal::NoProcedure)));
    }
}
