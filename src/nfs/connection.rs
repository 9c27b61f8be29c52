//! One TCP connection: records in, replies out, and the thread that reads it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};

use super::access::{CachedView, Client, Peer};
use super::dispatch::{self, Lane, Verdict};
use super::fs::sys;
use super::outbox::Outbox;
use super::pool::{Job, Message};
use super::rpc::RecordMark;
use super::shared::{Counters, Limits, Shared, Worker};
use super::xdr;
use crate::clock::Moment;

/// Requests up to this size are read and run in a buffer that the connection keeps.
const INBOX: usize = 8 << 10;
/// Longest request that fits there with its mark.
const SHORT: usize = INBOX - 4;
/// Memory for a large request grows in such steps as it arrives.
const STEP: usize = 64 << 10;
/// A peer that is silent for this long is asked whether it is still there,
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// this often,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// so many times.
const KEEPALIVE_PROBES: u32 = 3;
/// A peer that has not acknowledged anything for so long is gone; it may also have been a switch that started anew. Where this
/// is set it also counts for keepalive, in place of the number of probes (tcp(7)).
const UNANSWERED: Duration = Duration::from_secs(30);
/// Fragments of one record at most: real clients send one.
const MAX_FRAGMENTS: usize = 64;

/// Which programs answer on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// NFS and MOUNT.
    Nfs,
    /// The portmapper.
    Portmap,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    from: Peer,
    pub(super) peer: IpAddr,
    pub(super) client: Client,
    pub(super) service: Service,
    writing: Mutex<()>,
    waiting: Mutex<Waiting>,
    requests: AtomicU32,
}

/// What the reader has been waiting for, and since when.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: Moment,
    /// For the rest of a request; else for the next one.
    for_rest: bool,
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        from: Peer,
        client: Client,
        service: Service,
        shared: &Shared,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        // A client that lost its power says no goodbye, and is soon back with further connections.
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        // The same for one that owes us an acknowledgement, which keepalive does not ask.
        SockRef::from(&stream).set_tcp_user_timeout(Some(UNANSWERED))?;
        stream.set_write_timeout(Some(shared.limits.send))?;
        Ok(Self {
            stream,
            from,
            peer: from.ip,
            client,
            service,
            writing: Mutex::new(()),
            waiting: Mutex::new(Waiting { since: shared.clock.now(), for_rest: false }),
            requests: AtomicU32::new(0),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the last request came, or the first part of one.
    pub(super) fn used(&self) -> Moment {
        self.waiting().since
    }

    /// Requests since it was opened; wraps.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether the client has been silent for too long, or takes too long over a request.
    pub(super) fn is_overdue(&self, now: Moment, limits: &Limits) -> bool {
        let Waiting { since, for_rest } = *self.waiting();
        now.since(since) >= if for_rest { limits.partial } else { limits.idle }
    }

    /// Takes no further requests.
    pub(super) fn close_reading(&self) {
        let _ = self.stream.shutdown(Shutdown::Read);
    }

    /// Breaks the connection off.
    pub(super) fn abort(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Sends the worker's reply, in one piece. If it cannot be sent the connection is broken off: a client would take
    /// the rest of a half-sent reply for the start of the next.
    pub(super) fn send(&self, worker: &mut Worker) {
        put_mark(worker);
        let result = {
            let _whole_reply = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            match &worker.tail {
                None => (&self.stream).write_all(&worker.reply),
                Some(_) => self.send_with_tail(worker),
            }
        };
        worker.reply_sent();
        self.check_sent(result);
    }

    /// Sends what is in the outbox, on the same terms.
    fn flush(&self, outbox: &mut Outbox) {
        let result = {
            let _whole_replies = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            outbox.send(&self.stream)
        };
        self.check_sent(result);
    }

    fn check_sent(&self, result: io::Result<()>) {
        if let Err(error) = result {
            log::debug!("NFS: reply to {} not sent: {error}", self.peer);
            self.abort();
        }
    }

    fn send_with_tail(&self, worker: &Worker) -> io::Result<()> {
        let mut head = worker.reply.as_slice();
        while !head.is_empty() {
            let sent = SockRef::from(&self.stream).send_with_flags(head, libc::MSG_MORE | libc::MSG_NOSIGNAL)?;
            head = head.get(sent..).unwrap_or_default();
        }
        let Some(tail) = &worker.tail else { return Ok(()) };
        let (mut offset, mut left) = (tail.offset, tail.length);
        while left > 0 {
            match rustix::fs::sendfile(&self.stream, &tail.file.fd, Some(&mut offset), left) {
                // The file got shorter since its length was promised: zeros, as a read of a hole would give.
                Ok(0) => break,
                Ok(sent) => left = left.saturating_sub(sent),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    // What is not about the connection is about the file: the client asks again, and is told then.
                    if !matches!(
                        errno,
                        Errno::AGAIN | Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::TIMEDOUT
                    ) {
                        log::error!("NFS: a file that {} reads: {errno}", self.peer);
                        tail.file.not_sendable();
                    }
                    return Err(errno.into());
                }
            }
        }
        let zeros = [0; 4096];
        let mut missing = left + xdr::padding(tail.length);
        while missing > 0 {
            let piece = missing.min(zeros.len());
            (&self.stream).write_all(&zeros[..piece])?;
            missing -= piece;
        }
        Ok(())
    }
}

/// Completes the record mark of the worker's reply.
fn put_mark(worker: &mut Worker) {
    let tail = worker.tail.as_ref().map_or(0, |tail| tail.length.saturating_add(xdr::padding(tail.length)));
    let length = worker.reply.len().saturating_sub(4).saturating_add(tail);
    // A reply is a little longer than max_transfer at most, far below 31 bits.
    xdr::patch_u32(&mut worker.reply, 0, u32::try_from(length).unwrap_or(0) | 1 << 31);
}

/// The reading side: what has arrived and was not looked at yet.
struct Inbox<'a> {
    connection: &'a Connection,
    shared: &'a Shared,
    bytes: Box<[u8; INBOX]>,
    start: usize,
    end: usize,
    /// The client's machine did not answer any more.
    gone: bool,
}

/// A record.
enum Record {
    /// In the inbox, at this place.
    Here(std::ops::Range<usize>),
    /// In memory of its own.
    Large(Message),
}

impl Inbox<'_> {
    /// Whether a whole short record is here, so that [`Inbox::next`] need not wait.
    fn has_next(&self) -> bool {
        let here = &self.bytes[self.start..self.end];
        here.first_chunk::<4>().is_some_and(|mark| {
            let mark = RecordMark::decode(*mark);
            mark.last && usize::try_from(mark.length).is_ok_and(|length| length <= SHORT && length <= here.len() - 4)
        })
    }

    /// Waits for the next record. `limit` says how long it may be if it is not short. `None`: the connection is over.
    fn next(&mut self, limit: impl FnOnce() -> usize) -> Option<Record> {
        let mark = self.mark(false)?;
        let length = usize::try_from(mark.length).ok()?;
        if mark.last && length <= SHORT {
            self.fill(length, true)?;
            let record = self.start..self.start + length;
            self.start += length;
            return Some(Record::Here(record));
        }
        let limit = limit();
        if length > limit {
            Counters::count(&self.shared.counters.garbage);
            log::debug!("NFS: {}: a record of {length} bytes, {limit} are taken", self.connection.peer);
            return None;
        }
        self.large(mark, length, limit).map(Record::Large)
    }

    /// A record that does not fit the inbox, or comes in fragments.
    fn large(&mut self, mut mark: RecordMark, mut length: usize, limit: usize) -> Option<Message> {
        let whole = if mark.last { length } else { limit };
        let mut lease = self.shared.buffers.take(self.connection.client, whole)?;
        for _ in 0..MAX_FRAGMENTS {
            if lease.data.len().saturating_add(length) > limit {
                return None;
            }
            self.append(&mut lease.data, length)?;
            if mark.last {
                return Some(Message::Large(lease));
            }
            mark = self.mark(true)?;
            length = usize::try_from(mark.length).ok()?;
        }
        None
    }

    fn mark(&mut self, begun: bool) -> Option<RecordMark> {
        self.fill(4, begun)?;
        let mark = self.bytes.get(self.start..)?.first_chunk::<4>()?;
        self.start += 4;
        Some(RecordMark::decode(*mark))
    }

    /// Moves `length` bytes of the stream to the end of `out`, whose memory grows with what arrives.
    fn append(&mut self, out: &mut Vec<u8>, length: usize) -> Option<()> {
        let here = length.min(self.end - self.start);
        out.extend_from_slice(&self.bytes[self.start..self.start + here]);
        self.start += here;
        let mut left = length - here;
        self.expect_rest();
        while left > 0 {
            match sys::read_some(self.connection.stream.as_fd(), out, left.min(STEP)) {
                Ok(0) => return None,
                Ok(read) => left -= read,
                Err(Errno::INTR) => {}
                Err(errno) => {
                    self.gone = is_silence(errno);
                    return None;
                }
            }
        }
        Some(())
    }

    /// Makes sure that `wanted` bytes are in the inbox, waiting for them; `begun`: they belong to a request of which there
    /// was something already. For how long is the hall's business: it breaks off what is overdue, because a timeout of
    /// each read would cost as much as a system call.
    fn fill(&mut self, wanted: usize, begun: bool) -> Option<()> {
        if self.end - self.start >= wanted {
            return Some(());
        }
        if self.start + wanted > INBOX || self.start == self.end {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.end - self.start < wanted {
            if begun || self.start != self.end {
                self.expect_rest();
            }
            match (&self.connection.stream).read(&mut self.bytes[self.end..]) {
                Ok(0) => return None,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.gone = Errno::from_io_error(&error).is_some_and(is_silence);
                    return None;
                }
            }
        }
        Some(())
    }

    /// Part of a request is here.
    fn expect_rest(&self) {
        let mut waiting = self.connection.waiting();
        if !waiting.for_rest {
            *waiting = Waiting { since: self.shared.clock.now(), for_rest: true };
        }
    }
}

/// What the kernel says of a connection whose other end has not answered, by itself or by way of ARP (tcp(7)).
fn is_silence(errno: Errno) -> bool {
    matches!(errno, Errno::TIMEDOUT | Errno::HOSTUNREACH)
}

/// Reads and runs the requests of a connection until it ends. The calling thread is the connection's own.
pub(super) fn serve(connection: &Arc<Connection>, shared: &Arc<Shared>, worker: &mut Worker) {
    let mut inbox = Inbox { connection, shared, bytes: Box::new([0; INBOX]), start: 0, end: 0, gone: false };
    let mut cached: Option<CachedView> = None;
    let mut was_let_in = false;
    let mut outbox = Outbox::default();
    while !shared.is_stopping() {
        if !outbox.is_empty() && (outbox.is_full() || !inbox.has_next()) {
            connection.flush(&mut outbox);
        }
        let limit = || match connection.service {
            Service::Portmap => SHORT,
            // Who may use nothing has no reason to send much.
            Service::Nfs => {
                let may = !shared.access.view(connection.from, &mut cached, &shared.activity).is_empty();
                if may || was_let_in { shared.limits.max_record() } else { SHORT }
            }
        };
        let Some(record) = inbox.next(limit) else { break };
        Counters::count(&shared.counters.requests);
        // Only this thread writes it.
        connection.requests.store(connection.requests().wrapping_add(1), Ordering::Relaxed);
        *connection.waiting() = Waiting { since: shared.clock.now(), for_rest: false };
        let view = shared.access.view(connection.from, &mut cached, &shared.activity);
        if !was_let_in && !view.is_empty() {
            was_let_in = true;
            shared.activity.connected(connection.peer);
        }
        let run =
            |worker: &mut Worker, bytes: &[u8], lane| dispatch::run(worker, shared, connection, &view, bytes, lane);
        let verdict = match record {
            Record::Here(range) => {
                let bytes = &inbox.bytes[range];
                let mut verdict = Verdict::Defer;
                if !outbox.is_empty() {
                    verdict = run(worker, bytes, Lane::Instant);
                    if verdict == Verdict::Defer {
                        connection.flush(&mut outbox);
                    }
                }
                if verdict == Verdict::Defer {
                    verdict = run(worker, bytes, Lane::Quick);
                }
                match verdict {
                    Verdict::Defer if shared.pool.has_room(connection.client) => {
                        defer(connection, shared, &view, worker, Message::Small(bytes.to_vec()))
                    }
                    Verdict::Defer => run(worker, bytes, Lane::MaySleep),
                    verdict => verdict,
                }
            }
            Record::Large(message) => match run(worker, message.bytes(), Lane::Quick) {
                Verdict::Defer => defer(connection, shared, &view, worker, message),
                verdict => verdict,
            },
        };
        match verdict {
            Verdict::Reply if worker.is_small() && (inbox.has_next() || !outbox.is_empty()) => {
                put_mark(worker);
                outbox.put(&mut worker.reply);
            }
            Verdict::Reply => connection.send(worker),
            Verdict::Silent | Verdict::Defer => {}
            Verdict::HangUp => break,
        }
    }
    connection.flush(&mut outbox);
    connection.close_reading();
    if was_let_in && inbox.gone {
        log::debug!("NFS: {} does not answer any more", connection.peer);
        shared.activity.gone(connection.peer);
    }
}

/// Hands a message to the pool, or runs it here if no thread is free.
fn defer(
    connection: &Arc<Connection>,
    shared: &Arc<Shared>,
    view: &Arc<super::access::View>,
    worker: &mut Worker,
    message: Message,
) -> Verdict {
    let job = Job { connection: Arc::clone(connection), message, view: Arc::clone(view) };
    match shared.pool.offer(job) {
        Ok(()) => Verdict::Silent,
        Err(job) => dispatch::run(worker, shared, connection, view, job.message.bytes(), Lane::MaySleep),
    }
}

/// The life of a pool thread.
pub(super) fn work(shared: &Shared, worker: &mut Worker) {
    while let Some(job) = shared.pool.next() {
        let client = job.connection.client;
        match dispatch::run(worker, shared, &job.connection, &job.view, job.message.bytes(), Lane::MaySleep) {
            Verdict::Reply => job.connection.send(worker),
            Verdict::Silent | Verdict::Defer => {}
            Verdict::HangUp => job.connection.abort(),
        }
        drop(job);
        shared.pool.finished(client);
    }
}
