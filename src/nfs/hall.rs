//! Where clients arrive: one thread that accepts connections, answers the portmapper's datagrams and keeps house.

use std::collections::HashMap;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::access::{Client, Peer};
use super::connection::{self, Connection, Service};
use super::server::STACK;
use super::shared::{Counters, Limits, Shared, Worker};
use super::{listen, portmap};
use crate::clock::Moment;

/// How long nobody is accepted after that failed.
const PAUSE: Duration = Duration::from_millis(200);
/// Connections in all that there may be for each export at least.
const PER_EXPORT: usize = 4;
/// Datagrams answered in a row.
const DATAGRAMS_PER_TURN: usize = 64;
/// How often idle files, buffers and connections are let go.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// The connections that are open.
#[derive(Debug, Default)]
pub(super) struct Registry {
    open: Mutex<HashMap<usize, Guest>>,
    changed: Condvar,
    next: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct Guest {
    pub(super) connection: Arc<Connection>,
    stranger: bool,
    number: usize,
    /// It was broken off.
    leaving: bool,
}

impl Registry {
    pub(super) fn open(&self) -> MutexGuard<'_, HashMap<usize, Guest>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for one more of `client`; false if there is none. A client that has all it may have loses the
    /// connection that it used least lately: after a crash it comes back while the old ones still seem to be in use.
    fn make_room(&self, client: Client, stranger: bool, exports: usize, limits: &Limits) -> bool {
        let mut open = self.open();
        let strangers = open.values().filter(|guest| guest.stranger).count();
        let of_client = || open.values().filter(|guest| guest.connection.client == client);
        let all = limits.connections.max(exports.saturating_mul(PER_EXPORT));
        // Those that were broken off are there until their request is done, which may wait for a disk.
        if open.len() >= all
            || of_client().count() >= limits.per_address.saturating_mul(2)
            || (stranger && strangers >= limits.strangers)
        {
            return false;
        }
        if of_client().filter(|guest| !guest.leaving).count() < limits.per_address {
            return true;
        }
        let ours = open.values_mut().filter(|guest| guest.connection.client == client && !guest.leaving);
        let Some(victim) = ours.min_by_key(|guest| (guest.connection.used(), guest.number)) else { return false };
        victim.leaving = true;
        victim.connection.abort();
        true
    }

    /// Breaks off the connections whose clients have been silent for too long; clients connect again by themselves.
    fn break_off_overdue(&self, now: Moment, limits: &Limits) {
        for guest in self.open().values_mut().filter(|guest| !guest.leaving) {
            if guest.connection.is_overdue(now, limits) {
                guest.leaving = true;
                guest.connection.abort();
            }
        }
    }

    /// Waits until all are gone, at most this long.
    pub(super) fn wait_empty(&self, patience: Duration) -> bool {
        let result = self.changed.wait_timeout_while(self.open(), patience, |open| !open.is_empty());
        result.unwrap_or_else(PoisonError::into_inner).0.is_empty()
    }
}

/// Takes a connection off the registry when its thread ends, however it ends.
struct Leave<'a>(&'a Registry, usize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let guest = self.0.open().remove(&self.1);
        drop(guest);
        self.0.changed.notify_all();
    }
}

/// Where clients arrive: accepts connections, answers datagrams, keeps house.
pub(super) struct Hall {
    pub(super) shared: Arc<Shared>,
    pub(super) registry: Arc<Registry>,
    pub(super) wake: Arc<EventFd>,
    pub(super) tcp: Vec<(TcpListener, Service)>,
    pub(super) udp: Vec<UdpSocket>,
    /// Where clients may come from; empty: anywhere.
    pub(super) interfaces: Vec<String>,
}

impl Hall {
    pub(super) fn run(self) {
        // Often enough that a limit is exceeded by a fraction of it at most.
        let limits = &self.shared.limits;
        let pause = HOUSEKEEPING.min(limits.partial / 2).min(limits.idle / 2);
        let pause = PollTimeout::try_from(pause).unwrap_or(PollTimeout::from(u8::MAX));
        while !self.shared.is_stopping() {
            let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
            fds.extend(self.tcp.iter().map(|(socket, _)| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
            fds.extend(self.udp.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, pause) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => log::error!("NFS: poll: {errno}"),
            }
            for (listener, service) in &self.tcp {
                self.accept(listener, *service);
            }
            for socket in &self.udp {
                self.answer(socket);
            }
            let now = self.shared.clock.now();
            self.shared.files.expire(now);
            self.shared.objects.expire(now);
            self.registry.break_off_overdue(now, limits);
            self.shared.buffers.trim();
        }
    }

    fn answer(&self, socket: &UdpSocket) {
        let shared = &self.shared;
        // What is left is answered after those who wait to be accepted.
        for _ in 0..DATAGRAMS_PER_TURN {
            let result = listen::serve_datagram(socket, &self.interfaces, |peer, message, out| {
                portmap::run_datagram(out, &shared.ports, &shared.activity, peer, message)
            });
            match result {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    log::debug!("NFS: portmapper: {error}");
                    return;
                }
            }
        }
    }

    fn accept(&self, listener: &TcpListener, service: Service) {
        loop {
            match listener.accept() {
                Ok((stream, address)) => {
                    if !stream.local_addr().is_ok_and(|to| listen::is_for(&self.interfaces, address, to)) {
                        log::debug!("NFS: {address} came by an interface that is not served");
                        continue;
                    }
                    let peer = Peer::new(address, self.shared.insecure_ports);
                    if let Err(error) = self.admit(stream, peer, service) {
                        log::warn!("NFS: cannot serve {}: {error}", peer.ip);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                }
                Err(error) => {
                    log::error!("NFS: cannot accept a connection: {error}");
                    // Out of descriptors or memory: the connection still waits, and would be reported without end.
                    thread::sleep(PAUSE);
                    return;
                }
            }
        }
    }

    fn admit(&self, stream: std::net::TcpStream, from: Peer, service: Service) -> io::Result<()> {
        let shared = &self.shared;
        let peer = from.ip;
        let view = shared.access.view(from, &mut None, &shared.activity);
        let (client, stranger) = (view.client(), view.is_empty());
        if !self.registry.make_room(client, stranger, view.export_count(), &shared.limits) {
            Counters::count(&shared.counters.turned_away);
            shared.activity.refused(peer, "*", || "too many connections".to_owned());
            return Ok(());
        }
        let connection = Arc::new(Connection::new(stream, from, client, service, shared)?);
        let id = self.registry.next.fetch_add(1, Ordering::Relaxed);
        self.registry
            .open()
            .insert(id, Guest { connection: Arc::clone(&connection), stranger, number: id, leaving: false });
        let (shared, registry) = (Arc::clone(shared), Arc::clone(&self.registry));
        let started = thread::Builder::new().name("nfs-conn".into()).stack_size(STACK).spawn(move || {
            let _leave = Leave(&registry, id);
            match Worker::for_this_thread() {
                Ok(mut worker) => connection::serve(&connection, &shared, &mut worker),
                Err(errno) => log::error!("NFS: cannot act for users: {errno}"),
            }
        });
        if let Err(error) = started {
            self.registry.open().remove(&id);
            return Err(error);
        }
        Ok(())
    }
}
