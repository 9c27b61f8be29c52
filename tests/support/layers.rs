//! Routers whose devices have roots by overlay.

use std::fs;
use std::path::PathBuf;

use emupi::Pi;
use emupi::lab::Host;

use super::Router;
use super::disk::Disk;

/// A router whose agent's mounts are seen here, and outlive it.
pub fn on_disk(disk: &Disk) -> Router {
    let mut router = Router::with_data_dir(disk.path().join("piboot"));
    router.start_agent_here();
    router
}

pub fn enroll(router: &Router, mac: &str, hostname: &str, image: &str, more: &[&str]) -> Result<String, String> {
    router.piboot(&[&["enroll", "--mac", mac, "--hostname", hostname, "--image", image], more].concat())
}

pub fn over(router: &Router, pi: &Pi, hostname: &str, image: &str) {
    let said = enroll(router, &pi.mac.to_string(), hostname, image, &["--root", "overlay"]);
    let said = said.unwrap_or_else(|said| panic!("{said}\n{}", router.logs()));
    assert!(said.contains(&format!("{hostname} boots from an overlay of {image}")), "{said}");
}

pub fn root(router: &Router, id: &str, path: &str) -> PathBuf {
    router.data_dir().join("devices").join(id).join("root").join(path)
}

pub fn read(router: &Router, id: &str, path: &str) -> String {
    fs::read_to_string(root(router, id, path)).unwrap_or_else(|error| format!("{path}: {error}"))
}

/// Where layers are mounted.
pub fn mounted() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    let points = mounts.lines().filter(|line| line.starts_with("piboot ")).map(|line| line.split(' ').nth(1).unwrap());
    points.map(str::to_owned).collect()
}

/// Has the kernel forget what it can: what it says afterwards is what the disk says.
pub fn forget() {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

/// A Pi that has its address, and may ask.
pub fn host(router: &Router, pi: &Pi) -> Host {
    router.wait_for_dnsmasq();
    let booted = emupi::boot(pi, &router.net.tap_link().unwrap(), &super::hurried(), None).unwrap();
    router.net.add_host(pi.mac, booted.ip.unwrap()).unwrap()
}
