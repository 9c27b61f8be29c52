//! Lint of cmdline.txt: what a user's edit, or another tool's, makes of a command line that has to find an NFS root.

use std::net::Ipv4Addr;

use super::{Bearing, For, TreeProblem};

/// Options of `nfsroot=` that klibc's nfsmount, which the initramfs of Raspberry Pi OS uses, repeats "bad option" about
/// for ever (raspberrypi/documentation issue 3205; its table of options).
const REFUSED: [&str; 9] =
    ["proto", "mountport", "mountproto", "mountaddr", "mountvers", "sec", "local_lock", "lookupcache", "nconnect"];

pub(super) fn check(text: Option<&str>, of: &For<'_>, problems: &mut Vec<TreeProblem>) {
    let todo = format!(
        "have one line in cmdline.txt of the Pi's boot files, with these words in it: root=/dev/nfs nfsroot={}:{},vers=3,tcp rw ip=dhcp",
        of.server, of.root_export
    );
    let mut add = |id, bearing, text: String| problems.push(TreeProblem { id, bearing, text, todo: todo.clone() });
    let Some(text) = text else {
        add(
            "cmdline-missing",
            Bearing::Root,
            "there is no cmdline.txt: the kernel is not told where its root is".to_owned(),
        );
        return;
    };
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    if lines.any(|line| !line.trim().is_empty()) {
        let text =
            "cmdline.txt has more than one line: the firmware reads the first and leaves the others out".to_owned();
        add("cmdline-lines", Bearing::Spoils, text);
    }
    // The last of several counts, as for the kernel.
    let value = |key: &str| {
        let words = first.split_ascii_whitespace().rev();
        words.filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')).next()
    };
    // dracut has words of its own for it (dracut.cmdline(7)).
    let roots = [value("root"), value("netroot")].into_iter().flatten();
    if roots.filter(|root| root.starts_with("nfs")).any(|root| root.contains(of.root_export)) {
        return;
    }
    let over_nfs = value("root") == Some("/dev/nfs") || value("boot") == Some("nfs");
    let Some(nfsroot) = value("nfsroot").filter(|_| over_nfs) else {
        let root = value("root").unwrap_or("nothing");
        let text = format!("cmdline.txt names {root} as the root, not the NFS export {}", of.root_export);
        add("cmdline-root", Bearing::Root, text);
        return;
    };
    let (place, options) = nfsroot.split_once(',').unwrap_or((nfsroot, ""));
    let (server, export) = place.split_once(':').map_or((None, place), |(server, export)| (Some(server), export));
    match server.map(str::parse::<Ipv4Addr>) {
        Some(Ok(server)) if server == of.server => {}
        Some(_) => {
            let named = server.unwrap_or_default();
            let text = format!("cmdline.txt has the Pi ask {named} for its root; this router is {}", of.server);
            add("cmdline-server", Bearing::Root, text);
        }
        None => {
            let text = format!(
                "cmdline.txt names no server in 'nfsroot=': write nfsroot={}:{},vers=3,tcp",
                of.server, of.root_export
            );
            add("cmdline-server", Bearing::Root, text);
        }
    }
    if export.trim_end_matches('/') != of.root_export {
        let text = format!("cmdline.txt has the Pi ask for {export}; its own root is {}", of.root_export);
        add("cmdline-export", Bearing::Root, text);
    }
    if let Some(bad) = options.split(',').find(|option| is_refused(option)) {
        let text = format!(
            "cmdline.txt has the option '{bad}' in 'nfsroot=': the initramfs does not know it and says \"bad option\" for ever"
        );
        add("cmdline-option", Bearing::Root, text);
    }
}

fn is_refused(option: &str) -> bool {
    let (key, value) = option.split_once('=').unwrap_or((option, ""));
    match key {
        "vers" | "nfsvers" => value != "3" && value != "2",
        // They are flags there, and take no value.
        "nolock" | "lock" | "tcp" | "udp" | "soft" | "hard" => !value.is_empty(),
        _ => REFUSED.contains(&key),
    }
}
