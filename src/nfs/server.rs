//! Listeners, threads, and the handle that the agent holds.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use rustix::io::Errno;

use super::access::Access;
use super::activity::Activity;
use super::buffers::Buffers;
use super::connection::{self, Connection, Service};
use super::drc::ReplyCache;
use super::exports::{Export, Table, Unavailable};
use super::files::OpenFiles;
use super::fs::ProcFds;
use super::hall::{Hall, Registry};
use super::handle::HandleKey;
use super::known::KnownHandles;
use super::listen;
use super::objects::Objects;
use super::pool::Pool;
use super::registration::Registration;
use super::shared::{Counters, Limits, Shared, Verifier, Worker};
use super::space::Space;
use crate::events::Sink;
use crate::net::AddressBook;

/// The port of NFS where nothing else is configured.
pub const NFS_PORT: u16 = 2049;
/// The port of the portmapper.
pub const PORTMAP_PORT: u16 = 111;
/// Threads are many and shallow.
pub(super) const STACK: usize = 256 << 10;
/// How long running requests may take when the server stops, before their connections are broken off, and after that.
const GRACE: Duration = Duration::from_secs(3);

/// What a server is made of.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where NFS and MOUNT listen; where the kernel has no IPv6, `[::]` means `0.0.0.0`; the portmapper uses the same addresses. Port 0: any, the same for all.
    pub listen: Vec<SocketAddr>,
    /// Port of the portmapper, [`PORTMAP_PORT`]; `None`: none. If another portmapper has it, the server registers there.
    pub portmap: Option<u16>,
    /// Bytes of the disk that are not for clients: writes that need more are answered `NFS3ERR_NOSPC`. 0: all are.
    pub reserve: u64,
    /// Bounds on what clients can make the server hold.
    pub limits: Limits,
    /// Seals file handles: see [`super::load_or_create_key`].
    pub handle_key: [u8; 16],
    /// Wait for the disk before answering CREATE, REMOVE, RENAME and their like. Without it a power cut may undo the
    /// last seconds of them, as on a local disk.
    pub sync: bool,
    /// What is served from the first request on. A client that goes on after a restart must not come before its export:
    /// it would be told "stale", which ends a running system. As in [`Handle::set_exports`].
    pub exports: Vec<Export>,
    /// Names of the interfaces at which clients are served, besides this machine itself; empty: all. Connections to
    /// addresses of others are closed at once. [`AddressBook::set_interfaces`] says whose neighbours count.
    pub interfaces: Vec<String>,
    /// Serve clients on ports from 1024 on, too, exports on which they can be root or that belong to a device. Any process
    /// on a client may use such a port and say that it is root: for trials behind address translation only.
    pub insecure_ports: bool,
}

impl ServerConfig {
    /// The usual ports on all IPv4 and IPv6 addresses.
    #[must_use]
    pub fn new(handle_key: [u8; 16]) -> Self {
        let any = SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), NFS_PORT);
        Self {
            listen: vec![any],
            portmap: Some(PORTMAP_PORT),
            reserve: 0,
            limits: Limits::default(),
            handle_key,
            sync: false,
            insecure_ports: false,
            exports: Vec::new(),
            interfaces: Vec::new(),
        }
    }
}

/// The server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address to listen on was given.
    #[error("NFS: no address to listen on")]
    NoAddress,
    /// An address cannot be listened on.
    #[error("NFS: cannot listen on {address}: {source}{hint}", hint = if source.kind() == io::ErrorKind::AddrInUse {
        " (does another NFS server run here?)"
    } else {
        ""
    })]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        source: io::Error,
    },
    /// Threads cannot act for callers.
    #[error("NFS: cannot act for users ({0}): piboot must run as root")]
    Identity(Errno),
    /// Something the server needs from the system.
    #[error("NFS: cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What went wrong.
        source: io::Error,
    },
}

/// Where the server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// NFS and MOUNT, TCP.
    pub nfs: u16,
    /// The own portmapper, TCP and UDP.
    pub portmap: Option<u16>,
}

/// Who answers "which port has NFS?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortmapState {
    /// This server.
    Own,
    /// The portmapper that was here first, on this port; registered there.
    Registered(u16),
    /// Nobody knows this server: clients must be given `port=` and `mountport=`. The reason, for people.
    Unregistered(String),
    /// None was asked for.
    Off,
}

impl std::fmt::Display for PortmapState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own => f.write_str("its own portmapper"),
            Self::Registered(port) => write!(f, "registered with the portmapper on port {port}"),
            Self::Unregistered(why) => f.write_str(why),
            Self::Off => f.write_str("no portmapper"),
        }
    }
}

/// Counters since start (they wrap) and what is held now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Open connections.
    pub connections: usize,
    /// Mounts seen and not taken back.
    pub mounts: usize,
    /// Files kept open.
    pub open_files: usize,
    /// Messages received.
    pub requests: usize,
    /// NFS requests that were answered with an error status.
    pub failures: usize,
    /// Requests answered a second time from memory.
    pub replays: usize,
    /// Messages that were no request for this server.
    pub garbage: usize,
    /// Connections refused because there were too many.
    pub turned_away: usize,
}

/// The NFS server; see [`Server::start`].
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Starts a server. Needs root in the initial user namespace.
    ///
    /// # Errors
    /// [`Error`]; nothing is left running then.
    pub fn start(config: ServerConfig, book: AddressBook, sink: Sink) -> Result<Handle, Error> {
        let system = |action| move |source: io::Error| Error::System { action, source };
        let key = HandleKey::new(config.handle_key);
        let table = Table::default().replaced(config.exports.clone(), &key);
        let listen = listen::usable(&config.listen, listen::has_ipv6());
        let (listeners, nfs_port) = bind_nfs(&listen)?;
        let BoundPortmap { tcp: portmap_tcp, udp: portmap_udp, port: portmap_port, registration } =
            bind_portmap(&listen, config.portmap, nfs_port)?;
        let clock = sink.clock().clone();
        let verifier = Arc::new(Verifier::new().map_err(|e| system("get random numbers")(e.into()))?);
        let (files, closing) = OpenFiles::new(Arc::clone(&verifier));
        let shared = Arc::new(Shared {
            access: Access::new(table, book, clock.clone()),
            activity: Activity::new(sink),
            buffers: Arc::new(Buffers::new(config.limits.memory.max(2 * config.limits.max_record()), clock.clone())),
            clock,
            counters: Counters::default(),
            files,
            insecure_ports: config.insecure_ports,
            key,
            known: KnownHandles::default(),
            objects: Objects::default(),
            pool: Pool::new(config.limits.workers),
            limits: config.limits,
            ports: Ports { nfs: nfs_port, portmap: portmap_port },
            proc: ProcFds::open().map_err(|e| system("open /proc/self/fd")(e.into()))?,
            space: Space::new(config.reserve),
            replies: ReplyCache::default(),
            stopping: AtomicBool::new(false),
            sync: config.sync,
            verifier,
        });
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| system("make an eventfd")(e.into()))?;
        let mut handle = Handle {
            shared: Arc::clone(&shared),
            registry: Arc::default(),
            wake: Arc::new(wake),
            threads: Vec::new(),
            registration,
        };
        // From here on dropping the handle ends what was started.
        handle.start_workers()?;
        let closer = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("nfs-close".into())
            .stack_size(STACK)
            .spawn(move || closer.close_files(&closing))
            .map_err(system("start a thread"))?;
        handle.threads.push(thread);
        let hall = Hall {
            shared,
            registry: Arc::clone(&handle.registry),
            wake: Arc::clone(&handle.wake),
            tcp: listeners
                .into_iter()
                .map(|l| (l, Service::Nfs))
                .chain(portmap_tcp.into_iter().map(|l| (l, Service::Portmap)))
                .collect(),
            udp: portmap_udp,
            interfaces: config.interfaces,
        };
        let thread = thread::Builder::new().name("nfs-accept".into()).stack_size(STACK).spawn(move || hall.run());
        handle.threads.push(thread.map_err(system("start a thread"))?);
        Ok(handle)
    }
}

fn bind_nfs(addresses: &[SocketAddr]) -> Result<(Vec<TcpListener>, u16), Error> {
    let only_v6 = addresses.iter().any(SocketAddr::is_ipv4);
    let mut listeners = Vec::with_capacity(addresses.len());
    let mut port = None;
    for address in addresses {
        let address =
            SocketAddr::new(address.ip(), if address.port() == 0 { port.unwrap_or(0) } else { address.port() });
        let listener = listen::tcp(address, only_v6).map_err(|source| Error::Listen { address, source })?;
        let bound = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
        port.get_or_insert(bound.port());
        listeners.push(listener);
    }
    port.map(|port| (listeners, port)).ok_or(Error::NoAddress)
}

/// The own portmapper's sockets, or the registration with another; neither if none is wanted.
#[derive(Default)]
struct BoundPortmap {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    port: Option<u16>,
    registration: Option<Registration>,
}

/// Binds the portmapper's port, or registers with who has it.
fn bind_portmap(listen: &[SocketAddr], wanted: Option<u16>, nfs_port: u16) -> Result<BoundPortmap, Error> {
    let Some(wanted) = wanted else { return Ok(BoundPortmap::default()) };
    let only_v6 = listen.iter().any(SocketAddr::is_ipv4);
    let (mut tcp, mut udp, mut port) = (Vec::new(), Vec::new(), wanted);
    for address in listen {
        let mut bind = || -> io::Result<()> {
            let listener = listen::tcp(SocketAddr::new(address.ip(), port), only_v6)?;
            port = listener.local_addr()?.port();
            udp.push(listen::udp(SocketAddr::new(address.ip(), port), only_v6)?);
            tcp.push(listener);
            Ok(())
        };
        match bind() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let registration = Registration::start(wanted, nfs_port);
                let registration = registration.map_err(|source| Error::System { action: "start a thread", source })?;
                return Ok(BoundPortmap { registration: Some(registration), ..BoundPortmap::default() });
            }
            Err(source) => return Err(Error::Listen { address: SocketAddr::new(address.ip(), port), source }),
        }
    }
    Ok(BoundPortmap { tcp, udp, port: Some(port), registration: None })
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    wake: Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
    registration: Option<Registration>,
}

impl Handle {
    fn start_workers(&mut self) -> Result<(), Error> {
        let (ready, all_ready) = mpsc::channel();
        for n in 0..self.shared.limits.workers.max(1) {
            let (shared, ready) = (Arc::clone(&self.shared), ready.clone());
            let body = move || match Worker::for_this_thread() {
                Ok(mut worker) => {
                    let _ = ready.send(Ok(()));
                    drop(ready);
                    connection::work(&shared, &mut worker);
                }
                Err(errno) => {
                    let _ = ready.send(Err(errno));
                }
            };
            let thread = thread::Builder::new().name(format!("nfs-work-{n}")).stack_size(STACK).spawn(body);
            self.threads.push(thread.map_err(|source| Error::System { action: "start a thread", source })?);
        }
        drop(ready);
        all_ready.iter().collect::<Result<(), Errno>>().map_err(Error::Identity)
    }

    /// Serves exactly these exports from the next request on. What did not change is not disturbed; clients of an
    /// export that is gone get "stale". Returns what cannot be served now: its clients wait; try again with the same
    /// list when the volume is back.
    pub fn set_exports(&self, exports: Vec<Export>) -> Vec<Unavailable> {
        let old = self.shared.access.table();
        let new = Arc::new(old.replaced(exports, &self.shared.key));
        let unavailable = new.unavailable();
        self.shared.access.replace(Arc::clone(&new));
        for entry in old.entries() {
            if !new.by_id(entry.export.id).is_some_and(|other| Arc::ptr_eq(entry, other)) {
                self.shared.files.forget_export(entry.export.id);
                self.shared.objects.forget_export(entry.export.id);
            }
        }
        unavailable
    }

    /// Counters, and what is held now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        Stats {
            connections: self.registry.open().len(),
            mounts: self.shared.activity.mount_count(),
            open_files: self.shared.files.len(),
            requests: read(&counters.requests),
            failures: read(&counters.failures),
            replays: read(&counters.replays),
            garbage: read(&counters.garbage),
            turned_away: read(&counters.turned_away),
        }
    }

    /// Requests that came over the open connections of one client; wraps. `None`: it has none open.
    #[must_use]
    pub fn requests_of(&self, client: std::net::IpAddr) -> Option<u32> {
        let open = self.registry.open();
        let of_client = open.values().filter(|guest| guest.connection.peer == client);
        of_client.map(|guest| guest.connection.requests()).reduce(u32::wrapping_add)
    }

    /// A client without an open connection was found not to be there any more: told as if one had died, and so that
    /// its coming back is told as well.
    pub fn is_gone(&self, client: std::net::IpAddr) {
        self.shared.activity.gone(client);
    }

    /// Where the server listens.
    #[must_use]
    pub fn ports(&self) -> Ports {
        self.shared.ports
    }

    /// Who answers for the portmapper.
    #[must_use]
    pub fn portmap(&self) -> PortmapState {
        match (&self.registration, self.shared.ports.portmap) {
            (Some(registration), _) => registration.state(),
            (None, Some(_)) => PortmapState::Own,
            (None, None) => PortmapState::Off,
        }
    }

    /// Stops: takes no further requests, finishes those that run, ends all threads. Clients keep their mounts and go on
    /// when a server with the same key and exports starts again.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        drop(self.registration.take());
        let _ = self.wake.write(1);
        let each = |f: fn(&Connection)| self.registry.open().values().for_each(|guest| f(&guest.connection));
        each(Connection::close_reading);
        if !self.registry.wait_empty(GRACE) {
            each(Connection::abort);
            self.shared.buffers.close();
            if !self.registry.wait_empty(GRACE) {
                log::error!("NFS: {} requests still wait for a disk", self.registry.open().len());
            }
        }
        self.shared.buffers.close();
        self.shared.pool.stop();
        self.shared.files.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
