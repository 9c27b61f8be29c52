//! Commands about snapshots of Pis, and Pis that begin as another.

use super::{await_job, devices, shown};
use crate::api::types::{
    DeviceCloneRequest, IdRequest, Removed, RollbackRequest, SnapshotRemoveRequest, SnapshotRequest, SnapshotStarted,
    Snapshots, Started,
};
use crate::cli::args::{CloneDevice, Rollback, SnapshotCommand};
use crate::cli::client::Client;
use crate::cli::{CliError, show};

pub(super) fn clone(clone: CloneDevice, client: &Client) -> Result<(), CliError> {
    let CloneDevice { from, snapshot, mac, serial, hostname, ip, ssh_key, root, no_wait } = clone;
    let request = DeviceCloneRequest { from, snapshot, mac, serial, hostname, ip, ssh_keys: ssh_key, root };
    devices::enrolled(client, client.call("device_clone", request)?, no_wait)
}

pub(super) fn list(id: String, client: &Client, now_ms: i64) -> Result<(), CliError> {
    shown(client.ask::<Snapshots>("snapshots", IdRequest { id })?, |s| show::snapshots(&s, now_ms))
}

pub(super) fn snapshot(command: SnapshotCommand, client: &Client) -> Result<(), CliError> {
    match command {
        SnapshotCommand::Take(take) => {
            let request = SnapshotRequest { id: take.id, name: take.name };
            let Some(started) = client.ask::<SnapshotStarted>("snapshot", request)? else { return Ok(()) };
            await_job(client, Some(started.job), take.no_wait)
        }
        SnapshotCommand::Remove(remove) => {
            let request = SnapshotRemoveRequest { id: remove.id, snapshot: remove.snapshot };
            let Some(removed) = client.ask::<Removed>("snapshot_remove", request)? else { return Ok(()) };
            await_job(client, removed.job, false)
        }
    }
}

pub(super) fn rollback(rollback: Rollback, client: &Client) -> Result<(), CliError> {
    let request = RollbackRequest { id: rollback.id, snapshot: rollback.snapshot, discard: rollback.discard };
    let Some(started) = client.ask::<Started>("rollback", request)? else { return Ok(()) };
    await_job(client, Some(started.job), rollback.no_wait)
}
