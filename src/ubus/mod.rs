//! ubus, OpenWrt's message bus: the object `piboot` with the verbs of the API, events about devices, boots and jobs, and
//! what others tell there.
//!
//! All of it runs on one thread of its own, behind bounded channels: a broker that is slow, hangs or is not there at all
//! delays nobody. The wire format comes from crate `ubus-zero`; signatures, notifications and errors with words are ours.

mod ask;
mod connection;
mod handle;
pub mod message;
mod object;
mod requests;
mod session;
pub mod value;

pub use ask::ask;
pub use handle::{Handle, start};

use std::net::IpAddr;

use crate::pi::Mac;

/// Where OpenWrt's broker listens.
pub const SOCKET: &str = "/var/run/ubus/ubus.sock";

/// What others told on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The object `piboot` is there, for the first time or again.
    Connected,
    /// A configuration was committed (procd's notification `config.change`, which `reload_config` and LuCI bring about).
    ConfigChanged {
        /// Which.
        package: String,
    },
    /// An interface of netifd went up or down (event `network.interface`).
    Interface {
        /// netifd's name of it.
        name: String,
        /// Whether it is up now.
        up: bool,
    },
    /// dnsmasq confirmed a lease or saw it released.
    Lease {
        /// Who has it.
        mac: Mac,
        /// The address.
        ip: IpAddr,
        /// On which interface, the system's name.
        interface: String,
        /// Whether it was confirmed.
        present: bool,
    },
}

/// Why something over ubus did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UbusError {
    /// No thread for it.
    #[error("cannot start the ubus thread: {0}")]
    Thread(String),
    /// No broker.
    #[error("there is no connection to the ubus broker")]
    NotConnected,
    /// Too much waits for the broker already.
    #[error("too much waits for the ubus broker already")]
    Busy,
    /// It took too long.
    #[error("no answer over ubus in time")]
    Timeout,
    /// The other side's status.
    #[error("ubus status {0}")]
    Status(u32),
    /// The arguments or the answer cannot be carried over.
    #[error(transparent)]
    Value(#[from] value::ValueError),
}
