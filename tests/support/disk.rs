//! A small disk of its own for the data directory, to be filled up or set read-only.

use std::path::PathBuf;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// An ext4 file system on a loop device, mounted where only this thread and the programs it starts see it: whatever
/// becomes of the test, the mount ends with it. Make it before the [`super::Router`].
pub struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    pub fn new(megabytes: u64) -> Self {
        // A thread that shares nothing: the test harness's other threads keep their view.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        // Nothing goes out to the machine; what is done here reaches the programs started from here.
        for flag in [MsFlags::MS_SLAVE, MsFlags::MS_SHARED] {
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | flag, None::<&str>).unwrap();
        }
        let disk = Self { dir: tempfile::tempdir().unwrap() };
        let file = disk.dir.path().join("disk.img");
        std::fs::File::create(&file).unwrap().set_len(megabytes << 20).unwrap();
        std::fs::create_dir(disk.path()).unwrap();
        run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-m", "0"]).arg(&file));
        disk.mount();
        disk
    }

    fn mount(&self) {
        let file = self.dir.path().join("disk.img");
        run(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(file).arg(self.path()));
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
        let check = Command::new("e2fsck").arg("-fy").arg(self.dir.path().join("disk.img")).output().unwrap();
        assert!(check.status.code() < Some(4), "{check:?}");
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(self.path()));
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
