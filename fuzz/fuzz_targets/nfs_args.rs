//! The arguments of every NFSv3 procedure: the first byte chooses it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use piboot::nfs::args::{Args, decode};
use piboot::nfs::proto::{MAX_HANDLE, MAX_PATH, Procedure};

fuzz_target!(|input: &[u8]| {
    let Some((number, bytes)) = input.split_first() else { return };
    let Some(procedure) = Procedure::from_number(u32::from(*number) % 22) else { return };
    let Ok(Some((handle, args))) = decode(procedure, bytes) else { return };
    assert!(handle.len() <= MAX_HANDLE);
    match args {
        Args::Lookup { name } | Args::Remove { name } | Args::RmDir { name } => assert!(name.len() <= MAX_PATH),
        Args::Write { data, .. } => assert!(data.len() < bytes.len()),
        Args::SymLink { target, .. } => assert!(target.len() <= MAX_PATH),
        Args::Rename { to_dir, .. } | Args::Link { dir: to_dir, .. } => assert!(to_dir.len() <= MAX_HANDLE),
        _ => {}
    }
});
