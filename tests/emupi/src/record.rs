//! What happened during a boot, step by step.

use crate::json::Object;
use crate::model::Pi;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How a request for a file ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// All of it arrived.
    Whole {
        /// Length.
        bytes: u64,
        /// [`crate::digest::Digest`] of the content.
        digest: u64,
    },
    /// It exists; the board only wanted to know that and ended the transfer.
    Probed {
        /// Length, if the server told.
        size: Option<u64>,
    },
    /// The server answered with an error.
    Missing {
        /// TFTP error code.
        code: u16,
        /// The server's words.
        message: String,
    },
    /// No (further) answer; the board gave the file up.
    GaveUp {
        /// What had arrived.
        bytes: u64,
    },
    /// The transfer broke.
    Broken(String),
}

/// One request for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRequest {
    /// The name asked for.
    pub path: String,
    /// How it ended.
    pub fetched: Fetched,
    /// From the request to the end.
    pub took: Duration,
    /// Until the first answer, if one came.
    pub first_answer: Option<Duration>,
    /// Packets the board sent again.
    pub resent: u32,
    /// Packets it received twice.
    pub duplicates: u32,
    /// The block size in use.
    pub block_size: u16,
    /// The board's UDP port.
    pub port: u16,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A program takes over: rom, bootcode.bin, start.elf, eeprom, start4.elf.
    Stage(&'static str),
    /// DHCPDISCOVER number `attempt` was sent.
    Discover {
        /// Transaction id.
        xid: u32,
        /// Counted from 1.
        attempt: u32,
    },
    /// A DHCP message was sent or received.
    Dhcp {
        /// OFFER, REQUEST, ACK, NAK.
        kind: &'static str,
        /// The other side.
        server: Ipv4Addr,
        /// The address in question, unspecified if none.
        ip: Ipv4Addr,
        /// What the board makes of it.
        note: String,
    },
    /// The network is configured.
    Address {
        /// The board's address.
        ip: Ipv4Addr,
        /// The TFTP server.
        server: Ipv4Addr,
    },
    /// A file was asked for.
    File(FileRequest),
    /// Anything else worth telling.
    Note(String),
}

/// A step with its time since power-on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Since power-on. A file's entry is made when its transfer ends.
    pub at: Duration,
    /// What happened.
    pub event: Event,
}

/// Who hears of each step as it happens.
pub type Listener<'a> = &'a mut (dyn FnMut(&Entry) + Send + 'a);

/// The steps so far, and who wants to hear of each new one.
pub struct Recorder<'a> {
    start: Instant,
    /// The steps so far.
    pub entries: Vec<Entry>,
    listener: Option<Listener<'a>>,
}

impl<'a> Recorder<'a> {
    /// Power on.
    pub fn new(listener: Option<Listener<'a>>) -> Recorder<'a> {
        Recorder { start: Instant::now(), entries: Vec::new(), listener }
    }

    /// Adds a step.
    pub fn add(&mut self, event: Event) {
        let entry = Entry { at: self.start.elapsed(), event };
        if let Some(listener) = &mut self.listener {
            listener(&entry);
        }
        self.entries.push(entry);
    }

    /// Time since power-on.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 1e2
}

impl fmt::Display for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fetched::Whole { bytes, .. } => write!(f, "{bytes} bytes"),
            Fetched::Probed { size: Some(size) } => write!(f, "exists ({size} bytes)"),
            Fetched::Probed { size: None } => f.write_str("exists"),
            Fetched::Missing { code: 1, .. } => f.write_str("not found"),
            Fetched::Missing { code, message } => write!(f, "error {code}: {message}"),
            Fetched::GaveUp { bytes } => write!(f, "gave up after {bytes} bytes: no answer"),
            Fetched::Broken(why) => write!(f, "broken: {why}"),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:9.3} ", self.at.as_secs_f64())?;
        match &self.event {
            Event::Stage(name) => write!(f, "== {name}"),
            Event::Discover { xid, attempt } => write!(f, "DHCP DISCOVER {attempt} xid {xid:08x}"),
            Event::Dhcp { kind, server, ip, note } => write!(f, "DHCP {kind} {ip} server {server}: {note}"),
            Event::Address { ip, server } => write!(f, "address {ip}, TFTP server {server}"),
            Event::File(file) => {
                write!(f, "TFTP {}: {} in {} ms", file.path, file.fetched, ms(file.took))?;
                if file.resent > 0 { write!(f, ", {} resent", file.resent) } else { Ok(()) }
            }
            Event::Note(text) => f.write_str(text),
        }
    }
}

impl Entry {
    /// One line of a JSON log.
    pub fn to_json(&self, pi: &Pi) -> String {
        let line = Object::default()
            .raw("at_ms", ms(self.at))
            .text("mac", &pi.mac.to_string())
            .text("serial", &format!("{:08x}", pi.serial32()));
        match &self.event {
            Event::Stage(name) => line.text("event", "stage").text("stage", name).end(),
            Event::Discover { xid, attempt } => {
                line.text("event", "discover").text("xid", &format!("{xid:08x}")).raw("attempt", attempt).end()
            }
            Event::Dhcp { kind, server, ip, note } => line
                .text("event", "dhcp")
                .text("kind", kind)
                .text("server", &server.to_string())
                .text("ip", &ip.to_string())
                .text("note", note)
                .end(),
            Event::Address { ip, server } => {
                line.text("event", "address").text("ip", &ip.to_string()).text("tftp", &server.to_string()).end()
            }
            Event::File(file) => file.to_json(line),
            Event::Note(text) => line.text("event", "note").text("text", text).end(),
        }
    }
}

impl FileRequest {
    fn to_json(&self, line: Object) -> String {
        let line = line.text("event", "file").text("path", &self.path);
        let line = match &self.fetched {
            Fetched::Whole { bytes, digest } => {
                line.text("result", "whole").raw("bytes", bytes).text("digest", &format!("{digest:016x}"))
            }
            Fetched::Probed { size } => {
                let line = line.text("result", "probed");
                match size {
                    Some(size) => line.raw("bytes", size),
                    None => line,
                }
            }
            Fetched::Missing { code, message } => {
                line.text("result", "missing").raw("code", code).text("message", message)
            }
            Fetched::GaveUp { bytes } => line.text("result", "gave-up").raw("bytes", bytes),
            Fetched::Broken(why) => line.text("result", "broken").text("why", why),
        };
        let line = line.raw("ms", ms(self.took));
        let line = match self.first_answer {
            Some(time) => line.raw("first_answer_ms", ms(time)),
            None => line,
        };
        line.raw("resent", self.resent)
            .raw("duplicates", self.duplicates)
            .raw("blksize", self.block_size)
            .raw("port", self.port)
            .end()
    }
}
