//! Rule `cmdline`: the kernel's command line mounts the root over NFS instead of from the SD card.

use super::AdaptError;
use super::editor::{Editor, Side};

const PATH: &str = "cmdline.txt";
/// What Raspberry Pi OS writes when there is none.
const DEFAULT: &str = "console=serial0,115200 console=tty1";

pub(super) fn apply(editor: &mut Editor<'_>) -> Result<(), AdaptError> {
    let old = editor.text(Side::Boot, PATH)?.unwrap_or_else(|| DEFAULT.to_owned());
    let new = edit(&old, &format!("{}:{}", editor.server, editor.target.root_export));
    editor.write(Side::Boot, PATH, &new, "root over NFS instead of the SD card; nothing resizes or checks a partition")
}

/// The command line with its root at `nfs` (`address:/export`). Only the first line counts, as for the firmware.
///
/// `vers=3,tcp` is what both the initramfs's klibc nfsmount and the kernel's own client understand; nfsmount loops
/// for ever on `proto=` (raspberrypi/documentation issue 3205). Without sizes the kernel's own mount would read 4 KiB at a
/// time (fs/nfs/nfsroot.c); with these both take what the server offers.
#[must_use]
pub fn edit(old: &str, nfs: &str) -> String {
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
    let mut kept: Vec<&str> = words.into_iter().filter(|word| !is_dropped(word, first_run)).collect();
    let nfsroot = format!("nfsroot={nfs},vers=3,tcp,rsize=1048576,wsize=1048576");
    kept.extend(["root=/dev/nfs", &nfsroot, "rw", "ip=dhcp", "rootwait"]);
    kept.join(" ") + "\n"
}

fn is_dropped(word: &str, first_run: bool) -> bool {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    match key {
        "root" | "rootfstype" | "rootflags" | "rootdelay" | "rootwait" | "nfsroot" | "ip" | "ro" | "rw"
        | "fsck.repair" | "fsck.mode" | "resize" => true,
        // Programs that work on the SD card's partitions and reboot; an init= of the user's own stays.
        "init" => value.ends_with("/firstboot") || value.contains("init_resize"),
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
        assert_eq!(edit(old, NFS), format!("console=serial0,115200 console=tty1 quiet {ROOT}"));
    }

    #[test]
    fn trixie_loses_its_resize() {
        let old = "console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 fsck.repair=yes rootwait resize ds=nocloud;i=rpi\n";
        assert_eq!(edit(old, NFS), format!("console=serial0,115200 console=tty1 ds=nocloud;i=rpi {ROOT}"));
    }

    #[test]
    fn imagers_first_run_goes_and_a_users_own_words_stay() {
        let old = "console=tty1 systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target";
        assert_eq!(edit(old, NFS), format!("console=tty1 {ROOT}"));
        let own = "systemd.unit=rescue.target init=/bin/bash foo=\"root=a b\" resized";
        assert_eq!(edit(own, NFS), format!("{own} {ROOT}"));
    }

    #[test]
    fn twice_is_once_and_the_address_follows() {
        let once = edit("console=tty1 root=/dev/mmcblk0p2", NFS);
        assert_eq!(edit(&once, NFS), once);
        assert_eq!(edit(&once, "10.0.0.1:/x"), once.replace(NFS, "10.0.0.1:/x"));
        let open = edit("a=\"b c\" d=\"e f", NFS);
        assert_eq!(open, format!("a=\"b c\" d=e f {ROOT}"));
        assert_eq!(edit("", NFS), ROOT);
        assert_eq!(edit("a\nb", NFS), format!("a {ROOT}"));
    }
}
