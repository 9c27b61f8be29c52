//! A TFTP client that can be told to misbehave, and a server with a tree of known files, for the tests of the server.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use piboot::clock::Clock;
use piboot::events::{Event, Sink, Tftp, What};
use piboot::net::AddressBook;
use piboot::pi::{Mac, Serial};
use piboot::tftp::{Device, Handle, Limits, Routes, Server, ServerConfig};
use tokio::sync::mpsc::Receiver;

/// Longer than anything that works takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

pub const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub const SERIAL: &str = "38c128c0";

/// A server on loopback with one device that anyone may read, and what it reported.
pub struct TestServer {
    pub handle: Handle,
    pub book: AddressBook,
    pub events: Receiver<Event>,
    pub boot: PathBuf,
    scratch: tempfile::TempDir,
}

impl TestServer {
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let boot = scratch.path().join("boot");
        std::fs::create_dir(&boot).unwrap();
        let mut config = ServerConfig {
            listen: vec!["0.0.0.0:0".parse().unwrap()],
            limits: Limits {
                requests_per_second: 1_000_000,
                request_burst: 1_000_000,
                // A busy machine must not look like a lossy link: tests of retransmission set their own.
                retransmit_after: Duration::from_secs(5),
                ..Limits::default()
            },
            ..ServerConfig::default()
        };
        change(&mut config);
        let book = AddressBook::observed_only();
        let (sink, events) = Sink::new(Clock::system());
        let routes = Arc::new(Routes::new(vec![open_device(&boot)], None));
        let handle = Server::start(config, routes, book.clone(), sink).unwrap();
        Self { handle, book, events, boot, scratch }
    }

    /// A scratch directory beside the boot tree.
    pub fn outside(&self) -> &Path {
        self.scratch.path()
    }

    pub fn port(&self) -> u16 {
        self.handle.addresses()[0].port()
    }

    /// The server at `ip`.
    pub fn at(&self, ip: impl Into<IpAddr>) -> SocketAddr {
        SocketAddr::new(ip.into(), self.port())
    }

    pub fn address(&self) -> SocketAddr {
        self.at(LOCALHOST)
    }

    /// Puts a file of `size` known bytes into the boot tree and returns them.
    pub fn file(&self, name: &str, size: usize) -> Vec<u8> {
        let bytes = known_bytes(size, name.len() as u32);
        std::fs::write(self.boot.join(name), &bytes).unwrap();
        bytes
    }

    /// The next event of TFTP, waiting for it.
    pub fn event(&mut self) -> (IpAddr, Tftp) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        loop {
            let event = runtime.block_on(async { tokio::time::timeout(PATIENCE, self.events.recv()).await });
            match event.expect("an event in time").expect("the server lives").what {
                What::Tftp { peer, event } => return (peer, event),
                What::Packet { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next event that closes a transfer, waiting for it.
    pub fn closed(&mut self) -> Tftp {
        loop {
            if let (_, event @ Tftp::Closed { .. }) = self.event() {
                return event;
            }
        }
    }
}

pub fn open_device(boot: &Path) -> Device {
    Device { id: "open".to_owned(), serial: Some(SERIAL.parse::<Serial>().unwrap()), mac: None, boot: boot.to_owned() }
}

pub fn device(id: &str, serial: Option<&str>, mac: Option<Mac>, boot: &Path) -> Device {
    let serial = serial.map(|serial| serial.parse::<Serial>().unwrap());
    Device { id: id.to_owned(), serial, mac, boot: boot.to_owned() }
}

/// Bytes that differ from block to block, so that a block in the wrong place shows.
pub fn known_bytes(size: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(size + 4);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// An answer of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Data(u16, Vec<u8>),
    Oack(Vec<(String, String)>),
    Error(u16, String),
}

/// One UDP socket of a client.
pub struct Client {
    pub socket: UdpSocket,
    server: SocketAddr,
    /// Where the first answer came from.
    pub tid: Option<SocketAddr>,
    dropped: DropPattern,
}

/// Which packets the client pretends never came, or never leave.
struct DropPattern {
    state: u32,
    permille: u32,
}

impl DropPattern {
    fn drops(&mut self) -> bool {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        self.state % 1000 < self.permille
    }
}

impl Client {
    /// A client of `server` with a port of its own.
    pub fn new(server: SocketAddr) -> Self {
        let any: SocketAddr = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        Self::bound(server, any)
    }

    pub fn bound(server: SocketAddr, local: SocketAddr) -> Self {
        let socket = UdpSocket::bind(local).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, server, tid: None, dropped: DropPattern { state: 1, permille: 0 } }
    }

    /// Loses `permille` of the packets in each direction, as `seed` has it.
    pub fn lossy(mut self, permille: u32, seed: u32) -> Self {
        self.dropped = DropPattern { state: seed, permille };
        self
    }

    /// Sends a read request from this port: a new transfer.
    pub fn request(&mut self, path: &str, options: &[(&str, &str)]) {
        self.request_raw(&read_request(path.as_bytes(), options));
    }

    pub fn request_raw(&mut self, packet: &[u8]) {
        self.tid = None;
        self.socket.send_to(packet, self.server).unwrap();
    }

    pub fn ack(&mut self, block: u16) {
        let [high, low] = block.to_be_bytes();
        self.send(&[0, 4, high, low]);
    }

    pub fn early_terminate(&mut self) {
        self.send(b"\x00\x05\x00\x00Early terminate\0");
    }

    pub fn send(&mut self, packet: &[u8]) {
        if !self.dropped.drops() {
            self.socket.send_to(packet, self.tid.expect("the server has answered")).unwrap();
        }
    }

    /// The next answer; the first one fixes the server's transfer id, others' packets are passed over.
    pub fn answer(&mut self) -> Answer {
        self.answer_within(PATIENCE).expect("an answer")
    }

    /// The next answer unless `wait` goes by first.
    pub fn answer_within(&mut self, wait: Duration) -> Option<Answer> {
        let mut packet = [0; 70_000];
        self.socket.set_read_timeout(Some(wait)).unwrap();
        loop {
            let (length, from) = match self.socket.recv_from(&mut packet) {
                Ok(received) => received,
                Err(error) => {
                    let kind = error.kind();
                    assert!(matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{error}");
                    return None;
                }
            };
            if self.dropped.drops() || *self.tid.get_or_insert(from) != from {
                continue;
            }
            return Some(decode(&packet[..length]));
        }
    }

    /// Asks for `path` and returns its bytes as a client must see them, or the error.
    pub fn fetch(&mut self, path: &str, options: &[(&str, &str)]) -> Result<Vec<u8>, (u16, String)> {
        let number = |name: &str, fallback: usize| {
            options.iter().find(|(n, _)| *n == name).map_or(fallback, |(_, value)| value.parse().unwrap())
        };
        let (blksize, window) = (number("blksize", 512), number("windowsize", 1));
        let request = read_request(path.as_bytes(), options);
        let mut bytes = Vec::new();
        let (mut received, mut in_window, mut gap_reported) = (0_u16, 0, false);
        let mut last_sent = request.clone();
        self.request_raw(&request);
        for _ in 0..10 {
            while let Some(answer) = self.answer_within(Duration::from_secs(1)) {
                match answer {
                    Answer::Error(code, message) => return Err((code, message)),
                    Answer::Oack(_) if received == 0 && bytes.is_empty() => last_sent = vec![0, 4, 0, 0],
                    Answer::Oack(_) => continue,
                    Answer::Data(number, data) if number == received.wrapping_add(1) => {
                        received = number;
                        bytes.extend_from_slice(&data);
                        in_window += 1;
                        gap_reported = false;
                        last_sent = [&[0, 4][..], &number.to_be_bytes()].concat();
                        if data.len() < blksize {
                            self.send_sure(&last_sent);
                            return Ok(bytes);
                        }
                        if in_window < window {
                            continue;
                        }
                    }
                    Answer::Data(number, _) if window == 1 && number != received => continue,
                    Answer::Data(..) if gap_reported => continue,
                    Answer::Data(..) => gap_reported = window > 1,
                }
                in_window = 0;
                let packet = last_sent.clone();
                self.send(&packet);
            }
            let to = self.tid.unwrap_or(self.server);
            self.socket.send_to(&last_sent, to).unwrap();
        }
        panic!("no progress at block {received} of {path}");
    }

    /// The last ACK: lost, it would only cost the server a retransmission to nobody.
    fn send_sure(&mut self, packet: &[u8]) {
        self.socket.send_to(packet, self.tid.unwrap()).unwrap();
    }
}

pub fn read_request(path: &[u8], options: &[(&str, &str)]) -> Vec<u8> {
    let mut packet = [b"\x00\x01", path, b"\0octet\0"].concat();
    for (name, value) in options {
        packet.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    packet
}

fn decode(packet: &[u8]) -> Answer {
    let number = u16::from_be_bytes([packet[2], packet[3]]);
    match packet[1] {
        3 => Answer::Data(number, packet[4..].to_vec()),
        5 => Answer::Error(number, String::from_utf8(packet[4..packet.len() - 1].to_vec()).unwrap()),
        6 => {
            let text = std::str::from_utf8(&packet[2..packet.len() - 1]).unwrap();
            let words: Vec<_> = text.split('\0').map(str::to_owned).collect();
            Answer::Oack(words.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
        }
        other => panic!("opcode {other}"),
    }
}

/// An OACK with these options.
pub fn oack(options: &[(&str, &str)]) -> Answer {
    Answer::Oack(options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}
