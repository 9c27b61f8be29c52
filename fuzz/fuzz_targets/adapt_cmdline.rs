//! Any command line: one line comes out, with exactly one root, and editing it again changes nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use piboot::image::adapt::cmdline::edit;

fuzz_target!(|old: &str| {
    let nfs = "192.168.1.1:/lion/root";
    let new = edit(old, nfs);
    assert_eq!(new.lines().count(), 1);
    assert!(new.ends_with(" rw ip=dhcp rootwait\n") || new.starts_with("root=/dev/nfs "));
    assert_eq!(edit(&new, nfs), new);
});
