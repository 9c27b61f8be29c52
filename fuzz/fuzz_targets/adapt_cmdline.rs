//! Any command line: one line comes out, with exactly one root, editing it again changes nothing, and whoever looks for what
//! would keep a Pi from its root finds nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use piboot::image::adapt::cmdline::{Root, edit};
use piboot::image::check;

fuzz_target!(|old: &str| {
    let nfs = "192.168.1.1:/lion/root";
    let of = check::For { model: None, server: [192, 168, 1, 1].into(), root_export: "/lion/root" };
    let ours = " ro ip=dhcp rootwait init=/usr/lib/piboot/ephemeral-init\n";
    for (root, end) in [(Root::Writable, " rw ip=dhcp rootwait\n"), (Root::Ephemeral, ours)] {
        let new = edit(old, nfs, root);
        assert_eq!(new.lines().count(), 1);
        assert!(new.ends_with(end) || new.starts_with("root=/dev/nfs "));
        assert_eq!(edit(&new, nfs, root), new);
        assert_eq!(check::command_line(Some(&new), &of), []);
    }
    // Nor does a look at the one that nobody edited fail.
    check::command_line(Some(old), &of);
});
