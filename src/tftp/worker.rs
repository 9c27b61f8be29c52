//! The thread that serves: one epoll loop over the listeners and every transfer's socket.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::blocks::{Blocks, Layout};
use super::guard::{Holders, LogLimiter, RateLimiter};
use super::open::{self, OpenError};
use super::slots::{Key, Slots, Timers};
use super::socket::{Arrived, Asked, Connected, Listener, Received, Sent};
use super::transfer::{Action, MAX_WINDOW_BYTES, MAX_WINDOWSIZE, Terms, Transfer};
use super::tree::{Refusal, Routes};
use super::wire::{self, ErrorCode, Mode, Options, Packet, ParseError, Request};
use super::{ServerConfig, Shared, Stats};
use crate::clock::{Clock, Moment};
use crate::events::{Sink, Tftp, TftpEnd, What};
use crate::net::AddressBook;
use crate::pi::Mac;

/// Largest request looked at; RFC 2347 allows 512 bytes.
const MAX_REQUEST: usize = 1024;
/// Requests taken from a listener before transfers get their turn again.
const REQUESTS_PER_TURN: usize = 64;
/// Sockets looked at per turn.
const EVENTS_PER_TURN: usize = 64;
/// Largest block over IPv6 that fits an Ethernet frame: 1500 - 40 - 8 - 4.
const MAX_BLKSIZE_IPV6: u16 = 1448;
/// Files already warned about, so that each boot does not repeat it.
const MAX_WARNED: usize = 256;
/// Bytes read ahead for a transfer in lock step: one read for eleven to thirty blocks.
const READ_AHEAD: usize = 16 * 1024;
/// Transfers that have such a buffer; the others read block by block. Bounds them to a megabyte.
const MAX_READING_AHEAD: usize = 64;
/// Such buffers kept for the next transfer.
const MAX_SPARE: usize = 4;
/// From this size on the kernel is told that a file is read from front to back.
const SEQUENTIAL_FROM: u64 = 256 * 1024;
/// Tokens above every key's.
const WAKE_TOKEN: u64 = u64::MAX;
const LISTENER_TOKENS: u64 = u64::MAX - 1024;

/// One transfer with its means.
struct Session {
    transfer: Transfer,
    socket: Connected,
    file: open::File,
    peer: SocketAddr,
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
    /// Requests and acknowledgements come in here.
    inbox: Vec<u8>,
    /// OACK and ERROR packets are made here.
    outbox: Vec<u8>,
    /// Blocks on their way from file to socket, of transfers without a buffer of their own.
    blocks: Blocks,
    /// Buffers for reading ahead that no transfer uses now.
    spare: Vec<Blocks>,
    /// Buffers for reading ahead in use.
    lent: usize,
    next_number: u32,
}

/// Why a request is not served.
enum Denial {
    /// Answer with this.
    Refuse(ErrorCode, &'static str),
    /// Say nothing: the client will ask again, and an ERROR would make a Pi boot on without the file.
    Ignore,
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
            inbox: vec![0; MAX_REQUEST],
            outbox: Vec::with_capacity(128),
            blocks: Blocks::with_capacity(blocks),
            spare: Vec::new(),
            lent: 0,
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

    // === requests ===

    fn on_listener(&mut self, now: Moment, index: usize) {
        let mut inbox = std::mem::take(&mut self.inbox);
        for _ in 0..REQUESTS_PER_TURN {
            match self.listeners.get_mut(index).map(|listener| listener.receive(&mut inbox)) {
                Some(Ok(received)) => {
                    let packet = wire::parse(inbox.get(..received.length).unwrap_or_default());
                    self.on_datagram(now, index, &received, packet);
                }
                Some(Err(error)) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    log::debug!("TFTP listener: {error}");
                    break;
                }
                Some(Err(_)) | None => break,
            }
        }
        self.inbox = inbox;
    }

    fn on_datagram(
        &mut self,
        now: Moment,
        listener: usize,
        received: &Received,
        packet: Result<Packet<'_>, ParseError>,
    ) {
        // A request to a broadcast address is for nobody in particular (RFC 1123 §4.2.3.5), and port 0 cannot be answered.
        let Some(asked) = received.asked else { return };
        let peer = received.peer;
        if peer.port() == 0 || !self.is_served_interface(asked.interface) {
            return;
        }
        if !self.rate.admit(now, peer.ip()) {
            self.stats.dropped = self.stats.dropped.wrapping_add(1);
            if self.log_limit.admit(now, peer.ip()) {
                log::warn!("{} sends too many TFTP requests; ignoring some", peer.ip());
            }
            return;
        }
        let (code, message) = match packet {
            Ok(Packet::Read(request)) => return self.on_request(now, listener, asked, peer, &request),
            Ok(Packet::Write) => (ErrorCode::AccessViolation, "this server is read-only"),
            // Nothing is said to an ERROR, or two servers could go on forever (RFC 1350 §7).
            Ok(Packet::Error { .. }) | Err(ParseError::Short) => return,
            Ok(Packet::Ack(_) | Packet::Data | Packet::Oack) => (ErrorCode::UnknownTransfer, "unknown transfer"),
            Err(ParseError::Opcode(_) | ParseError::Request) => (ErrorCode::IllegalOperation, "malformed request"),
        };
        self.refuse(listener, asked, peer, code, message);
    }

    fn on_request(&mut self, now: Moment, listener: usize, asked: Asked, peer: SocketAddr, request: &Request<'_>) {
        if let Some(&key) = self.by_peer.get(&peer)
            && let Some(session) = self.sessions.get_mut(key)
        {
            // The same packet twice, or a new transfer from a port used before, as boot ROMs have it.
            if session.transfer.is_fresh() && *session.path == *request.path && session.asked == request.options {
                return;
            }
            self.end(now, key, TftpEnd::Replaced);
        }
        let path: Arc<[u8]> = Arc::from(request.path);
        match self.begin(now, asked, peer, request, Arc::clone(&path)) {
            Ok((key, action)) => self.perform(now, key, action),
            Err(Denial::Ignore) => self.stats.dropped = self.stats.dropped.wrapping_add(1),
            Err(Denial::Refuse(code, message)) => {
                self.refuse(listener, asked, peer, code, message);
                self.emit(peer, Tftp::Miss { path, code: code.number() });
            }
        }
    }

    fn begin(
        &mut self,
        now: Moment,
        asked: Asked,
        peer: SocketAddr,
        request: &Request<'_>,
        path: Arc<[u8]>,
    ) -> Result<(Key, Action), Denial> {
        if request.mode == Mode::Unknown {
            return Err(Denial::Refuse(ErrorCode::IllegalOperation, "unknown transfer mode"));
        }
        let routes = Arc::clone(&self.shared.routes.lock().unwrap_or_else(PoisonError::into_inner));
        let file = self.find(now, &routes, peer.ip(), request.path)?;
        self.make_room(now, peer.ip())?;
        let limits = &self.config.limits;
        let max_blksize = if peer.is_ipv6() { limits.max_blksize.min(MAX_BLKSIZE_IPV6) } else { limits.max_blksize };
        let terms = Terms::agree(&request.options, max_blksize);
        let socket = Connected::open(asked, peer).map_err(|error| {
            if self.log_limit.admit(now, peer.ip()) {
                log::warn!("cannot open a socket from {} to {peer}: {error}", asked.ip);
            }
            Denial::Ignore
        })?;
        let (transfer, action) = Transfer::start(now, &terms, file.size, limits.retransmit_after);
        if file.size >= SEQUENTIAL_FROM {
            // Advice: without it the file is read all the same.
            let _ = rustix::fs::fadvise(&file.fd, 0, None, rustix::fs::Advice::Sequential);
        }
        if transfer.wraps() {
            self.warn_of_wrap(&file, request.path, terms.blksize);
        }
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        let timer = transfer.deadline();
        let size = file.size;
        let read_ahead = self.lend(&terms, size);
        let key = self.sessions.insert(Session {
            read_ahead,
            transfer,
            socket,
            file,
            peer,
            path: Arc::clone(&path),
            asked: request.options,
            accepted: terms.accepted,
            number,
            started: now,
            last_heard: now,
            timer,
        });
        if let Some(session) = self.sessions.get_mut(key)
            && let Err(errno) = self.epoll.add(&session.socket, EpollEvent::new(EpollFlags::EPOLLIN, key.token()))
        {
            log::warn!("cannot watch a TFTP socket: {errno}");
            if let Some(session) = self.sessions.remove(key) {
                self.give_back(session.read_ahead);
            }
            return Err(Denial::Ignore);
        }
        self.by_peer.insert(peer, key);
        self.timers.push(timer, key);
        self.stats.transfers = self.stats.transfers.wrapping_add(1);
        let (blksize, windowsize) = (terms.blksize, terms.windowsize);
        self.emit(peer, Tftp::Open { transfer: number, path, size, blksize, windowsize });
        Ok((key, action))
    }

    fn find(&mut self, now: Moment, routes: &Routes, peer: IpAddr, path: &[u8]) -> Result<open::File, Denial> {
        let target = routes.resolve(path, || self.holders.of(now, peer)).map_err(|refusal| {
            let code = match refusal {
                Refusal::NotFound => return Denial::Refuse(ErrorCode::NotFound, "file not found"),
                Refusal::BadPath => (ErrorCode::AccessViolation, "path not allowed"),
                Refusal::NotYours => (ErrorCode::AccessViolation, "not your files"),
            };
            if self.log_limit.admit(now, peer) {
                let holder: Option<Mac> = self.holders.of(now, peer);
                let holder = holder.map_or_else(|| "unknown hardware address".to_owned(), |mac| mac.to_string());
                log::warn!("refused TFTP request of {peer} ({holder}) for {}: {}", path.escape_ascii(), code.1);
            }
            Denial::Refuse(code.0, code.1)
        })?;
        let of_device = target.device.map(|(device, path)| open::open_beneath(&device.boot, &path, &mut self.names));
        let found = match (of_device, target.fallback) {
            (Some(Err(OpenError::NotFound)) | None, Some(fallback)) => open::open_trusted(fallback),
            (Some(found), _) => found,
            (None, None) => Err(OpenError::NotFound),
        };
        found.map_err(|error| {
            let denial = match &error {
                OpenError::NotFound => return Denial::Refuse(ErrorCode::NotFound, "file not found"),
                OpenError::NoDirectory(_) => Denial::Refuse(ErrorCode::NotFound, "file not found"),
                OpenError::Denied => Denial::Refuse(ErrorCode::AccessViolation, "access denied"),
                OpenError::Failed(_) => Denial::Refuse(ErrorCode::Undefined, "cannot open the file"),
                OpenError::Busy => Denial::Ignore,
            };
            if self.log_limit.admit(now, peer) {
                log::warn!("cannot serve {} to {peer}: {error}", path.escape_ascii());
            }
            denial
        })
    }

    /// Makes sure that one more transfer stays within the limits. A client that fills its share can only push out its
    /// own oldest transfer; when all is full, one that has been silent for longest makes room.
    fn make_room(&mut self, now: Moment, ip: IpAddr) -> Result<(), Denial> {
        let limits = self.config.limits;
        let own = self.sessions.iter().filter(|(_, session)| session.peer.ip() == ip);
        if own.count() >= limits.transfers_per_address {
            let own = self.sessions.iter().filter(|(_, session)| session.peer.ip() == ip);
            if let Some((key, _)) = own.min_by_key(|(_, session)| session.last_heard) {
                self.end(now, key, TftpEnd::Replaced);
            }
        }
        if self.sessions.len() < limits.transfers {
            return Ok(());
        }
        let silent = self.sessions.iter().min_by_key(|(_, session)| session.last_heard);
        match silent.map(|(key, session)| (key, now.since(session.last_heard))) {
            Some((key, silence)) if silence >= Duration::from_secs(2) => {
                self.end(now, key, TftpEnd::Timeout);
                Ok(())
            }
            _ => {
                if self.log_limit.admit(now, ip) {
                    log::warn!("{} TFTP transfers at once; {ip} has to ask again", limits.transfers);
                }
                Err(Denial::Ignore)
            }
        }
    }

    fn is_served_interface(&mut self, index: u32) -> bool {
        if self.config.interfaces.is_empty() || self.interfaces.contains(&index) {
            return true;
        }
        // Interfaces come and go: names are looked up anew whenever an unknown index shows up.
        let names = self.config.interfaces.iter();
        self.interfaces = names.filter_map(|name| if_nametoindex(name.as_str()).ok()).collect();
        self.interfaces.contains(&index)
    }

    /// A buffer for reading ahead, where it helps and there are some left.
    fn lend(&mut self, terms: &Terms, size: u64) -> Option<Blocks> {
        if terms.windowsize > 1 || size <= u64::from(terms.blksize) || self.lent >= MAX_READING_AHEAD {
            return None;
        }
        self.lent += 1;
        Some(self.spare.pop().unwrap_or_else(|| Blocks::with_capacity(READ_AHEAD)))
    }

    fn give_back(&mut self, buffer: Option<Blocks>) {
        let Some(mut buffer) = buffer else { return };
        self.lent -= 1;
        if self.spare.len() < MAX_SPARE {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    fn warn_of_wrap(&mut self, file: &open::File, path: &[u8], blksize: u16) {
        if self.warned.len() >= MAX_WARNED {
            self.warned.clear();
        }
        if self.warned.insert(file.identity) {
            log::warn!(
                "{} has {} bytes, more than 65535 blocks of {blksize}: bootloaders older than September 2025 cannot \
                 load it over the network (largest: {} bytes)",
                path.escape_ascii(),
                file.size,
                65_535 * u32::from(blksize)
            );
        }
    }

    fn refuse(&mut self, listener: usize, asked: Asked, peer: SocketAddr, code: ErrorCode, message: &str) {
        self.stats.refused = self.stats.refused.wrapping_add(1);
        wire::encode_error(code, message, &mut self.outbox);
        if let Some(listener) = self.listeners.get(listener)
            && let Err(error) = listener.reply(peer, asked, &self.outbox)
        {
            log::debug!("cannot answer {peer}: {error}");
        }
    }

    // === transfers ===

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
                session.socket.send(&self.outbox, false)
            }
            Action::SendData { first, count } => {
                let confirm = session.last_heard == now;
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
        self.give_back(session.read_ahead);
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
