//! A machine's view of the agent's NFS and TFTP, through clients that share no code with it.

use std::net::UdpSocket;

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

/// Asks for a file by TFTP (RFC 1350): the opcode of the first answer, and the error code or block number after it.
pub fn first_answer(host: &Host, name: &str) -> (u16, u16) {
    host.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(format!("\0\x01{name}\0octet\0").as_bytes(), (SERVER, 69)).unwrap();
        let mut answer = [0; 600];
        let (_, peer) = socket.recv_from(&mut answer).unwrap();
        if answer[1] == 3 {
            // No wish for the rest: end it properly.
            socket.send_to(b"\0\x05\0\0enough\0", peer).unwrap();
        }
        (u16::from_be_bytes([answer[0], answer[1]]), u16::from_be_bytes([answer[2], answer[3]]))
    })
    .unwrap()
}
