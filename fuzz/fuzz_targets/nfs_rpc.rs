//! Any record on the NFS port: the call header, and for NFS, MOUNT and portmap calls their arguments.

#![no_main]

use libfuzzer_sys::fuzz_target;
use piboot::nfs::proto::{MOUNT_PROGRAM, NFS_PROGRAM, Procedure};
use piboot::nfs::rpc::{Auth, MAX_GROUPS, decode_call};
use piboot::nfs::{args, mount, portmap};

fuzz_target!(|record: &[u8]| {
    let Ok(call) = decode_call(record) else { return };
    if let Auth::Sys(sys) = call.auth {
        assert!(sys.groups().len() <= MAX_GROUPS);
    }
    assert!(record.ends_with(call.args));
    match call.program {
        NFS_PROGRAM => {
            if let Some(procedure) = Procedure::from_number(call.procedure) {
                let _ = args::decode(procedure, call.args);
            }
        }
        MOUNT_PROGRAM => {
            let _ = mount::decode(call.version, call.procedure, call.args);
        }
        portmap::PORTMAP_PROGRAM => {
            let _ = portmap::decode(call.procedure, call.args);
        }
        _ => {}
    }
});
