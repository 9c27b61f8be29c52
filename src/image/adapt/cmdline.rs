//! Rule `cmdline`: the kernel's command line mounts the root over NFS instead of from the SD card.

use super::editor::{Editor, Side};
use super::{AdaptError, ephemeral};

const PATH: &str = "cmdline.txt";
/// What Raspberry Pi OS writes when there is none.
const DEFAULT: &str = "console=serial0,115200 console=tty1";

pub(super) fn apply(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    let old = editor.text(Side::Boot, PATH)?.unwrap_or_else(|| DEFAULT.to_owned());
    let root = if editor.target.ephemeral { Root::Ephemeral } else { Root::Writable };
    let new = edit(&old, &format!("{}:{}", editor.server, editor.target.root_export), root);
    let what = match root {
        Root::Writable => "root over NFS instead of the SD card; nothing resizes or checks a partition",
        Root::Ephemeral => "root over NFS instead of the SD card, read-only; what is changed is kept in memory",
    };
    editor.write(Side::Boot, PATH, &new, what)
}

/// What the Pi may do with its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// Write to it.
    Writable,
    /// Read it, and keep what it changes in memory.
    Ephemeral,
}

/// Options for a root that does not change while it is mounted: what was once asked for need not be asked again for ten
/// minutes, or when a file is opened (nfs(5)). nfsmount knows these and not `actimeo`.
const UNCHANGING: &str = ",nocto,acregmin=600,acregmax=600,acdirmin=600,acdirmax=600";

/// The command line with its root at `nfs` (`address:/export`). Only the first line counts, as for the firmware.
///
/// `vers=3,tcp` is what both the initramfs's klibc nfsmount and the kernel's own client understand; nfsmount loops
/// for ever on `proto=` (raspberrypi/documentation issue 3205). Without sizes the kernel's own mount would read 4 KiB at a
/// time (fs/nfs/nfsroot.c); with these both take what the server offers.
#[must_use]
pub fn edit(old: &str, nfs: &str, root: Root) -> String {
    let mut first = old.lines().next().unwrap_or_default().to_owned();
    // A quote that is never closed would swallow what follows, our root among it.
    if first.matches('"').count() % 2 == 1
        && let Some(last) = first.rfind('"')
    {
        first.remove(last);
    }
    let words = split(&first);
    // Imager's first-run script would reboot into a target that does nothing else.
    let first_run = words.iter().any(|word| word.starts_with("systemd.run=") && word.contains("firstrun.sh"));
    let kept = words.into_iter().filter(|word| !is_dropped(word, first_run));
    let mut kept: Vec<String> = kept.map(|word| for_init(word, root)).collect();
    let (more, mode) = if root == Root::Ephemeral { (UNCHANGING, "ro") } else { ("", "rw") };
    let nfsroot = format!("nfsroot={nfs},vers=3,tcp,rsize=1048576,wsize=1048576{more}");
    kept.extend(["root=/dev/nfs", &nfsroot, mode, "ip=dhcp", "rootwait"].map(str::to_owned));
    if root == Root::Ephemeral {
        kept.push(format!("init={}", ephemeral::INIT));
    }
    kept.join(" ") + "\n"
}

/// An init of the user's own comes after ours.
fn for_init(word: &str, root: Root) -> String {
    let (from, to) = match root {
        Root::Ephemeral => ("init", ephemeral::REAL_INIT),
        Root::Writable => (ephemeral::REAL_INIT, "init"),
    };
    match word.split_once('=') {
        Some((key, program)) if key == from => format!("{to}={program}"),
        _ => word.to_owned(),
    }
}

fn is_dropped(word: &str, first_run: bool) -> bool {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    match key {
        "root" | "rootfstype" | "rootflags" | "rootdelay" | "rootwait" | "nfsroot" | "ip" | "ro" | "rw"
        | "fsck.repair" | "fsck.mode" | "resize" => true,
        // Programs that work on the SD card's partitions and reboot; an init= of the user's own stays.
        "init" | ephemeral::REAL_INIT => {
            value == ephemeral::INIT || value.ends_with("/firstboot") || value.contains("init_resize")
        }
        "systemd.run" | "systemd.run_success_action" | "systemd.run_failure_action" => first_run,
        "systemd.unit" => first_run && value == "kernel-command-line.target",
        _ => false,
    }
}

/// Words separated by blanks; double quotes hold a word together (kernel-parameters.rst).
fn split(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        if c == '"' {
            quoted = !quoted;
        }
        match (start, c.is_ascii_whitespace() && !quoted) {
            (None, false) => start = Some(at),
            (Some(begin), true) => {
                words.push(&line[begin..at]);
                start = None;
            }
            _ => {}
        }
    }
    words.extend(start.map(|begin| &line[begin..]));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const NFS: &str = "192.168.1.1:/lion/root";
    const ROOT: &str =
        "root=/dev/nfs nfsroot=192.168.1.1:/lion/root,vers=3,tcp,rsize=1048576,wsize=1048576 rw ip=dhcp rootwait\n";

    #[test]
    fn bookworm_loses_its_partition_and_first_boot() {
        let old = "console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 fsck.repair=yes rootwait quiet init=/usr/lib/raspberrypi-sys-mods/firstboot\n";
        assert_eq!(edit(old, NFS, Root::Writable), format!("console=serial0,115200 console=tty1 quiet {ROOT}"));
    }

    #[test]
    fn trixie_loses_its_resize() {
        let old = "console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 fsck.repair=yes rootwait resize ds=nocloud;i=rpi\n";
        assert_eq!(
            edit(old, NFS, Root::Writable),
            format!("console=serial0,115200 console=tty1 ds=nocloud;i=rpi {ROOT}")
        );
    }

    #[test]
    fn imagers_first_run_goes_and_a_users_own_words_stay() {
        let old = "console=tty1 systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target";
        assert_eq!(edit(old, NFS, Root::Writable), format!("console=tty1 {ROOT}"));
        let own = "systemd.unit=rescue.target init=/bin/bash foo=\"root=a b\" resized";
        assert_eq!(edit(own, NFS, Root::Writable), format!("{own} {ROOT}"));
    }

    #[test]
    fn twice_is_once_and_the_address_follows() {
        let once = edit("console=tty1 root=/dev/mmcblk0p2", NFS, Root::Writable);
        assert_eq!(edit(&once, NFS, Root::Writable), once);
        assert_eq!(edit(&once, "10.0.0.1:/x", Root::Writable), once.replace(NFS, "10.0.0.1:/x"));
        let open = edit("a=\"b c\" d=\"e f", NFS, Root::Writable);
        assert_eq!(open, format!("a=\"b c\" d=e f {ROOT}"));
        assert_eq!(edit("", NFS, Root::Writable), ROOT);
        assert_eq!(edit("a\nb", NFS, Root::Writable), format!("a {ROOT}"));
    }

    #[test]
    fn an_ephemeral_root_is_read_only_and_begins_with_our_init() {
        let root = "root=/dev/nfs nfsroot=192.168.1.1:/lion/root,vers=3,tcp,rsize=1048576,wsize=1048576,nocto,acregmin=600,acregmax=600,acdirmin=600,acdirmax=600 ro ip=dhcp rootwait init=/usr/lib/piboot/ephemeral-init\n";
        let old = "console=tty1 rw root=PARTUUID=4e639091-02 init=/usr/lib/raspberrypi-sys-mods/firstboot";
        let once = edit(old, NFS, Root::Ephemeral);
        assert_eq!(once, format!("console=tty1 {root}"));
        assert_eq!(edit(&once, NFS, Root::Ephemeral), once);
        assert_eq!(edit(&once, NFS, Root::Writable), format!("console=tty1 {ROOT}"), "made from one that was");
        let own = edit("quiet init=/bin/bash", NFS, Root::Ephemeral);
        assert_eq!(own, format!("quiet piboot.init=/bin/bash {root}"));
        assert_eq!(edit(&own, NFS, Root::Ephemeral), own);
        assert_eq!(edit(&own, NFS, Root::Writable), format!("quiet init=/bin/bash {ROOT}"));
    }
}
