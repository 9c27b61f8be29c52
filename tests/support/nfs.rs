//! A machine's view of the agent's NFS, through a client that shares no code with it.

use emupi::lab::Host;
use nfs3_client::Nfs3ConnectionBuilder;
use nfs3_client::nfs3_types::nfs3::{GETATTR3args, GETATTR3res};
use nfs3_client::nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_client::nfs3_types::xdr_codec::Opaque;
use nfs3_client::tokio::TokioConnector;

use super::PATIENCE;

const SERVER: &str = "10.77.0.1";

/// Mounts an export; then calls `meanwhile` and asks for the root's attributes once more.
///
/// # Errors
/// Says which of the two steps was refused, and how.
pub fn use_export(host: &Host, export: &str, meanwhile: impl FnOnce() + Send) -> Result<(), String> {
    let credential = opaque_auth::auth_unix(&auth_unix {
        stamp: 1,
        machinename: Opaque::borrowed(b"test"),
        uid: 0,
        gid: 0,
        gids: vec![],
    });
    let talk = async move {
        let builder = Nfs3ConnectionBuilder::new(TokioConnector, SERVER, export).credential(credential);
        let mut connection = builder.mount().await.map_err(|e| format!("mount: {e}"))?;
        meanwhile();
        let object = connection.root_nfs_fh3();
        match connection.getattr(&GETATTR3args { object }).await {
            Ok(GETATTR3res::Ok(_)) => Ok(()),
            Ok(GETATTR3res::Err((status, _))) => Err(format!("getattr: {status:?}")),
            Err(error) => Err(format!("getattr: {error}")),
        }
    };
    host.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(PATIENCE, talk).await.unwrap() })
    })
    .unwrap()
}
