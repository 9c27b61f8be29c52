//! From a message to a reply: programs, access, duplicates, procedures.

use std::sync::Arc;

use super::access::{Refused, View};
use super::acl::ACL_PROGRAM;
use super::activity::Milestone;
use super::args::{self, Args};
use super::connection::{Connection, Service};
use super::creds::Identity;
use super::drc::{Fingerprint, Seen};
use super::exports::RootIs;
use super::ops::{self, Op, Stop};
use super::proto::{MOUNT_PROGRAM, NFS_PROGRAM, Procedure, Status, V3};
use super::rpc::{self, Auth, Call, Refusal, Unusable};
use super::shared::{Counters, Shared, Worker};
use super::{acl, mount, portmap, xdr};

/// Bytes of a message that tell it from another with the same transaction id.
const FINGERPRINTED: usize = 256;
/// Record mark and header of a successful reply: where results start.
const RESULT_AT: usize = 28;

/// Whether a request may keep its thread waiting for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Finished answers wait for this one: do only what needs nothing that is not in memory.
    Instant,
    /// It is the connection's reader: give long requests back.
    Quick,
    /// It may take its time.
    MaySleep,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The worker holds a reply to send.
    Reply,
    /// Nothing is to be sent.
    Silent,
    /// It may sleep: run it again in the other lane. Nothing has been done yet.
    Defer,
    /// The peer does not speak RPC: close the connection.
    HangUp,
}

/// Runs one message.
pub(super) fn run(
    worker: &mut Worker,
    shared: &Shared,
    connection: &Connection,
    view: &Arc<View>,
    message: &[u8],
    lane: Lane,
) -> Verdict {
    worker.reply.clear();
    xdr::put_u32(&mut worker.reply, 0);
    let call = match rpc::decode_call(message) {
        Ok(call) => call,
        Err(Unusable::NotACall) => {
            Counters::count(&shared.counters.garbage);
            return Verdict::HangUp;
        }
        Err(Unusable::Answer(xid, refusal)) => return refuse(worker, shared, xid, refusal),
    };
    let verdict = match (connection.service, call.program, call.version) {
        (Service::Nfs, NFS_PROGRAM, V3) => nfs(worker, shared, view, &call, message, lane),
        (Service::Nfs, NFS_PROGRAM, _) => Err(Refusal::NoVersion(V3, V3)),
        (Service::Nfs, MOUNT_PROGRAM, 1 | V3) => mount::run(worker, shared, view, &call),
        (Service::Nfs, MOUNT_PROGRAM, _) => Err(Refusal::NoVersion(1, V3)),
        (Service::Nfs, ACL_PROGRAM, V3) => acl::run(worker, shared, view, &call, lane),
        (Service::Portmap, ..) => portmap::run(&mut worker.reply, &shared.ports, &shared.activity, view.peer, &call),
        _ => Err(Refusal::NoProgram),
    };
    verdict.unwrap_or_else(|refusal| refuse(worker, shared, call.xid, refusal))
}

fn refuse(worker: &mut Worker, shared: &Shared, xid: u32, refusal: Refusal) -> Verdict {
    Counters::count(&shared.counters.garbage);
    worker.reply.truncate(4);
    rpc::put_refusal(&mut worker.reply, xid, refusal);
    Verdict::Reply
}

fn nfs(
    worker: &mut Worker,
    shared: &Shared,
    view: &Arc<View>,
    call: &Call<'_>,
    message: &[u8],
    lane: Lane,
) -> Result<Verdict, Refusal> {
    let procedure = Procedure::from_number(call.procedure).ok_or(Refusal::NoProcedure)?;
    rpc::put_success(&mut worker.reply, call.xid);
    let Some((handle, args)) = args::decode(procedure, call.args).map_err(|_| Refusal::GarbageArgs)? else {
        return Ok(Verdict::Reply);
    };
    // WRITE and COMMIT wait for the disk as a rule. Nothing was done yet, so the check of access comes later.
    let sleeps =
        matches!(procedure, Procedure::Write | Procedure::Commit) || (shared.sync && procedure.must_run_once());
    let instant = matches!(procedure, Procedure::GetAttr | Procedure::Access | Procedure::Read);
    if (lane != Lane::MaySleep && sleeps) || (lane == Lane::Instant && !instant) {
        return Ok(Verdict::Defer);
    }
    let status = match permitted(worker, shared, view, &call.auth, handle, procedure, lane) {
        Err(status) => {
            fail(worker, procedure, status);
            status
        }
        Ok(op) if procedure.must_run_once() => {
            let request = Fingerprint {
                xid: call.xid,
                procedure,
                content: shared.key.hash(message.get(..FINGERPRINTED).unwrap_or(message)),
            };
            match shared.replies.begin(view.peer, request) {
                Seen::Running => return Ok(Verdict::Silent),
                Seen::Done(reply) => {
                    Counters::count(&shared.counters.replays);
                    op.worker.reply.truncate(4);
                    op.worker.reply.extend_from_slice(&reply);
                    return Ok(Verdict::Reply);
                }
                Seen::New => {}
            }
            let result = perform(op, procedure, &args);
            shared.replies.done(view.peer, &request, worker.reply.get(4..).unwrap_or_default());
            result.unwrap_or(Status::ServerFault)
        }
        Ok(op) => match perform(op, procedure, &args) {
            Some(status) => status,
            None => return Ok(Verdict::Defer),
        },
    };
    if status != Status::Ok {
        Counters::count(&shared.counters.failures);
    }
    Ok(Verdict::Reply)
}

/// Checks handle, access and identity.
pub(super) fn permitted<'a>(
    worker: &'a mut Worker,
    shared: &'a Shared,
    view: &'a View,
    auth: &Auth,
    handle: &[u8],
    procedure: Procedure,
    lane: Lane,
) -> Result<Op<'a>, Status> {
    let handle = shared.key.open(handle).map_err(|_| Status::BadHandle)?;
    let (grant, volume) = view.find(handle.export).map_err(|refused| {
        if let Refused::NotYours(entry) = &refused {
            shared.activity.refused(view.peer, &entry.export.name, || view.why_not(entry));
        }
        refused.status()
    })?;
    if handle.tag != volume.tag {
        return Err(Status::Stale);
    }
    let export = &grant.entry.export;
    if export.read_only && procedure.changes() {
        return Err(Status::RoFs);
    }
    let identity = Identity::new(auth, export.root == RootIs::Nobody);
    Ok(Op { shared, worker, grant, volume, identity, handle, lane, client: view.client() })
}

/// Runs a procedure and completes its reply; `None`: it has to wait for the disk and was not run.
fn perform(mut op: Op<'_>, procedure: Procedure, args: &Args<'_>) -> Option<Status> {
    let status = match ops::run(&mut op, args) {
        Ok(status) => status,
        Err(Stop::Defer) => return None,
        Err(Stop::Fail(status)) => {
            fail(op.worker, procedure, status);
            status
        }
    };
    if status == Status::Ok {
        let milestones = &op.grant.milestones;
        match args {
            Args::Read { .. } => milestones.reach(Milestone::FirstRead),
            Args::Lookup { name: b"init" | b"systemd" } => {
                milestones.reach(Milestone::Init);
                if op.grant.entry.export.read_only {
                    milestones.reach(Milestone::InitReadOnly);
                }
            }
            Args::Lookup { name: b"systemd-shutdown" | b"shutdown" | b"poweroff" | b"halt" | b"reboot" } => {
                milestones.shutdown();
            }
            _ if procedure.changes() => milestones.reach(Milestone::FirstWrite),
            _ => {}
        }
    }
    Some(status)
}

/// Makes the reply a failure without attributes, whatever it was becoming.
pub(super) fn fail(worker: &mut Worker, procedure: Procedure, status: Status) {
    worker.tail = None;
    worker.reply.truncate(RESULT_AT);
    xdr::put_u32(&mut worker.reply, status as u32);
    for _ in 0..procedure.absent_words() {
        xdr::put_u32(&mut worker.reply, 0);
    }
}
