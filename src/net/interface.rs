//! Network interfaces and their addresses.

use std::net::{IpAddr, Ipv4Addr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;

/// An interface on which Pis are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Device name, as in `br-lan`.
    pub name: String,
    /// Kernel index.
    pub index: u32,
    /// Its addresses, in the kernel's order, without link-local ones.
    pub addresses: Vec<IpAddr>,
}

impl Interface {
    /// The IPv4 address that Pis are told: the first one.
    #[must_use]
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.addresses.iter().find_map(|a| match a {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        })
    }
}

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// Neither a device nor a bridge of that network.
    #[error("there is no interface '{0}' (and no 'br-{0}'): 'ip link' lists them")]
    Unknown(String),
    /// The kernel would not list addresses.
    #[error("cannot list the addresses of '{0}': {1}")]
    Addresses(String, nix::Error),
}

/// Finds an interface by its name, or by what else OpenWrt may call its device: see [`candidates`].
///
/// # Errors
/// When there is none.
pub fn find(name: &str, device: Option<&str>) -> Result<Interface, InterfaceError> {
    let (name, index) = candidates(name, device)
        .find_map(|n| if_nametoindex(n.as_str()).ok().map(|index| (n, index)))
        .ok_or_else(|| InterfaceError::Unknown(name.to_owned()))?;
    let all = getifaddrs().map_err(|e| InterfaceError::Addresses(name.clone(), e))?;
    let addresses = all
        .filter(|a| a.interface_name == name)
        .filter_map(|a| {
            let address = a.address?;
            let v4 = address.as_sockaddr_in().map(|s| IpAddr::V4(s.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|s| IpAddr::V6(s.ip())))
        })
        .filter(|ip| match ip {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        })
        .collect();
    Ok(Interface { name, index, addresses })
}

/// What an interface of the configuration may be called in the system: its own name, the device that OpenWrt's network
/// configuration gives it, or the bridge that it has by default.
pub fn candidates(name: &str, device: Option<&str>) -> impl Iterator<Item = String> {
    [Some(name.to_owned()), device.map(str::to_owned), Some(format!("br-{name}"))].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_and_a_missing_one_is_named() {
        let lo = find("lo", None).unwrap();
        assert_eq!(lo.ipv4(), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(find("nosuchif", Some("lo")).unwrap().index, lo.index, "as the network configuration has it");
        assert!(find("nosuchif", None).unwrap_err().to_string().contains("no interface 'nosuchif'"));
    }
}
