//! From a datagram at the well-known port to a transfer, a refusal or silence.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{Session, Worker, keep};
use crate::clock::Moment;
use crate::events::{Tftp, TftpEnd};
use crate::tftp::PORT;
use crate::tftp::guard::Client;
use crate::tftp::open::{self, OpenError};
use crate::tftp::slots::Key;
use crate::tftp::socket::{Asked, Connected, Received};
use crate::tftp::transfer::{Action, Terms, Transfer};
use crate::tftp::tree::{ROM_FILE, Refusal, RelativePath, Routes};
use crate::tftp::wire::{self, ErrorCode, Mode, Packet, ParseError, Request};

/// Largest block over IPv6 that fits an Ethernet frame: 1500 - 40 - 8 - 4.
const MAX_BLKSIZE_IPV6: u16 = 1448;
/// Files already warned about, so that each boot does not repeat it.
const MAX_WARNED: usize = 256;
/// Requests taken from a listener before transfers get their turn again.
const REQUESTS_PER_TURN: usize = 64;
/// From this size on the kernel is told that a file is read from front to back.
const SEQUENTIAL_FROM: u64 = 256 * 1024;

/// Why a request is not served.
enum Denial {
    /// Answer with this.
    Refuse(ErrorCode, &'static str),
    /// Say nothing: the client will ask again, and an ERROR would make a Pi boot on without the file.
    Ignore,
}

impl Worker {
    pub(super) fn on_listener(&mut self, now: Moment, index: usize) {
        let mut inbox = std::mem::take(&mut self.requests);
        for _ in 0..REQUESTS_PER_TURN {
            match self.listeners.get_mut(index).map(|listener| listener.receive(&mut inbox)) {
                Some(Ok(received)) => {
                    self.on_datagram(now, index, &received, inbox.get(..received.length).unwrap_or_default());
                }
                Some(Err(error)) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    log::debug!("TFTP listener: {error}");
                    break;
                }
                Some(Err(_)) | None => break,
            }
        }
        self.requests = inbox;
    }

    fn on_datagram(&mut self, now: Moment, listener: usize, received: &Received, datagram: &[u8]) {
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
        let (code, message) = match wire::parse(datagram) {
            Ok(Packet::Read(request)) => {
                keep(&self.events, peer, (peer, SocketAddr::new(asked.ip, PORT)), datagram);
                return self.on_request(now, listener, asked, peer, &request);
            }
            Ok(Packet::Write) => (ErrorCode::AccessViolation, "this server is read-only"),
            // Nothing is said to an ERROR, or two servers could go on forever (RFC 1350 §7).
            Ok(Packet::Error { .. }) | Err(ParseError::Short) => return,
            Ok(Packet::Ack(_) | Packet::Data | Packet::Oack) => (ErrorCode::UnknownTransfer, "unknown transfer"),
            Err(ParseError::Opcode(_) | ParseError::Request) => (ErrorCode::IllegalOperation, "malformed request"),
        };
        self.refuse(listener, asked, peer, code, message);
    }

    fn on_request(&mut self, now: Moment, listener: usize, asked: Asked, peer: SocketAddr, request: &Request<'_>) {
        if let Some(&key) = self.by_peer.get(&peer) {
            // An abort of the transfer before may have come already, by the transfer's own socket: without it the same
            // request in the next boot would pass for a copy of the one before and get no answer.
            self.on_socket(now, key);
        }
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
        let client = self.holders.client(now, peer.ip());
        self.make_room(now, peer.ip(), client)?;
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
        // A window is read as a whole anyway, a single block needs no more than itself.
        let in_steps = terms.windowsize == 1 && size > u64::from(terms.blksize);
        let read_ahead = if in_steps { self.pool.lend() } else { None };
        let key = self.sessions.insert(Session {
            read_ahead,
            transfer,
            socket,
            file,
            peer,
            client,
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
                self.pool.give_back(session.read_ahead);
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
                let holder = self.holders.of(now, peer);
                let holder = holder.map_or_else(|| "unknown hardware address".to_owned(), |mac| mac.to_string());
                log::warn!("refused TFTP request of {peer} ({holder}) for {}: {}", path.escape_ascii(), code.1);
            }
            Denial::Refuse(code.0, code.1)
        })?;
        let of_device = target.device.map(|(device, path)| open::open_beneath(&device.boot, &path, &mut self.names));
        let found = match (of_device, target.fallback) {
            (Some(Err(OpenError::NotFound)) | None, Some(fallback)) => RelativePath::new(ROM_FILE)
                .map_err(|_| OpenError::NotFound)
                .and_then(|name| open::open_without_links(fallback, &name, &mut self.names)),
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
    fn make_room(&mut self, now: Moment, ip: IpAddr, client: Client) -> Result<(), Denial> {
        let limits = self.config.limits;
        let own = self.sessions.iter().filter(|(_, session)| session.client == client);
        if own.count() >= limits.transfers_per_client {
            let own = self.sessions.iter().filter(|(_, session)| session.client == client);
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
        keep(&self.events, peer, (SocketAddr::new(asked.ip, PORT), peer), &self.outbox);
        if let Some(listener) = self.listeners.get(listener)
            && let Err(error) = listener.reply(peer, asked, &self.outbox)
        {
            log::debug!("cannot answer {peer}: {error}");
        }
    }
}
