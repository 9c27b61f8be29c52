//! One transfer, in lock step, with the habits of the stage that makes it.

use super::{Packet, ack, error, parse, read_request};
use crate::digest::Digest;
use crate::link::LinkError;
use crate::nic::{Datagram, Nic};
use crate::record::Fetched;
use crate::rng::Rng;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

const SERVER: u16 = 69;
const DEFAULT_BLOCK: u16 = 512;

/// What is done with a block that arrives twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDuplicate {
    /// Acknowledge it again (EEPROM since 2021-02).
    AckAgain,
    /// Acknowledge the block after it: a bug of old start4.elf (firmware issue 1631).
    AckNext,
}

/// A stage's habits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// Whether the file's size is asked for.
    pub tsize: bool,
    /// The block size asked for.
    pub block_size: Option<u16>,
    /// After how much silence the last packet is sent again; `None`: never.
    pub resend: Option<Duration>,
    /// After how much silence the file is given up.
    pub silence: Duration,
    /// The longest a file may take.
    pub limit: Option<Duration>,
    /// Whether the block number wraps to 0 after 65535, or the file ends there in an error.
    pub rollover: bool,
    /// What is done with a block that arrives twice.
    pub duplicate: OnDuplicate,
}

impl Habits {
    /// Mask ROM: no options at all. How it waits is not documented.
    pub const ROM: Habits = Habits {
        tsize: false,
        block_size: None,
        resend: Some(Duration::from_secs(1)),
        silence: Duration::from_secs(5),
        limit: None,
        rollover: false,
        duplicate: OnDuplicate::AckAgain,
    };
    /// `bootcode.bin`: gives a file up about a second after a lost packet (firmware issues 991, 1025).
    pub const BOOTCODE: Habits = Habits { tsize: true, resend: None, silence: Duration::from_secs(1), ..Habits::ROM };
    /// `start.elf` on boards up to the 3B+. Its patience is on no record; it is given a little more than `bootcode.bin`.
    pub const START_ELF: Habits =
        Habits { block_size: Some(1024), silence: Duration::from_secs(3), ..Habits::BOOTCODE };
    /// EEPROM bootloader and start4.elf: 30 seconds a file (TFTP_FILE_TIMEOUT).
    pub const EEPROM: Habits = Habits {
        tsize: true,
        block_size: Some(1468),
        resend: Some(Duration::from_secs(1)),
        silence: Duration::from_secs(10),
        limit: Some(Duration::from_secs(30)),
        rollover: true,
        duplicate: OnDuplicate::AckAgain,
    };
}

/// Packets to lose on purpose, in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Loss {
    /// Probability for each packet, 0 to 1.
    pub rate: f64,
}

/// What to do with what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Nothing: learn whether the file exists, then end the transfer.
    Probe,
    /// All of it.
    Content,
    /// Only its length and digest.
    Digest,
}

/// What came of a request.
#[derive(Debug)]
pub struct Transfer {
    /// How it ended.
    pub fetched: Fetched,
    /// The content, if it was wanted and is whole.
    pub content: Option<Vec<u8>>,
    /// Until the first answer.
    pub first_answer: Option<Duration>,
    /// Packets sent again.
    pub resent: u32,
    /// Packets received twice.
    pub duplicates: u32,
    /// Block size in use.
    pub block_size: u16,
}

/// The client's side of one transfer.
struct Reader<'a> {
    nic: &'a mut Nic,
    rng: &'a mut Rng,
    loss: Loss,
    habits: &'a Habits,
    port: u16,
    server: Ipv4Addr,
    /// The server's transfer port, once it has answered.
    peer: Option<u16>,
    want: Want,
    content: Vec<u8>,
    digest: Digest,
    bytes: u64,
    /// Blocks received whole, not wrapped.
    blocks: u64,
    size: Option<u64>,
    out: Transfer,
    last: Vec<u8>,
}

/// Asks the server for `name` from the board's port `port`.
///
/// # Errors
/// When the interface is down. Everything a server does wrong is in the result.
#[allow(clippy::too_many_arguments)]
pub async fn transfer(
    nic: &mut Nic,
    rng: &mut Rng,
    loss: Loss,
    habits: &Habits,
    (server, port): (Ipv4Addr, u16),
    name: &str,
    want: Want,
) -> Result<Transfer, LinkError> {
    let out = Transfer {
        fetched: Fetched::GaveUp { bytes: 0 },
        content: None,
        first_answer: None,
        resent: 0,
        duplicates: 0,
        block_size: DEFAULT_BLOCK,
    };
    let mut options = Vec::new();
    if habits.tsize {
        options.push(("tsize", "0".to_owned()));
    }
    if let Some(size) = habits.block_size {
        options.push(("blksize", size.to_string()));
    }
    let mut reader = Reader {
        nic,
        rng,
        loss,
        habits,
        port,
        server,
        peer: None,
        want,
        content: Vec::new(),
        digest: Digest::default(),
        bytes: 0,
        blocks: 0,
        size: None,
        out,
        last: read_request(name, &options),
    };
    let fetched = reader.run().await?;
    let Reader { mut out, content, .. } = reader;
    if want == Want::Content && matches!(fetched, Fetched::Whole { .. }) {
        out.content = Some(content);
    }
    out.fetched = fetched;
    Ok(out)
}

impl Reader<'_> {
    async fn run(&mut self) -> Result<Fetched, LinkError> {
        let start = Instant::now();
        // A stage that never repeats its request would fail on one lost packet, whatever the server does: then loss
        // begins with the first answer.
        let lossy_request = self.habits.resend.is_some();
        self.send(lossy_request)?;
        let (mut heard, mut sent) = (start, start);
        loop {
            let now = Instant::now();
            if self.habits.limit.is_some_and(|limit| now - start >= limit) {
                return self.give_up("took longer than the limit for one file");
            }
            if now - heard >= self.habits.silence {
                return Ok(Fetched::GaveUp { bytes: self.bytes });
            }
            if self.habits.resend.is_some_and(|resend| now - sent >= resend) {
                self.out.resent += 1;
                self.send(true)?;
                sent = now;
            }
            let ends = [
                Some(heard + self.habits.silence),
                self.habits.resend.map(|r| sent + r),
                self.habits.limit.map(|l| start + l),
            ];
            let deadline = ends.into_iter().flatten().min().unwrap_or(now);
            let Some(datagram) = self.nic.next(deadline).await? else { continue };
            let from = datagram.src.port();
            let known = self.peer.map_or_else(|| opens(datagram.payload()), |peer| from == peer);
            if *datagram.src.ip() != self.server || datagram.dst.port() != self.port || !known {
                continue;
            }
            if self.rng.chance(self.loss.rate) {
                continue;
            }
            if self.peer.is_none() {
                self.out.first_answer = Some(start.elapsed());
                self.peer = Some(from);
            }
            match self.take(&datagram)? {
                Step::End(fetched) => return Ok(fetched),
                Step::Progress => {
                    heard = Instant::now();
                    sent = heard;
                }
                Step::Nothing => {}
            }
        }
    }

    fn take(&mut self, datagram: &Datagram) -> Result<Step, LinkError> {
        match parse(datagram.payload()) {
            Ok(Packet::Error { code, message }) => Ok(Step::End(if code == 1 || self.blocks == 0 {
                Fetched::Missing { code, message }
            } else {
                Fetched::Broken(format!("error {code} after {} bytes: {message}", self.bytes))
            })),
            Ok(Packet::OptionAck(options)) => self.take_options(&options),
            Ok(Packet::Data { block, data }) => self.take_data(block, data),
            Err(problem) => Ok(Step::End(self.give_up(&problem.to_string())?)),
        }
    }

    fn take_options(&mut self, options: &[(&str, &str)]) -> Result<Step, LinkError> {
        if self.blocks > 0 {
            self.out.duplicates += 1;
            return Ok(Step::Nothing);
        }
        for (name, value) in options {
            if name.eq_ignore_ascii_case("tsize") {
                self.size = value.parse().ok();
            } else if name.eq_ignore_ascii_case("blksize") {
                match (value.parse::<u16>(), self.habits.block_size) {
                    // RFC 2348: the server may answer with less, never with more.
                    (Ok(size), Some(asked)) if (8..=asked).contains(&size) => self.out.block_size = size,
                    _ => return Ok(Step::End(self.give_up(&format!("blksize {value} was not asked for"))?)),
                }
            } else {
                return Ok(Step::End(self.give_up(&format!("option {name} was not asked for"))?));
            }
        }
        if self.want == Want::Probe {
            return self.probed();
        }
        self.acknowledge(0)?;
        Ok(Step::Progress)
    }

    fn take_data(&mut self, block: u16, data: &[u8]) -> Result<Step, LinkError> {
        let next = self.blocks + 1;
        if u64::from(block) != next & 0xffff {
            if u64::from(block) == self.blocks & 0xffff {
                self.out.duplicates += 1;
                let answer = match self.habits.duplicate {
                    OnDuplicate::AckAgain => block,
                    OnDuplicate::AckNext => block.wrapping_add(1),
                };
                self.acknowledge(answer)?;
            }
            return Ok(Step::Nothing);
        }
        if next > 0xffff && !self.habits.rollover {
            let limit = u64::from(self.out.block_size) * 0xffff;
            return Ok(Step::End(self.give_up(&format!("larger than {limit} bytes: block number overflow"))?));
        }
        if self.want == Want::Probe {
            return self.probed();
        }
        if data.len() > usize::from(self.out.block_size) {
            return Ok(Step::End(self.give_up("block longer than the block size")?));
        }
        if self.want == Want::Content {
            self.content.extend_from_slice(data);
        }
        self.digest.update(data);
        self.bytes += data.len() as u64;
        self.blocks = next;
        self.acknowledge(block)?;
        if data.len() == usize::from(self.out.block_size) {
            return Ok(Step::Progress);
        }
        Ok(Step::End(match self.size {
            Some(size) if size != self.bytes => {
                Fetched::Broken(format!("{} bytes arrived, the server had announced {size}", self.bytes))
            }
            _ => Fetched::Whole { bytes: self.bytes, digest: self.digest.finish() },
        }))
    }

    fn probed(&mut self) -> Result<Step, LinkError> {
        self.last = error(0, "Early terminate");
        self.send(true)?;
        Ok(Step::End(Fetched::Probed { size: self.size }))
    }

    fn give_up(&mut self, why: &str) -> Result<Fetched, LinkError> {
        if self.peer.is_some() {
            self.last = error(0, why);
            self.send(false)?;
        }
        Ok(Fetched::Broken(format!("{why} ({} bytes had arrived)", self.bytes)))
    }

    fn acknowledge(&mut self, block: u16) -> Result<(), LinkError> {
        self.last = ack(block);
        self.send(true)
    }

    fn send(&mut self, lossy: bool) -> Result<(), LinkError> {
        let peer = SocketAddrV4::new(self.server, self.peer.unwrap_or(SERVER));
        match lossy {
            false => self.nic.send_surely(self.port, peer, &self.last),
            true if self.rng.chance(self.loss.rate) => Ok(()),
            true => self.nic.send(self.port, peer, &self.last),
        }
    }
}

/// Whether a packet can be the first answer to a request. A later block is a leftover of an earlier transfer from the
/// same port: the ROM has only one.
fn opens(packet: &[u8]) -> bool {
    !matches!(parse(packet), Ok(Packet::Data { block, .. }) if block != 1)
}

enum Step {
    End(Fetched),
    Progress,
    Nothing,
}
