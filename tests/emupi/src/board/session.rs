//! What all boards have in common: the network, the log, and how a stage asks for files.

use super::{Boot, BootOptions, File, Outcome, Stop, Until, failed};
use crate::dhcp::client::{Lease, acquire};
use crate::dhcp::discover::Speaker;
use crate::link::Port;
use crate::model::{Family, Pi};
use crate::nic::{Nic, Style};
use crate::record::{Event, Fetched, FileRequest, Listener, Recorder};
use crate::rng::Rng;
use crate::tftp::client::{Habits, OnDuplicate, Want, transfer};
use std::net::Ipv4Addr;
use std::time::Instant;

/// The port of the ROM's requests, all of them (firmware issue 745).
pub(super) const ROM_PORT: u16 = 49152;

/// Where the next request's source port comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ports {
    /// Always this one.
    Fixed(u16),
    /// This one next, then counting up.
    From(u16),
}

pub(super) struct Session<'a> {
    pub(super) pi: &'a Pi,
    pub(super) options: &'a BootOptions,
    pub(super) log: Recorder<'a>,
    nic: Nic,
    rng: Rng,
    habits: Habits,
    ports: Ports,
    /// The board's directory, or empty once that has turned out not to exist.
    pub(super) prefix: String,
    ip: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    files: Vec<File>,
}

impl<'a> Session<'a> {
    pub(super) fn new(pi: &'a Pi, port: Port, options: &'a BootOptions, listener: Option<Listener<'a>>) -> Session<'a> {
        let old = pi.model.family() == Family::Rom;
        let style = Style { ttl: if old { 128 } else { 64 }, checksum: !old, answers_arp: true };
        let mut rng = Rng::new(options.seed);
        // Many boards with the same seed must still differ.
        rng = Rng::new(rng.next_u64() ^ pi.serial);
        Session {
            pi,
            options,
            log: Recorder::new(listener),
            nic: Nic::new(port, style),
            rng,
            habits: Habits::ROM,
            ports: Ports::Fixed(ROM_PORT),
            prefix: pi.prefix(),
            ip: None,
            server: None,
            files: Vec::new(),
        }
    }

    pub(super) fn finish(self, outcome: Outcome) -> Boot {
        Boot {
            pi: self.pi.clone(),
            ip: self.ip,
            server: self.server,
            log: self.log.entries,
            outcome,
            faults: self.nic.faults(),
        }
    }

    /// From the beginning, with nothing but the log kept.
    pub(super) fn restart(&mut self, why: &str) {
        self.log.add(Event::Note(format!("{why}; restarting")));
        self.prefix = self.pi.prefix();
        self.files.clear();
    }

    /// A program takes over, with its own habits and ports.
    pub(super) fn stage(&mut self, name: &'static str, habits: Habits, ports: Ports) {
        self.log.add(Event::Stage(name));
        let duplicate = if self.options.ack_next { OnDuplicate::AckNext } else { habits.duplicate };
        self.habits = Habits { duplicate, ..habits };
        self.ports = ports;
    }

    pub(super) fn answer_arp(&mut self, yes: bool) {
        self.nic.style.answers_arp = yes && !self.options.arp_silent;
    }

    pub(super) fn random(&mut self) -> u32 {
        self.rng.next_u32()
    }

    /// DHCP without TFTP, for machines that do not boot from the network here.
    pub(super) async fn dhcp(&mut self, speaker: Speaker) -> Result<Lease, Stop> {
        let speed = self.options.speed;
        let lease = acquire(speaker, self.pi, &mut self.nic, &mut self.rng, speed, &mut self.log).await?;
        let lease = lease.ok_or_else(|| {
            let why = match speaker {
                Speaker::RomB | Speaker::Bootcode => {
                    "no usable DHCP offer after five requests; the board halts until its power is cycled"
                }
                Speaker::Eeprom => "no usable DHCP offer (needs an address and option 43, option 66 or siaddr)",
                Speaker::Pc | Speaker::Laptop => "no DHCP offer",
            };
            failed("dhcp", None, why)
        })?;
        self.nic.configure(lease.ip, lease.mask, lease.gateway);
        self.ip = Some(lease.ip);
        Ok(lease)
    }

    /// DHCP and the way to the TFTP server.
    pub(super) async fn network(&mut self, speaker: Speaker) -> Result<(), Stop> {
        let lease = self.dhcp(speaker).await?;
        let Some(server) = lease.tftp else {
            return Err(failed("dhcp", None, "no TFTP server"));
        };
        self.server = Some(server);
        self.log.add(Event::Address { ip: lease.ip, server });
        if self.nic.resolve(server).await?.is_none() {
            return Err(failed("dhcp", None, format!("TFTP server {server} does not answer ARP")));
        }
        Ok(())
    }

    /// Ends the boot here if no more than an address was wanted. Boards that ask twice end after the last time.
    pub(super) fn stop_after_dhcp(&self) -> Result<(), Stop> {
        if self.options.until == Until::Dhcp { Err(Stop::End(Outcome::Address)) } else { Ok(()) }
    }

    /// Asks whether a file exists, ending the transfer at the first answer.
    pub(super) async fn probe(&mut self, name: &str) -> Result<bool, Stop> {
        Ok(matches!(self.request(name, Want::Probe).await?.0, Fetched::Probed { .. }))
    }

    /// Fetches a small file whose content decides what happens next. `None` if it is missing or was given up.
    pub(super) async fn read(&mut self, name: &str) -> Result<Option<File>, Stop> {
        self.get(name, Want::Content).await
    }

    /// Fetches a file, its content kept only if the options say so.
    pub(super) async fn fetch(&mut self, name: &str) -> Result<Option<File>, Stop> {
        self.get(name, if self.options.keep { Want::Content } else { Want::Digest }).await
    }

    /// Every file fetched whole so far.
    pub(super) fn take_files(&mut self) -> Vec<File> {
        std::mem::take(&mut self.files)
    }

    /// How the last request ended, for a message.
    pub(super) fn last_result(&self) -> String {
        let last = self.log.entries.iter().rev().find_map(|e| match &e.event {
            Event::File(file) => Some(format!("{}: {}", file.path, file.fetched)),
            _ => None,
        });
        last.unwrap_or_default()
    }

    async fn get(&mut self, name: &str, want: Want) -> Result<Option<File>, Stop> {
        let (fetched, content) = self.request(name, want).await?;
        let Fetched::Whole { bytes, digest } = fetched else { return Ok(None) };
        let file = File { path: name.to_owned(), bytes, digest, content };
        self.files.push(file.clone());
        Ok(Some(file))
    }

    async fn request(&mut self, name: &str, want: Want) -> Result<(Fetched, Option<Vec<u8>>), Stop> {
        let Some(server) = self.server else { return Err(failed("tftp", None, "no TFTP server")) };
        let port = match self.ports {
            Ports::Fixed(port) => port,
            Ports::From(port) => {
                self.ports = Ports::From(if port == u16::MAX { ROM_PORT } else { port + 1 });
                port
            }
        };
        let start = Instant::now();
        let (loss, habits) = (self.options.loss, self.habits);
        let way = (server, port);
        let transfer = transfer(&mut self.nic, &mut self.rng, loss, &habits, way, name, want).await?;
        let fetched = transfer.fetched.clone();
        self.log.add(Event::File(FileRequest {
            path: name.to_owned(),
            fetched: transfer.fetched,
            took: start.elapsed(),
            first_answer: transfer.first_answer,
            resent: transfer.resent,
            duplicates: transfer.duplicates,
            block_size: transfer.block_size,
            port,
        }));
        Ok((fetched, transfer.content))
    }
}
