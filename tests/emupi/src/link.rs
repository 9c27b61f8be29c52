//! Where frames go: a tap interface or the end of a veth pair, shared by any number of boards.

use crate::frame::{self, Mac};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, send, socket};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Frames a board may be behind before they are dropped, like the receive ring of a small network chip.
const QUEUE: usize = 256;
/// A 1500-byte MTU with a VLAN tag to spare.
const MAX_FRAME: usize = 1522;

/// Why a link could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The interface could not be opened.
    #[error("cannot open {kind} interface '{name}': {source}; this needs root, and nobody else may have it open")]
    Open {
        /// tap or veth.
        kind: &'static str,
        /// The interface's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another board on this link has the same address.
    #[error("two boards with the address {0} on one link")]
    Twice(Mac),
    /// Writing a frame failed.
    #[error("cannot send on '{name}': {source}; is the interface up?")]
    Send {
        /// The interface's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tap,
    Veth,
}

#[derive(Debug)]
struct Shared {
    fd: OwnedFd,
    name: String,
    kind: Kind,
    ports: Mutex<HashMap<Mac, SyncSender<Arc<[u8]>>>>,
    dropped: AtomicUsize,
}

/// An open interface with a thread that hands each frame to the board it is for, broadcasts to all.
///
/// Dropping it (after its boards) releases the interface, so that QEMU can take over the same tap and MAC address.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    stop: UnixStream,
}

impl Link {
    /// Opens the tap interface `name`, creating it (persistent, so that it outlives us) if it is missing, and sets it up.
    ///
    /// # Errors
    /// [`LinkError::Open`] without the privilege, or when somebody else holds the tap.
    pub fn tap(name: &str) -> Result<Link, LinkError> {
        let open = || tap::open(name).and_then(|fd| set_up(name).map(|()| fd));
        let fd = open().map_err(|source| LinkError::Open { kind: "tap", name: name.to_owned(), source })?;
        Link::start(fd, name, Kind::Tap)
    }

    /// Opens a packet socket on the existing interface `name`, usually one end of a veth pair, and sets it up.
    ///
    /// # Errors
    /// [`LinkError::Open`] when there is no such interface or without the privilege.
    pub fn veth(name: &str) -> Result<Link, LinkError> {
        let open = || -> io::Result<OwnedFd> {
            // Before the socket is bound: binding to an interface that is down leaves an error behind for later.
            set_up(name)?;
            let address = nix::ifaddrs::getifaddrs()?
                .filter(|i| i.interface_name == name)
                .find_map(|i| i.address?.as_link_addr().copied())
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such interface"))?;
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
            bind(fd.as_raw_fd(), &address)?;
            Ok(fd)
        };
        let fd = open().map_err(|source| LinkError::Open { kind: "veth", name: name.to_owned(), source })?;
        Link::start(fd, name, Kind::Veth)
    }

    /// A link whose other end is a socket of this program: one datagram is one frame. For tests that play the server.
    ///
    /// # Errors
    /// [`LinkError::Open`] when no socket can be made.
    pub fn wire() -> Result<(Link, UnixDatagram), LinkError> {
        let open = || -> io::Result<(UnixDatagram, UnixDatagram)> {
            let (ours, theirs) = UnixDatagram::pair()?;
            ours.set_nonblocking(true)?;
            Ok((ours, theirs))
        };
        let (ours, theirs) =
            open().map_err(|source| LinkError::Open { kind: "socket", name: "wire".to_owned(), source })?;
        Ok((Link::start(ours.into(), "wire", Kind::Tap)?, theirs))
    }

    fn start(fd: OwnedFd, name: &str, kind: Kind) -> Result<Link, LinkError> {
        let fail = |source| LinkError::Open { kind: "network", name: name.to_owned(), source };
        let (stop, stopped) = UnixStream::pair().map_err(fail)?;
        let shared =
            Arc::new(Shared { fd, name: name.to_owned(), kind, ports: Mutex::default(), dropped: AtomicUsize::new(0) });
        let of_reader = Arc::clone(&shared);
        let reader =
            std::thread::Builder::new().name("link".into()).spawn(move || of_reader.read(&stopped)).map_err(fail)?;
        Ok(Link { shared, reader: Some(reader), stop })
    }

    /// Connects a board with this address.
    ///
    /// # Errors
    /// [`LinkError::Twice`] if the address is in use on this link.
    pub fn attach(&self, mac: Mac) -> Result<Port, LinkError> {
        let (queue, frames) = sync_channel(QUEUE);
        let mut ports = self.shared.ports();
        if ports.contains_key(&mac) {
            return Err(LinkError::Twice(mac));
        }
        ports.insert(mac, queue);
        drop(ports);
        Ok(Port { mac, frames, shared: Arc::clone(&self.shared) })
    }

    /// Frames lost so far because a board's queue was full.
    pub fn dropped(&self) -> usize {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

fn set_up(name: &str) -> io::Result<()> {
    let output = Command::new("ip").args(["link", "set", name, "up"]).output()?;
    let why = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(io::Error::other(why.trim().to_owned())) }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.stop.shutdown(std::net::Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Shared {
    fn ports(&self) -> std::sync::MutexGuard<'_, HashMap<Mac, SyncSender<Arc<[u8]>>>> {
        // The map is valid after every step under the lock.
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, stopped: &UnixStream) {
        let mut buffer = [0; MAX_FRAME];
        loop {
            let mut fds =
                [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN), PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) if fds[1].any() != Some(false) => return,
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return,
            }
            loop {
                match nix::unistd::read(&self.fd, &mut buffer) {
                    Ok(len) => self.deliver(&buffer[..len]),
                    Err(nix::errno::Errno::EAGAIN) => break,
                    // ENETDOWN is reported once when the interface goes down; it may come up again.
                    Err(nix::errno::Errno::EINTR | nix::errno::Errno::ENETDOWN) => {}
                    Err(_) => return,
                }
            }
        }
    }

    fn deliver(&self, bytes: &[u8]) {
        let Some(frame) = frame::parse(bytes) else { return };
        let ports = self.ports();
        let offer = |queue: &SyncSender<Arc<[u8]>>, bytes: Arc<[u8]>| {
            if queue.try_send(bytes).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        };
        if frame.dst.is_group() {
            let bytes: Arc<[u8]> = bytes.into();
            for (_, queue) in ports.iter().filter(|(mac, _)| **mac != frame.src) {
                offer(queue, Arc::clone(&bytes));
            }
        } else if let Some(queue) = ports.get(&frame.dst) {
            offer(queue, bytes.into());
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), LinkError> {
        let sent = match self.kind {
            Kind::Tap => nix::unistd::write(&self.fd, bytes),
            Kind::Veth => send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()),
        };
        match sent {
            // A full transmit queue loses the frame, as on a wire.
            Ok(_) | Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::ENOBUFS) => Ok(()),
            Err(e) => Err(LinkError::Send { name: self.name.clone(), source: e.into() }),
        }
    }
}

/// One board's connection to a [`Link`].
#[derive(Debug)]
pub struct Port {
    mac: Mac,
    pub(crate) frames: Receiver<Arc<[u8]>>,
    shared: Arc<Shared>,
}

impl Port {
    /// The board's address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// [`LinkError::Send`] when the interface is down or gone.
    pub fn send(&self, bytes: &[u8]) -> Result<(), LinkError> {
        self.shared.send(bytes)
    }

    /// Whether transport checksums of received frames can be verified. On a veth pair the sender's kernel leaves them
    /// to hardware that does not exist.
    pub fn checksums_are_final(&self) -> bool {
        self.shared.kind == Kind::Tap
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shared.ports().remove(&self.mac);
    }
}

/// The only way to a tap interface is an ioctl.
#[allow(unsafe_code)]
mod tap {
    use super::{AsRawFd, OpenOptions, OpenOptionsExt, OwnedFd, io};
    use nix::libc;

    mod sys {
        // linux/if_tun.h: TUNSETIFF = _IOW('T', 202, int), TUNSETPERSIST = _IOW('T', 203, int); both pass more, or less, than an int.
        nix::ioctl_write_ptr_bad!(set_iff, nix::request_code_write!(b'T', 202, 4), nix::libc::ifreq);
        nix::ioctl_write_int_bad!(set_persist, nix::request_code_write!(b'T', 203, 4));
        // TUNSETOFFLOAD = _IOW('T', 208, unsigned int).
        nix::ioctl_write_int_bad!(set_offload, nix::request_code_write!(b'T', 208, 4));
    }

    pub(super) fn open(name: &str) -> io::Result<OwnedFd> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        // SAFETY: ifreq is plain data; all zeros is a valid value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an interface name has 1 to 15 characters"));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the descriptor is open, and TUNSETIFF reads and writes exactly one ifreq, which outlives the call.
        unsafe { sys::set_iff(file.as_raw_fd(), &raw const request) }?;
        // SAFETY: TUNSETPERSIST takes its argument by value.
        unsafe { sys::set_persist(file.as_raw_fd(), 1) }?;
        // QEMU, which had the tap before, leaves checksums to the guest; here they must be done.
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        unsafe { sys::set_offload(file.as_raw_fd(), 0) }?;
        Ok(file.into())
    }
}
