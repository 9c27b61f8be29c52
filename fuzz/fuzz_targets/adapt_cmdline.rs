//! Any command line: one line comes out, with exactly one root, editing it again changes nothing, and whoever looks for what
//! would keep a Pi from its root finds nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use piboot::image::adapt::cmdline::edit;
use piboot::image::check;

fuzz_target!(|old: &str| {
    let nfs = "192.168.1.1:/lion/root";
    let new = edit(old, nfs);
    assert_eq!(new.lines().count(), 1);
    assert!(new.ends_with(" rw ip=dhcp rootwait\n") || new.starts_with("root=/dev/nfs "));
    assert_eq!(edit(&new, nfs), new);
    let of = check::For { model: None, server: [192, 168, 1, 1].into(), root_export: "/lion/root" };
    assert_eq!(check::command_line(Some(&new), &of), []);
    // Nor does a look at the one that nobody edited fail.
    check::command_line(Some(old), &of);
});
