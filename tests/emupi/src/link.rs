//! Where frames go: a tap interface or the end of a veth pair, shared by any number of boards.

mod port;
mod tap;

pub use port::{FrameLoss, Port};

use crate::frame::{self, Mac};
use crate::reactor::Alarm;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, send, setsockopt, socket, sockopt,
};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Frames a board may be behind before they are dropped, like the receive ring of a small network chip.
const QUEUE: usize = 256;
/// Bytes that may wait in a packet socket: a frame each of a thousand boards, with what the kernel adds.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Frames that a reactor takes in before it turns to its boards.
const BATCH: usize = 64;
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
    /// Reading frames failed.
    #[error("cannot receive on '{name}': {source}")]
    Receive {
        /// The interface's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
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
    ports: Mutex<HashMap<Mac, Queue>>,
    /// Boards of a reactor for which frames have arrived.
    woken: Mutex<Vec<usize>>,
    dropped: AtomicUsize,
}

#[derive(Debug)]
struct Queue {
    frames: SyncSender<Arc<[u8]>>,
    /// The board's number where a reactor runs it.
    board: Option<usize>,
}

/// An open interface with a thread that hands each frame to the board it is for, broadcasts to all.
///
/// Dropping it (after its boards) releases the interface, so that QEMU can take over the same tap and MAC address.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    reader: Mutex<Option<Reader>>,
}

/// The thread that takes frames in while no reactor does.
#[derive(Debug)]
struct Reader {
    thread: JoinHandle<()>,
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
            // One socket for all boards; each of them has a ring of its own in truth.
            setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
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
        let shared = Arc::new(Shared {
            fd,
            name: name.to_owned(),
            kind,
            ports: Mutex::default(),
            woken: Mutex::default(),
            dropped: AtomicUsize::new(0),
        });
        let link = Link { shared, reader: Mutex::new(None) };
        link.start_reader()?;
        Ok(link)
    }

    fn start_reader(&self) -> Result<(), LinkError> {
        let fail = |source| LinkError::Open { kind: "network", name: self.shared.name.clone(), source };
        let (stop, stopped) = UnixStream::pair().map_err(fail)?;
        let shared = Arc::clone(&self.shared);
        let thread =
            std::thread::Builder::new().name("link".into()).spawn(move || shared.read(&stopped)).map_err(fail)?;
        *lock(&self.reader) = Some(Reader { thread, stop });
        Ok(())
    }

    fn stop_reader(&self) {
        if let Some(reader) = lock(&self.reader).take() {
            let _ = reader.stop.shutdown(std::net::Shutdown::Both);
            let _ = reader.thread.join();
        }
    }

    /// Lets the caller's thread take the frames in, instead of one of the link's own, until the guard is dropped.
    pub(crate) fn take_over(&self) -> TakenOver<'_> {
        self.stop_reader();
        TakenOver { link: self }
    }

    /// Connects a board with this address.
    ///
    /// # Errors
    /// [`LinkError::Twice`] if the address is in use on this link.
    pub fn attach(&self, mac: Mac) -> Result<Port, LinkError> {
        self.attach_with(mac, FrameLoss::default(), None)
    }

    /// Connects a board with a bad cable, or one that a reactor runs.
    ///
    /// # Errors
    /// [`LinkError::Twice`] if the address is in use on this link.
    pub(crate) fn attach_with(&self, mac: Mac, loss: FrameLoss, alarm: Option<Alarm>) -> Result<Port, LinkError> {
        let (queue, frames) = sync_channel(QUEUE);
        let mut ports = lock(&self.shared.ports);
        if ports.contains_key(&mac) {
            return Err(LinkError::Twice(mac));
        }
        ports.insert(mac, Queue { frames: queue, board: alarm.as_ref().map(Alarm::board) });
        drop(ports);
        Ok(Port::new(mac, frames, Arc::clone(&self.shared), loss, alarm))
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
        self.stop_reader();
    }
}

/// A link whose frames the holder takes in.
#[derive(Debug)]
pub(crate) struct TakenOver<'a> {
    link: &'a Link,
}

impl TakenOver<'_> {
    /// Hands out the frames that are there, some at a time; the boards they are for are added to `woken`.
    pub(crate) fn take_in(&self, woken: &mut Vec<usize>) -> Result<(), LinkError> {
        let shared = &self.link.shared;
        shared.take_in(BATCH).map_err(|e| LinkError::Receive { name: shared.name.clone(), source: e.into() })?;
        woken.append(&mut lock(&shared.woken));
        Ok(())
    }

    /// Waits for a frame, or until the time has come.
    pub(crate) fn wait(&self, until: Option<Instant>) {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()).as_millis() + 1);
        let timeout = left.map_or(PollTimeout::NONE, |ms| PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX));
        // Whatever ends it: the caller looks at everything again.
        let _ = poll(&mut [PollFd::new(self.link.shared.fd.as_fd(), PollFlags::POLLIN)], timeout);
    }
}

impl Drop for TakenOver<'_> {
    fn drop(&mut self) {
        // Without it, boards with threads of their own would hear nothing; they give up by themselves then.
        let _ = self.link.start_reader();
    }
}

/// What is locked here is valid after every step under the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn read(&self, stopped: &UnixStream) {
        loop {
            let mut fds =
                [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN), PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) if fds[1].any() != Some(false) => return,
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return,
            }
            if self.take_in(usize::MAX).is_err() {
                return;
            }
        }
    }

    /// Delivers the frames that are there, `limit` at most.
    fn take_in(&self, limit: usize) -> Result<(), nix::errno::Errno> {
        let mut buffer = [0; MAX_FRAME];
        for _ in 0..limit {
            match nix::unistd::read(&self.fd, &mut buffer) {
                Ok(len) => self.deliver(&buffer[..len]),
                Err(nix::errno::Errno::EAGAIN) => break,
                // ENETDOWN is reported once when the interface goes down; it may come up again.
                Err(nix::errno::Errno::EINTR | nix::errno::Errno::ENETDOWN) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn deliver(&self, bytes: &[u8]) {
        let Some(frame) = frame::parse(bytes) else { return };
        let ports = lock(&self.ports);
        let offer = |queue: &Queue, bytes: Arc<[u8]>| {
            if queue.frames.try_send(bytes).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(board) = queue.board {
                lock(&self.woken).push(board);
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
