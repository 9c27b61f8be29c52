//! The thread that serves: one epoll loop over the listeners and every transfer's socket.

mod requests;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::blocks::{Blocks, Layout, Pool};
use super::guard::{Client, Holders, LogLimiter, RateLimiter};
use super::open;
use super::slots::{Key, Slots, Timers};
use super::socket::{Arrived, Connected, Listener, Sent};
use super::transfer::{Action, MAX_WINDOW_BYTES, MAX_WINDOWSIZE, Transfer};
use super::wire::{self, ErrorCode, Options, Packet};
use super::{ServerConfig, Shared, Stats};
use crate::clock::{Clock, Moment};
use crate::events::{Of, Sink, Tftp, TftpEnd, What};
use crate::net::{AddressBook, datagram};

/// Largest request looked at; RFC 2347 allows 512 bytes.
const MAX_REQUEST: usize = 1024;
/// Sockets looked at per turn.
const EVENTS_PER_TURN: usize = 64;
/// Blocks between two confirmations that a client's neighbour entry is good; the kernel doubts it after some 20 seconds.
const CONFIRM_EVERY: u64 = 64;
/// Tokens above every key's.
const WAKE_TOKEN: u64 = u64::MAX;
const LISTENER_TOKENS: u64 = u64::MAX - 1024;

/// One transfer with its means.
struct Session {
    transfer: Transfer,
    socket: Connected,
    file: open::File,
    peer: SocketAddr,
    client: Client,
    path: Arc<[u8]>,
    asked: Options,
    accepted: Options,
    number: u32,
    started: Moment,
    last_heard: Moment,
    read_ahead: Option<Blocks>,
    /// When the timer that waits for this transfer fires; at or before the transfer's deadline.
    timer: Moment,
}

/// Everything that the thread owns.
pub(super) struct Worker {
    config: ServerConfig,
    clock: Clock,
    events: Sink,
    shared: Arc<Shared>,
    epoll: Epoll,
    listeners: Vec<Listener>,
    interfaces: HashSet<u32>,
    sessions: Slots<Session>,
    by_peer: HashMap<SocketAddr, Key>,
    timers: Timers,
    rate: RateLimiter,
    log_limit: LogLimiter,
    holders: Holders,
    names: open::Names,
    warned: HashSet<(u64, u64)>,
    stats: Stats,
    /// Requests come in here.
    requests: Vec<u8>,
    /// Acknowledgements and aborts come in here.
    inbox: Vec<u8>,
    /// OACK and ERROR packets are made here.
    outbox: Vec<u8>,
    /// Blocks on their way from file to socket, of transfers without a buffer of their own.
    blocks: Blocks,
    pool: Pool,
    next_number: u32,
}

impl Worker {
    pub(super) fn new(
        config: ServerConfig,
        listeners: Vec<Listener>,
        shared: Arc<Shared>,
        book: AddressBook,
        events: Sink,
    ) -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&shared.wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE_TOKEN))?;
        for (token, listener) in (LISTENER_TOKENS..).zip(&listeners) {
            epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        }
        let headers = usize::from(MAX_WINDOWSIZE) * wire::DATA_HEADER;
        let blocks = MAX_WINDOW_BYTES.max(usize::from(config.limits.max_blksize)) + headers;
        Ok(Self {
            clock: events.clock().clone(),
            rate: RateLimiter::new(config.limits.requests_per_second, config.limits.request_burst),
            config,
            events,
            shared,
            epoll,
            listeners,
            interfaces: HashSet::new(),
            sessions: Slots::new(),
            by_peer: HashMap::new(),
            timers: Timers::default(),
            log_limit: LogLimiter::new(),
            holders: Holders::new(book),
            names: open::Names::default(),
            warned: HashSet::new(),
            stats: Stats::default(),
            requests: vec![0; MAX_REQUEST],
            inbox: vec![0; MAX_REQUEST],
            outbox: Vec::with_capacity(128),
            blocks: Blocks::with_capacity(blocks),
            pool: Pool::default(),
            next_number: 0,
        })
    }

    /// Serves until the handle says stop.
    pub(super) fn run(mut self) {
        let mut ready = [EpollEvent::empty(); EVENTS_PER_TURN];
        while !self.shared.stopping.load(Ordering::Acquire) {
            let count = self.epoll.wait(&mut ready, self.patience()).unwrap_or(0);
            let now = self.clock.now();
            let ready = &ready[..count];
            // Requests first, so that a "not found" does not wait for everybody's blocks. With a full house the
            // listeners may stand further back in the queue of what is ready.
            let crowded = count == EVENTS_PER_TURN;
            for (token, listener) in (LISTENER_TOKENS..).zip(0..self.listeners.len()) {
                if crowded || ready.iter().any(|event| event.data() == token) {
                    self.on_listener(now, listener);
                }
            }
            for event in ready.iter().filter(|event| event.data() < LISTENER_TOKENS) {
                self.on_socket(now, Key::from_token(event.data()));
            }
            self.on_timers(now);
            self.publish();
        }
        let now = self.clock.now();
        let keys: Vec<_> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.end(now, key, TftpEnd::Stopped);
        }
        self.publish();
    }

    /// How long to sleep: until the first timer, rounded up to the clock of epoll.
    fn patience(&self) -> EpollTimeout {
        let Some(at) = self.timers.next() else { return EpollTimeout::NONE };
        let wait = at.since(self.clock.now()).min(Duration::from_secs(60));
        EpollTimeout::from(u16::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u16::MAX))
    }

    fn publish(&mut self) {
        self.stats.active = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.stats;
    }

    fn on_socket(&mut self, now: Moment, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let length = match session.socket.receive(&mut self.inbox) {
            Arrived::Packet(length) => length,
            Arrived::Nothing => return,
            Arrived::Gone => return self.end(now, key, TftpEnd::Gone),
        };
        session.last_heard = now;
        match wire::parse(self.inbox.get(..length).unwrap_or_default()) {
            Ok(Packet::Ack(number)) => {
                let before = session.transfer.acknowledged_bytes();
                let action = session.transfer.on_ack(now, number);
                self.stats.acknowledged += session.transfer.acknowledged_bytes() - before;
                self.perform(now, key, action);
            }
            Ok(Packet::Error { code, message }) => {
                let message = Arc::from(message);
                let packet = self.inbox.get(..length).unwrap_or_default();
                keep(&self.events, session.peer, (session.peer, session.socket.local()), packet);
                self.end(now, key, TftpEnd::Aborted { code, message });
            }
            _ => {} // nothing else makes sense here, and answering it would not help
        }
    }

    fn on_timers(&mut self, now: Moment) {
        while let Some((at, key)) = self.timers.pop_due(now) {
            let Some(session) = self.sessions.get_mut(key).filter(|session| session.timer == at) else { continue };
            let action = session.transfer.on_timer(now);
            session.timer = session.transfer.deadline();
            self.timers.push(session.timer, key);
            self.perform(now, key, action);
        }
        let sessions = &mut self.sessions;
        let live = sessions.len();
        self.timers.compact(live, |at, key| sessions.get(key).is_some_and(|session| session.timer == at));
    }

    fn perform(&mut self, now: Moment, key: Key, action: Action) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        // A wait cut short by progress needs an earlier timer; the other direction takes care of itself.
        if session.transfer.deadline() < session.timer {
            session.timer = session.transfer.deadline();
            self.timers.push(session.timer, key);
        }
        let sent = match action {
            Action::Wait => return,
            Action::Done => return self.end(now, key, TftpEnd::Done),
            Action::GiveUp => return self.end(now, key, TftpEnd::Timeout),
            Action::SendOack => {
                wire::encode_oack(&session.accepted, session.file.size, &mut self.outbox);
                keep(&self.events, session.peer, (session.socket.local(), session.peer), &self.outbox);
                session.socket.send(&self.outbox, false)
            }
            Action::SendData { first, count } => {
                let confirm = session.last_heard == now && first % CONFIRM_EVERY == 1;
                match send_data(session, first, count, confirm, &mut self.blocks) {
                    Ok(sent) => sent,
                    Err(error) => {
                        // Never a short block: the client would take it for the end of the file.
                        wire::encode_error(ErrorCode::Undefined, "read error", &mut self.outbox);
                        session.socket.send(&self.outbox, false);
                        log::error!("cannot read {} for {}: {error}", session.path.escape_ascii(), session.peer);
                        let why = Arc::from(error.to_string());
                        return self.end(now, key, TftpEnd::ReadError(why));
                    }
                }
            }
        };
        if sent == Sent::Gone {
            self.end(now, key, TftpEnd::Gone);
        }
    }

    /// Forgets a transfer; closing its socket takes it out of the epoll set.
    fn end(&mut self, now: Moment, key: Key, end: TftpEnd) {
        let Some(session) = self.sessions.remove(key) else { return };
        if self.by_peer.get(&session.peer) == Some(&key) {
            self.by_peer.remove(&session.peer);
        }
        self.pool.give_back(session.read_ahead);
        let retransmissions = session.transfer.retransmissions();
        self.stats.retransmissions = self.stats.retransmissions.wrapping_add(retransmissions);
        self.publish(); // whoever hears of the end finds it counted
        let closed = Tftp::Closed {
            transfer: session.number,
            end,
            acknowledged: session.transfer.acknowledged_bytes(),
            size: session.transfer.size(),
            took: now.since(session.started),
            retransmissions,
            path: session.path,
        };
        self.events.emit(What::Tftp { peer: session.peer.ip(), event: closed });
    }

    fn emit(&self, peer: SocketAddr, event: Tftp) {
        self.events.emit(What::Tftp { peer: peer.ip(), event });
    }
}

/// Reports a packet that is kept with the boot of `peer`.
fn keep(events: &Sink, peer: SocketAddr, (from, to): (SocketAddr, SocketAddr), payload: &[u8]) {
    if let Some(packet) = datagram::udp_packet(from, to, payload) {
        events.emit_if_calm(|| What::Packet { of: Of::Peer(peer.ip()), packet: packet.into() });
    }
}

/// Sends blocks, reading them if they are not there: behind lock step by reading ahead, for a window all at once.
fn send_data(
    session: &mut Session,
    first: u64,
    count: u16,
    confirm: bool,
    shared: &mut Blocks,
) -> std::io::Result<Sent> {
    let layout = Layout { size: session.file.size, blksize: session.transfer.blksize() };
    let blocks = match &mut session.read_ahead {
        Some(own) if own.has(first, count) => own,
        Some(own) if own.room(layout.blksize) >= usize::from(count) => {
            own.load(&session.file.fd, layout, first, own.room(layout.blksize))?;
            own
        }
        _ => {
            shared.load(&session.file.fd, layout, first, usize::from(count))?;
            shared
        }
    };
    if count == 1 {
        return Ok(session.socket.send(blocks.packet(first), confirm));
    }
    Ok(session.socket.send_window(blocks, first, count, confirm))
}
