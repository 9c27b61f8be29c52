//! A file system that looks like a router's, to whoever is in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use emupi::lab::{Net, Process};

/// Lays the directories of `$1` over the machine's own, in a mount namespace that lives as long as this process.
/// As on a router, /var is /tmp. The program under test, `$2`, may lie below a directory that is hidden here.
const LAY_OUT: &str = r#"set -e
mount --make-rprivate /
mount --bind "$1" /mnt
mount -t overlay -o "lowerdir=$1/sbin:/usr/sbin" overlay /usr/sbin
mount -t overlay -o "lowerdir=$1/etc:/etc" overlay /etc
mount --bind "$1/etc/dnsmasq.conf" /etc/dnsmasq.conf
mount --bind "$1/config" /etc/config
mount --bind "$1/keys" /etc/piboot
mount --bind "$2" /usr/sbin/piboot
mount --bind "$1/tmp/run" /run
mount --bind "$1/tmp" /var
mount --bind /mnt/tmp /tmp
# What a test makes in its scratch directory has the same path inside.
mkdir -p "$1"
mount --bind /mnt "$1"
umount /mnt
mount --bind "$1/mnt" /mnt
echo laid out
exec sleep infinity
"#;

/// The network and mount namespace of a router.
#[derive(Debug)]
pub struct Namespace {
    /// It is gone when this process is.
    holder: Process,
}

impl Namespace {
    /// A namespace with the router's network and the directories below `root`.
    pub fn new(net: &Net, root: &Path) -> Self {
        let mut command = net.command("unshare");
        command.args(["--mount", "sh", "-c", LAY_OUT, "sh"]).arg(root).arg(super::PIBOOT);
        let holder = net.spawn("the router's file system", command).unwrap();
        holder.wait_line("laid out", super::PATIENCE).unwrap();
        Self { holder }
    }

    /// A way in that outlives a borrow.
    pub fn entrance(&self) -> Entrance {
        Entrance { pid: self.holder.pid() }
    }
}

/// The way into a [`Namespace`].
#[derive(Debug, Clone, Copy)]
pub struct Entrance {
    pid: u32,
}

impl Entrance {
    /// A command that will run inside. The process that is started becomes the program: its id is the program's.
    pub fn command(self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--net", "--target", &self.pid.to_string(), "--", program]);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Runs a program inside.
    pub fn output(self, program: &str, args: &[&str]) -> Output {
        self.command(program).args(args).output().unwrap()
    }

    /// What a program prints; it must succeed.
    #[track_caller]
    pub fn run(self, program: &str, args: &[&str]) -> String {
        let output = self.output(program, args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{program} {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// A path of the router, as it is reached from outside.
    pub fn outside(self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }
}
