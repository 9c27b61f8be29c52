//! Listens on the ports of an interface, and reports what Pis say.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::parse;
use crate::dhcp::interest::Interest;
use crate::events::{Sink, What};
use crate::net::console_tap::ConsoleTap;
use crate::net::packet::{MAX_PACKET, udp_payload};
use crate::pace::Pace;
use crate::pi::Mac;

/// Lines of one Pi: a kernel's log at once, and then more than anybody reads.
const LINES: (u32, u32) = (4096, 200);
/// Pis whose pace is remembered; then those who have been quiet are forgotten.
const SPEAKERS: usize = 256;
/// How long a line may wait for the control side to take what it has.
const PATIENCE: Duration = Duration::from_millis(100);
const GLANCES: u32 = 20;
/// One packet buffer and no recursion.
const STACK: usize = 128 << 10;

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Listener {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Opens a packet socket on each of the ports, given by kernel index, and starts listening. Only those whom `interest`
    /// knows are heard.
    ///
    /// # Errors
    /// When a packet socket cannot be opened (needs `CAP_NET_RAW`) or there is no thread to be had.
    pub fn start(ports: &[u32], interest: Interest, sink: Sink) -> io::Result<Self> {
        let taps = ports.iter().map(|port| ConsoleTap::open(*port)).collect::<io::Result<Vec<_>>>()?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let thread = std::thread::Builder::new().name("console".to_owned()).stack_size(STACK).spawn({
            let stop = stop.clone();
            move || {
                let mut ears = Ears { interest, sink, paces: HashMap::new() };
                if let Err(error) = ears.listen(&taps, &stop) {
                    log::warn!("cannot listen for consoles any more: {error}; trying again");
                }
            }
        })?;
        log::debug!("listening for consoles on {} ports", ports.len());
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Whether it gave up.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // An eventfd that cannot be written was written before.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the console listener panicked");
        }
    }
}

struct Ears {
    interest: Interest,
    sink: Sink,
    paces: HashMap<Mac, Pace>,
}

impl Ears {
    fn listen(&mut self, taps: &[ConsoleTap], stop: &EventFd) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); MAX_PACKET];
        loop {
            let mut ready: Vec<PollFd<'_>> =
                taps.iter().map(|tap| PollFd::new(tap.as_fd(), PollFlags::POLLIN)).collect();
            ready.push(PollFd::new(stop.as_fd(), PollFlags::POLLIN));
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if ready.last().and_then(PollFd::any) == Some(true) {
                return Ok(());
            }
            for (tap, _) in taps.iter().zip(&ready).filter(|(_, fd)| fd.any() == Some(true)) {
                match tap.receive(&mut buffer) {
                    Ok((packet, Some(mac))) => self.hear(packet, mac),
                    Ok(_) => {}
                    Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                        // A port that is down may come up again; one that is gone is noticed elsewhere.
                        Some(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
                        _ => return Err(error),
                    },
                }
            }
        }
    }

    /// Reports the lines of a packet, if a Pi sent it.
    fn hear(&mut self, packet: &[u8], mac: Mac) {
        let Some(payload) = udp_payload(packet).filter(|_| self.interest.knows(mac)) else { return };
        let from = parse::speaker(payload);
        for line in parse::lines(payload) {
            if !self.is_in_pace(mac) {
                return;
            }
            if !self.tell(|| What::Console { mac, from, line: line.into() }) {
                return;
            }
        }
    }

    /// Waits a little where control is behind; what it cannot take then is lost.
    fn tell(&self, what: impl Fn() -> What) -> bool {
        for _ in 0..GLANCES {
            if self.sink.emit_if_calm(&what) {
                return true;
            }
            std::thread::sleep(PATIENCE / GLANCES);
        }
        false
    }

    fn is_in_pace(&mut self, mac: Mac) -> bool {
        let now = self.sink.clock().now();
        if self.paces.len() >= SPEAKERS && !self.paces.contains_key(&mac) {
            self.paces.retain(|_, pace| !pace.is_full(now));
        }
        self.paces.entry(mac).or_insert_with(|| Pace::new(LINES.0, LINES.1, now)).take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn packet(payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 255, 255, 255, 255];
        packet.extend(6665_u16.to_be_bytes());
        packet.extend(6666_u16.to_be_bytes());
        packet.extend(u16::try_from(payload.len() + 8).unwrap().to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(payload);
        packet
    }

    #[test]
    fn only_pis_are_heard_and_one_that_never_stops_is_slowed_down() {
        let clock = Clock::manual(0);
        let (sink, mut events) = Sink::new(clock.clone());
        let (pi, other) = (Mac([0xdc, 0xa6, 0x32, 0, 0, 1]), Mac([2; 6]));
        let interest = Interest::default();
        interest.set_enrolled([pi]);
        let mut ears = Ears { interest, sink, paces: HashMap::new() };
        let mut hear = |mac, times| {
            let mut count = 0;
            for _ in 0..times {
                ears.hear(&packet(b"a line\nand another\n"), mac);
                while events.try_recv().is_ok() {
                    count += 1;
                }
            }
            count
        };
        assert_eq!((hear(other, 10), hear(pi, 10)), (0, 20));
        assert_eq!(hear(pi, 10_000), 4096 - 20);
        clock.advance(Duration::from_secs(1));
        assert_eq!(hear(pi, 10_000), 200);
    }
}
