//! The read-only TFTP server that Pis fetch their firmware and kernels from.
//!
//! One thread serves every transfer from an epoll loop; a transfer is a connected socket, an open file and a small
//! state machine. [`wire`] knows the packets, [`transfer`] the protocol, [`tree`] whose file a name means, [`open`] how
//! to get at it without leaving its tree.

mod blocks;
mod guard;
pub mod open;
mod slots;
mod socket;
pub mod transfer;
pub mod tree;
pub mod wire;
mod worker;

#[cfg(test)]
mod simulation;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::events::Sink;
use crate::net::AddressBook;
pub use tree::{Device, Routes};

/// The port of TFTP (RFC 1350 §4).
pub const PORT: u16 = 69;

/// What to listen on, and how much to give.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Addresses to listen on; a family that the kernel does not have is left out.
    pub listen: Vec<SocketAddr>,
    /// Interfaces whose requests are answered; empty = all.
    pub interfaces: Vec<String>,
    /// Bounds.
    pub limits: Limits,
}

impl Default for ServerConfig {
    /// Every address of both families, port 69.
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::UNSPECIFIED, PORT).into(), (Ipv6Addr::UNSPECIFIED, PORT).into()],
            interfaces: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// Bounds of memory and patience.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Transfers at the same time; each holds two file descriptors and under a kilobyte.
    pub transfers: usize,
    /// Transfers at the same time to one machine, known by its hardware address, or to one address where that is not
    /// known. A Pi has one, plus those whose abort got lost.
    pub transfers_per_client: usize,
    /// Requests per second of one address that are looked at, once its burst is used up.
    pub requests_per_second: u32,
    /// Requests of one address that may come at once.
    pub request_burst: u32,
    /// Largest block agreed on; 1468 fills an Ethernet frame over IPv4.
    pub max_blksize: u16,
    /// Wait before the first retransmission.
    pub retransmit_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transfers: 512,
            transfers_per_client: 32,
            // A Pi's boot is 50 requests; as fast as the link allows is some 2000 a second, for misses.
            requests_per_second: 500,
            request_burst: 2000,
            max_blksize: 1468,
            retransmit_after: transfer::RETRANSMIT_AFTER,
        }
    }
}

/// Counters since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Transfers under way.
    pub active: u32,
    /// Transfers begun.
    pub transfers: u32,
    /// Requests answered with an error.
    pub refused: u32,
    /// Requests not answered because a limit was reached.
    pub dropped: u32,
    /// Bytes that clients acknowledged.
    pub acknowledged: u64,
    /// Packets sent more than once.
    pub retransmissions: u32,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("cannot listen for TFTP on {address}: {source}{}", hint(.source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing to listen on.
    #[error("no address to listen for TFTP on: give at least one of a family this machine has")]
    NoAddress,
    /// The kernel refused a thread, an epoll set or an event descriptor.
    #[error("cannot start the TFTP server: {0}")]
    System(#[source] io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another TFTP server runs here: for dnsmasq, unset enable_tftp)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need root)",
        _ => "",
    }
}

/// What the handle and the thread share.
#[derive(Debug)]
struct Shared {
    routes: Mutex<Arc<Routes>>,
    stats: Mutex<Stats>,
    stopping: AtomicBool,
    wake: EventFd,
}

/// Starts servers.
#[derive(Debug)]
pub enum Server {}

impl Server {
    /// Binds and starts serving `routes` on a thread of its own. `book` tells whose address a request comes from;
    /// what happens goes to `events`.
    ///
    /// # Errors
    /// [`Error`] when not every address can be bound.
    pub fn start(config: ServerConfig, routes: Arc<Routes>, book: AddressBook, events: Sink) -> Result<Handle, Error> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| Error::System(errno.into()))?;
        let shared = Arc::new(Shared {
            routes: Mutex::new(routes),
            stats: Mutex::default(),
            stopping: AtomicBool::new(false),
            wake,
        });
        let listeners = bind(&config.listen)?;
        let addresses = listeners.iter().map(socket::Listener::local).collect();
        let worker = worker::Worker::new(config, listeners, Arc::clone(&shared), book, events)
            .map_err(|errno| Error::System(errno.into()))?;
        let thread =
            std::thread::Builder::new().name("tftp".to_owned()).spawn(move || worker.run()).map_err(Error::System)?;
        Ok(Handle { shared, addresses, thread: Some(thread) })
    }
}

fn bind(addresses: &[SocketAddr]) -> Result<Vec<socket::Listener>, Error> {
    let mut listeners = Vec::new();
    for &address in addresses {
        match socket::Listener::bind(address) {
            Ok(listener) => listeners.push(listener),
            Err(source) if is_missing_family(&source) => log::info!("no TFTP on {address}: {source}"),
            Err(source) => return Err(Error::Listen { address, source }),
        }
    }
    if listeners.is_empty() { Err(Error::NoAddress) } else { Ok(listeners) }
}

/// A router may have IPv6 compiled out or disabled.
fn is_missing_family(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT))
}

/// A running server; dropping it stops the server.
#[derive(Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Serves `routes` from the next request on; transfers under way are not touched.
    pub fn set_routes(&self, routes: Arc<Routes>) {
        *self.shared.routes.lock().unwrap_or_else(PoisonError::into_inner) = routes;
    }

    /// Counters since start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses listened on, with the real port where 0 was asked for.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops the server and waits for its thread. Transfers under way end without a word: an ERROR would make a Pi
    /// take the file for missing and boot on without it, where silence makes it ask again.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.stopping.store(true, Ordering::Release);
        // Fails only when the counter is full, which wakes just as well.
        let _ = self.shared.wake.write(1);
        if thread.join().is_err() {
            log::error!("the TFTP thread ended by a panic");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shut_down();
    }
}
