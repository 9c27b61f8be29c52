//! Any record on the NFS port or the portmapper's: the call header, and the arguments of what is served.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/nfs.rs"]
mod checks;

fuzz_target!(|input: &[u8]| {
    checks::rpc(input);
});
