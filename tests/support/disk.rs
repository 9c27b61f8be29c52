//! A small disk of its own for the data directory, to be filled up or set read-only.

use std::path::PathBuf;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// An ext4 file system on a loop device, mounted where only this thread and the programs it starts see it: whatever
/// becomes of the test, the mount ends with it. Make it before the [`super::Router`].
pub struct Disk {
    dir: tempfile::TempDir,
    kind: &'static str,
}

impl Disk {
    pub fn new(megabytes: u64) -> Self {
        Self::of("ext4", megabytes)
    }

    /// The same with another file system: `xfs` or `btrfs`, whose files can share blocks.
    pub fn of(kind: &'static str, megabytes: u64) -> Self {
        // A thread that shares nothing: the test harness's other threads keep their view.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        // Nothing goes out to the machine; what is done here reaches the programs started from here.
        for flag in [MsFlags::MS_SLAVE, MsFlags::MS_SHARED] {
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | flag, None::<&str>).unwrap();
        }
        let disk = Self { dir: tempfile::tempdir().unwrap(), kind };
        std::fs::create_dir(disk.path()).unwrap();
        disk.make("disk", megabytes);
        disk.mount("disk");
        disk
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.img"))
    }

    /// Makes a file system for [`Disk::mount`].
    pub fn make(&self, name: &str, megabytes: u64) {
        std::fs::File::create(self.file(name)).unwrap().set_len(megabytes << 20).unwrap();
        let (program, options) = match self.kind {
            "ext4" => ("mke2fs", &["-q", "-t", "ext4", "-m", "0"][..]),
            "xfs" => ("mkfs.xfs", &["-q", "-m", "reflink=1"][..]),
            _ => ("mkfs.btrfs", &["-q"][..]),
        };
        run(Command::new(program).args(options).arg(self.file(name)));
    }

    /// Mounts one of them; the first is called `disk`.
    pub fn mount(&self, name: &str) {
        let options = if self.kind == "ext4" { "loop,errors=remount-ro" } else { "loop" };
        run(Command::new("mount").args(["-o", options]).arg(self.file(name)).arg(self.path()));
    }

    /// Bytes free once everything is on the disk.
    pub fn free(&self) -> u64 {
        rustix::fs::syncfs(std::fs::File::open(self.path()).unwrap()).unwrap();
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        stat.f_bfree * stat.f_frsize
    }

    /// Takes it away from whoever uses it.
    pub fn unmount(&self) {
        run(Command::new("umount").arg("--lazy").arg(self.path()));
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("ssd")
    }

    /// Leaves only so many megabytes free.
    pub fn fill(&self, leave: u64) {
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        let size = (stat.f_bavail * stat.f_frsize).saturating_sub(leave << 20);
        let ballast = std::fs::File::create(self.path().join(format!("ballast-{leave}"))).unwrap();
        rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, size).unwrap();
    }

    /// Takes back every [`Disk::fill`].
    pub fn make_room(&self) {
        for path in std::fs::read_dir(self.path()).unwrap().map(|e| e.unwrap().path()) {
            if path.to_string_lossy().contains("ballast-") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }

    /// Has the kernel find an error: from then on it writes nothing more.
    pub fn break_down(&self) {
        let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let path = self.path();
        let line = mounts.lines().find(|l| l.split(' ').nth(1) == path.to_str()).unwrap();
        let device = line.split(' ').next().unwrap().trim_start_matches("/dev/");
        std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test").unwrap();
    }

    /// Checks it and mounts it anew. Nobody may be using it.
    pub fn repair(&self) {
        run(Command::new("umount").arg(self.path()));
        // Its status tells of errors mended.
        let check = Command::new("e2fsck").arg("-fy").arg(self.file("disk")).output().unwrap();
        assert!(check.status.code() < Some(4), "{check:?}");
        self.mount("disk");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may be away.
        let _ = Command::new("umount").args(["--lazy", "--quiet"]).arg(self.path()).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
