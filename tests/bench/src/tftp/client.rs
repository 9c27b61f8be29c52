//! The load: one epoll thread plays any number of Pis, each going through its list of requests.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::cases::{Case, Step, Tree};
use super::servers::ADDRESS;
use super::{pi_ip, serial};
use crate::measure::Error;

/// A client says its last word again after this time.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);
/// And gives up after so many times.
const CLIENT_TRIES: u32 = 10;

/// What playing a case came to.
pub struct Outcome {
    pub bytes: u64,
    pub wall: Duration,
    /// Median time of a Pi for its list.
    pub client_p50: Duration,
    /// Median time of a "not found".
    pub miss_p50: Duration,
    pub misses: usize,
}

/// One emulated Pi.
struct Pi<'a> {
    number: usize,
    case: &'a Case,
    tree: &'a Tree,
    next_step: usize,
    exchange: Option<Exchange>,
    random: u32,
    bytes: u64,
    misses: Vec<Duration>,
    finished: Option<Duration>,
}

/// One request and what follows.
struct Exchange {
    socket: UdpSocket,
    step: Step,
    started: Instant,
    tid: Option<SocketAddr>,
    last_sent: Vec<u8>,
    sent_at: Instant,
    tries: u32,
    /// Blocks received.
    received: u64,
}

/// What a packet meant.
enum Progress {
    Goes,
    Finished,
}

/// Asks for nothing in particular until the server answers.
pub fn wait_until_served(mut is_alive: impl FnMut() -> bool) -> Result<(), Error> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    for _ in 0..250 {
        if !is_alive() {
            return Err(Error::new("the server ended at once"));
        }
        // Refused as long as nobody listens.
        let _ = socket.send_to(b"\x00\x01are you there\0octet\0", ADDRESS);
        if socket.recv_from(&mut [0; 600]).is_ok() {
            return Ok(());
        }
    }
    Err(Error::new("the server does not answer"))
}

/// Plays `case` and checks every byte.
pub fn play(case: &Case, tree: &Tree) -> Result<Outcome, Error> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let start = Instant::now();
    let mut pis: Vec<_> = (0..case.pis).map(|number| Pi::new(number, case, tree)).collect();
    for pi in &mut pis {
        pi.advance(&epoll, start)?;
    }
    let mut ready = [EpollEvent::empty(); 64];
    let mut last_scan = start;
    let mut left = case.pis;
    while left > 0 {
        let count = epoll.wait(&mut ready, EpollTimeout::from(50_u8)).unwrap_or(0);
        for event in ready.iter().take(count) {
            let number = usize::try_from(event.data()).unwrap_or(usize::MAX);
            let Some(pi) = pis.get_mut(number) else { continue };
            if let Progress::Finished = pi.receive()? {
                pi.advance(&epoll, start)?;
                left -= usize::from(pi.finished.is_some());
            }
        }
        if last_scan.elapsed() > Duration::from_millis(50) {
            last_scan = Instant::now();
            if start.elapsed() > case.time_limit {
                return Err(Error::new(format!("not finished after {:?}", case.time_limit)));
            }
            for pi in &mut pis {
                pi.repeat_if_silent(last_scan)?;
            }
        }
    }
    let wall = start.elapsed();
    let misses: Vec<_> = pis.iter().flat_map(|pi| pi.misses.iter().copied()).collect();
    Ok(Outcome {
        bytes: pis.iter().map(|pi| pi.bytes).sum(),
        wall,
        client_p50: median(pis.iter().filter_map(|pi| pi.finished).collect()),
        misses: misses.len(),
        miss_p50: median(misses),
    })
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations.get(durations.len() / 2).copied().unwrap_or_default()
}

impl<'a> Pi<'a> {
    fn new(number: usize, case: &'a Case, tree: &'a Tree) -> Self {
        let random = (u32::try_from(number).unwrap_or(0) + 1) * 0x9e37_79b1;
        Self { number, case, tree, next_step: 0, exchange: None, random, bytes: 0, misses: Vec::new(), finished: None }
    }

    /// The next request, from a fresh port, if there is one.
    fn advance(&mut self, epoll: &Epoll, start: Instant) -> Result<(), Error> {
        self.exchange = None;
        let Some(&step) = self.case.steps.get(self.next_step) else {
            self.finished = Some(start.elapsed());
            return Ok(());
        };
        self.next_step += 1;
        let socket = UdpSocket::bind((pi_ip(self.number), 0))?;
        socket.set_nonblocking(true)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, self.number as u64))?;
        let (Step::Fetch(name) | Step::Missing(name) | Step::Probe(name)) = step;
        let mut request = format!("\0\x01{}/{name}\0octet\0", serial(self.number)).into_bytes();
        if self.case.blksize != 512 {
            request.extend_from_slice(format!("tsize\x000\0blksize\0{}\0", self.case.blksize).as_bytes());
        }
        let now = Instant::now();
        socket.send_to(&request, ADDRESS)?;
        let exchange =
            Exchange { socket, step, started: now, tid: None, last_sent: request, sent_at: now, tries: 0, received: 0 };
        self.exchange = Some(exchange);
        Ok(())
    }

    fn loses(&mut self) -> bool {
        if self.case.loss_permille == 0 {
            return false;
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random % 1000 < self.case.loss_permille
    }

    fn receive(&mut self) -> Result<Progress, Error> {
        let mut packet = [0; 1500];
        let Some(exchange) = &mut self.exchange else { return Ok(Progress::Goes) };
        let (length, from) = match exchange.socket.recv_from(&mut packet) {
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Goes),
            Err(error) => return Err(error.into()),
        };
        if self.loses() {
            return Ok(Progress::Goes);
        }
        let Some(exchange) = &mut self.exchange else { return Ok(Progress::Goes) };
        // Whoever answers first is the peer; others do not count (RFC 1350 §4).
        if *exchange.tid.get_or_insert(from) != from {
            return Ok(Progress::Goes);
        }
        let ack = match (exchange.step, &packet[..length]) {
            (Step::Missing(_), [0, 5, 0, 1, ..]) => {
                self.misses.push(exchange.started.elapsed());
                return Ok(Progress::Finished);
            }
            (Step::Probe(_), [0, 3 | 6, ..]) => {
                exchange.socket.send_to(b"\x00\x05\x00\x00Early terminate\0", from)?;
                return Ok(Progress::Finished);
            }
            (Step::Fetch(_), [0, 6, ..]) if exchange.received == 0 => 0,
            (Step::Fetch(_), [0, 6, ..]) => return Ok(Progress::Goes),
            (Step::Fetch(name), [0, 3, high, low, data @ ..]) => {
                let number = u16::from_be_bytes([*high, *low]);
                if number == wire_number(exchange.received + 1) {
                    let offset = usize::try_from(exchange.received)? * self.case.blksize;
                    let expected = self.tree.content(name);
                    let end = expected.len().min(offset + self.case.blksize);
                    if expected.get(offset..end) != Some(data) {
                        return Err(Error::new(format!("wrong bytes in block {} of {name}", exchange.received + 1)));
                    }
                    exchange.received += 1;
                    self.bytes += data.len() as u64;
                    if data.len() < self.case.blksize {
                        exchange.socket.send_to(&[0, 4, *high, *low], from)?;
                        return Ok(Progress::Finished);
                    }
                } else if number != wire_number(exchange.received) {
                    return Ok(Progress::Goes);
                }
                number
            }
            (step, packet) => {
                let start = packet.get(..packet.len().min(40)).unwrap_or_default().escape_ascii();
                return Err(Error::new(format!("unexpected answer to {step:?}: {start}")));
            }
        };
        let [high, low] = ack.to_be_bytes();
        let lost = self.loses();
        let Some(exchange) = &mut self.exchange else { return Ok(Progress::Goes) };
        exchange.last_sent.clear();
        exchange.last_sent.extend_from_slice(&[0, 4, high, low]);
        exchange.sent_at = Instant::now();
        exchange.tries = 0;
        if !lost {
            exchange.socket.send_to(&exchange.last_sent, from)?;
        }
        Ok(Progress::Goes)
    }

    fn repeat_if_silent(&mut self, now: Instant) -> Result<(), Error> {
        let lost = self.loses();
        let Some(exchange) = &mut self.exchange else { return Ok(()) };
        if now.saturating_duration_since(exchange.sent_at) < CLIENT_TIMEOUT {
            return Ok(());
        }
        exchange.tries += 1;
        if exchange.tries > CLIENT_TRIES {
            let (step, received) = (exchange.step, exchange.received);
            return Err(Error::new(format!("Pi {} got no answer to {step:?} after block {received}", self.number)));
        }
        exchange.sent_at = now;
        if !lost {
            let to = exchange.tid.map_or_else(|| ADDRESS.parse(), Ok)?;
            exchange.socket.send_to(&exchange.last_sent, to)?;
        }
        Ok(())
    }
}

fn wire_number(block: u64) -> u16 {
    u16::try_from(block & 0xffff).unwrap_or(0)
}
