//! A machine on the LAN with the kernel's own network stack.

use super::{LabError, Net, in_netns, remove_netns, run};
use crate::frame::Mac;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;

/// A namespace with one cable to the bridge, an Ethernet address and an IPv4 address. Removed when dropped.
#[derive(Debug)]
pub struct Host {
    ns: String,
}

impl Net {
    /// Adds a machine to the LAN.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn add_host(&self, mac: Mac, address: Ipv4Addr) -> Result<Host, LabError> {
        let number = self.cables.fetch_add(1, Ordering::Relaxed);
        let (router, here) = (self.router_ns(), format!("veth{number}"));
        let ns = format!("{}-h{number}", self.name);
        run("ip", &["netns", "add", &ns])?;
        let host = Host { ns };
        let ns = host.ns.as_str();
        run("ip", &["-n", ns, "link", "set", "lo", "up"])?;
        run("ip", &["-n", &router, "link", "add", &here, "type", "veth", "peer", "name", "eth0", "netns", ns])?;
        run("ip", &["-n", ns, "link", "set", "eth0", "address", &mac.to_string(), "up"])?;
        run("ip", &["-n", ns, "addr", "add", &format!("{address}/{}", self.prefix_len), "dev", "eth0"])?;
        self.plug(&here)?;
        Ok(host)
    }
}

impl Host {
    /// Runs a closure on a thread inside the host's namespace; sockets it opens stay there.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        in_netns(&self.ns, work)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        remove_netns(&self.ns);
    }
}
