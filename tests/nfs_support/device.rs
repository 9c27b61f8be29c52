//! A device that calls procedures by number.

use nfs3_types::mount::{dirpath, mountres3, mountres3_ok};
use nfs3_types::nfs3::{self, Nfs3Result, nfs_fh3};
use nfs3_types::rpc::opaque_auth;
use nfs3_types::xdr_codec::{Opaque, Unpack};

use super::calls::{About, MOUNT, NFS, encoded, nfs_args};
use super::{Raw, auth, fh};

/// A device: its connection and the handle of its root.
pub(crate) struct Device {
    pub(crate) wire: Raw,
    pub(crate) xid: u32,
    pub(crate) caller: opaque_auth<'static>,
    pub(crate) root: nfs_fh3,
}

impl Device {
    /// Root, over this connection, with nothing mounted yet.
    pub(crate) fn new(wire: Raw) -> Self {
        Self { wire, xid: 0, caller: auth(0, 0, &[]), root: fh(&[]) }
    }

    /// The result of a call that is carried out, from its status on.
    pub(crate) fn call(&mut self, program: u32, procedure: u32, args: &[u8]) -> Vec<u8> {
        self.xid += 1;
        let message = Raw::message_of(&self.caller, [self.xid, program, 3, procedure], args);
        let reply = self.wire.ask(&message).unwrap();
        assert_eq!(reply[4..24], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "a result");
        reply[24..].to_vec()
    }

    /// The status of an NFS procedure.
    pub(crate) fn status(&mut self, procedure: u32, args: &[u8]) -> u32 {
        word(&self.call(NFS, procedure, args))
    }

    pub(crate) fn mnt(&mut self, path: &[u8]) -> Result<nfs_fh3, u32> {
        let result = self.call(MOUNT, 1, &encoded(&dirpath(Opaque::borrowed(path))));
        match mountres3::unpack(&mut &result[..]).unwrap().0 {
            mountres3::Ok(mountres3_ok { fhandle, .. }) => Ok(fh(&fhandle.0)),
            mountres3::Err(status) => Err(status as u32),
        }
    }

    pub(crate) fn lookup(&mut self, dir: &nfs_fh3, name: &[u8]) -> Result<nfs_fh3, u32> {
        let result = self.call(NFS, 3, &nfs_args(3, &About { object: dir, other: dir, name, new: b"" }));
        match nfs3::LOOKUP3res::unpack(&mut &result[..]).unwrap().0 {
            Nfs3Result::Ok(ok) => Ok(ok.object),
            Nfs3Result::Err((status, _)) => Err(status as u32),
        }
    }
}

pub(crate) fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(*bytes.first_chunk().unwrap())
}
