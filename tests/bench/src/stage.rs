//! Where measurements take place: namespaces in which every server has the ports and directories it insists on, and one
//! CPU for all.

use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::unistd::Pid;

use crate::measure::Error;

/// Enters a network and a mount namespace of this program's own, gone with it; loopback is up.
pub fn enter_namespaces() -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .map_err(|errno| Error::new(format!("cannot make namespaces (run as root): {errno}")))?;
    // What is mounted here stays here.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    if !status.success() {
        return Err(Error::new("`ip link set lo up` failed"));
    }
    // Every Linux has this one and routers run nothing that costs more; the machine's own choice may pace each packet.
    Ok(std::fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "reno")?)
}

/// Puts an empty file system in memory over a directory.
pub fn mount_tmpfs(directory: &Path) -> Result<(), Error> {
    Ok(mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), None::<&str>)?)
}

/// Sets how nice this thread is to others: a client is a machine of its own in truth, which neither waits for the others'
/// CPUs nor takes the server's.
pub fn be_nice(value: i32) -> Result<(), Error> {
    // In Linux this is a thread's, and `None` is this one.
    Ok(rustix::process::setpriority_process(None, value)?)
}

/// Client and server share a CPU as long as this lives: between two, each packet would cost an inter-processor interrupt
/// or none, as idle states have it, and the CPU time of one and the same server would vary twofold.
pub struct OneCpu {
    before: CpuSet,
}

impl OneCpu {
    /// Keeps this thread, and the programs it starts from now on, on one CPU.
    pub fn stay() -> Result<Self, Error> {
        let before = sched_getaffinity(THIS_THREAD)?;
        let last = (0..CpuSet::count()).rev().find(|&cpu| before.is_set(cpu).unwrap_or(false));
        let mut one = CpuSet::new();
        one.set(last.unwrap_or(0))?;
        sched_setaffinity(THIS_THREAD, &one)?;
        Ok(Self { before })
    }
}

const THIS_THREAD: Pid = Pid::from_raw(0);

impl Drop for OneCpu {
    fn drop(&mut self) {
        // Fails only if the CPUs are gone.
        let _ = sched_setaffinity(THIS_THREAD, &self.before);
    }
}
