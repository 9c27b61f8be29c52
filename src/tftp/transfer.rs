//! One read transfer as a state machine without sockets, files or a clock: packets and moments in, what to send out.
//!
//! Blocks are counted from 1 in 64 bits and cut to 16 on the wire, so the number after 65535 is 0, which is what Pi
//! bootloaders that can do it expect (rpi-eeprom issue 720).

use std::time::Duration;

use super::wire::{DEFAULT_BLKSIZE, MAX_BLKSIZE, MIN_BLKSIZE, Options, TransferOption};
use crate::clock::Moment;

/// Wait before the first retransmission. `bootcode.bin` gives a file up about one second after a lost packet
/// (raspberrypi/firmware issue 1025), so the customary one second loses it.
pub const RETRANSMIT_AFTER: Duration = Duration::from_millis(250);
/// The wait doubles up to this many times its start value.
pub const MAX_BACKOFF: u32 = 16;
/// Unanswered retransmissions before the client counts as gone.
pub const MAX_RETRANSMISSIONS: u8 = 8;
/// Most blocks in flight, whatever a client asks for.
pub const MAX_WINDOWSIZE: u16 = 64;
/// Most bytes in flight, whatever a client asks for: the size of the server's one buffer.
pub const MAX_WINDOW_BYTES: usize = 128 * 1024;

/// What client and server agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Bytes per block.
    pub blksize: u16,
    /// Blocks per acknowledgement.
    pub windowsize: u16,
    /// Retransmission interval the client asked for.
    pub timeout: Option<Duration>,
    /// The options to confirm, in the order asked; empty = no OACK.
    pub accepted: Options,
}

impl Terms {
    /// What to agree on when a client asks for `asked`: never more than it asked for.
    #[must_use]
    pub fn agree(asked: &Options, max_blksize: u16) -> Self {
        let max_blksize = max_blksize.clamp(MIN_BLKSIZE, MAX_BLKSIZE);
        let mut terms = Self { blksize: DEFAULT_BLKSIZE, windowsize: 1, timeout: None, accepted: Options::default() };
        let mut window = None;
        for option in asked.iter() {
            match option {
                TransferOption::BlockSize(bytes) => terms.blksize = bytes.min(max_blksize),
                TransferOption::WindowSize(blocks) => window = Some(blocks),
                TransferOption::Timeout(seconds) => terms.timeout = Some(Duration::from_secs(u64::from(seconds))),
                TransferOption::TransferSize => {}
            }
        }
        if let Some(blocks) = window {
            let fitting = u16::try_from(MAX_WINDOW_BYTES / usize::from(terms.blksize)).unwrap_or(u16::MAX).max(1);
            terms.windowsize = blocks.min(MAX_WINDOWSIZE).min(fitting);
        }
        for option in asked.iter() {
            terms.accepted.push(match option {
                TransferOption::BlockSize(_) => TransferOption::BlockSize(terms.blksize),
                TransferOption::WindowSize(_) => TransferOption::WindowSize(terms.windowsize),
                other @ (TransferOption::Timeout(_) | TransferOption::TransferSize) => other,
            });
        }
        terms
    }
}

/// What the server is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Wait,
    /// Send the OACK.
    SendOack,
    /// Send `count` blocks from number `first` on.
    SendData {
        /// Number of the first block, from 1.
        first: u64,
        /// How many, at least 1.
        count: u16,
    },
    /// Every byte is acknowledged.
    Done,
    /// The client fell silent.
    GiveUp,
}

/// State of one transfer.
#[derive(Debug)]
pub struct Transfer {
    size: u64,
    blksize: u16,
    windowsize: u16,
    /// Number of the last block: shorter than `blksize`, perhaps empty.
    last: u64,
    /// Highest block acknowledged.
    acknowledged: u64,
    /// Highest block sent.
    sent: u64,
    oack_pending: bool,
    answered: bool,
    rto_start: Duration,
    rto_max: Duration,
    rto: Duration,
    unanswered: u8,
    deadline: Moment,
    /// The acknowledgement whose repetition was already taken as a report of loss.
    loss_reported_after: Option<u64>,
    retransmissions: u32,
}

impl Transfer {
    /// Starts sending `size` bytes under `terms`; the second value is the first thing to do.
    #[must_use]
    pub fn start(now: Moment, terms: &Terms, size: u64, retransmit_after: Duration) -> (Self, Action) {
        let rto_start = terms.timeout.unwrap_or(retransmit_after);
        let mut transfer = Self {
            size,
            blksize: terms.blksize,
            windowsize: terms.windowsize,
            last: size / u64::from(terms.blksize) + 1,
            acknowledged: 0,
            sent: 0,
            oack_pending: !terms.accepted.is_empty(),
            answered: false,
            rto_start,
            // A client that asks for long intervals gets them, but does not also get them doubled.
            rto_max: retransmit_after.saturating_mul(MAX_BACKOFF).max(rto_start),
            rto: rto_start,
            unanswered: 0,
            deadline: now.plus(rto_start),
            loss_reported_after: None,
            retransmissions: 0,
        };
        let action = if transfer.oack_pending { Action::SendOack } else { transfer.next_window() };
        (transfer, action)
    }

    /// The client acknowledged the block with this number (0: the OACK).
    pub fn on_ack(&mut self, now: Moment, number: u16) -> Action {
        if self.oack_pending {
            if number != 0 {
                return Action::Wait;
            }
            self.oack_pending = false;
            self.progress(now);
            return self.next_window();
        }
        let ahead = u64::from(number.wrapping_sub(low_16_bits(self.acknowledged)));
        if ahead == 0 {
            return self.on_repeated_ack(now);
        }
        if ahead > self.sent - self.acknowledged {
            return Action::Wait; // of the past, or never sent
        }
        self.acknowledged += ahead;
        self.progress(now);
        if self.acknowledged == self.last {
            return Action::Done;
        }
        // An acknowledgement inside the window reports the loss of what follows (RFC 7440 §4).
        self.retransmissions = self.retransmissions.saturating_add(clamp_u32(self.sent - self.acknowledged));
        self.next_window()
    }

    /// In lock step a repeated ACK must not trigger a resend, or every block travels twice from then on (Sorcerer's
    /// Apprentice, RFC 1123 §4.2.3.1). With a window it is how the loss of a window's first block is reported; once per number.
    fn on_repeated_ack(&mut self, now: Moment) -> Action {
        if self.windowsize == 1 || self.loss_reported_after == Some(self.acknowledged) {
            return Action::Wait;
        }
        self.loss_reported_after = Some(self.acknowledged);
        self.deadline = now.plus(self.rto);
        self.resend_window()
    }

    /// [`Transfer::deadline`] may have passed.
    pub fn on_timer(&mut self, now: Moment) -> Action {
        if now < self.deadline {
            return Action::Wait;
        }
        if self.unanswered == MAX_RETRANSMISSIONS {
            return Action::GiveUp;
        }
        self.unanswered += 1;
        self.rto = self.rto.saturating_mul(2).min(self.rto_max);
        self.deadline = now.plus(self.rto);
        if self.oack_pending {
            self.retransmissions = self.retransmissions.saturating_add(1);
            return Action::SendOack;
        }
        self.resend_window()
    }

    fn progress(&mut self, now: Moment) {
        self.answered = true;
        self.unanswered = 0;
        self.rto = self.rto_start;
        self.deadline = now.plus(self.rto);
    }

    fn next_window(&mut self) -> Action {
        let count = u64::from(self.windowsize).min(self.last - self.acknowledged);
        self.sent = self.acknowledged + count;
        self.send_unacknowledged()
    }

    fn resend_window(&mut self) -> Action {
        self.retransmissions = self.retransmissions.saturating_add(clamp_u32(self.sent - self.acknowledged));
        self.send_unacknowledged()
    }

    fn send_unacknowledged(&self) -> Action {
        let count = u16::try_from(self.sent - self.acknowledged).unwrap_or(self.windowsize);
        Action::SendData { first: self.acknowledged + 1, count }
    }

    /// When [`Transfer::on_timer`] wants to be called.
    #[must_use]
    pub const fn deadline(&self) -> Moment {
        self.deadline
    }

    /// Bytes per block.
    #[must_use]
    pub const fn blksize(&self) -> u16 {
        self.blksize
    }

    /// Bytes of the whole file.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that the client acknowledged.
    #[must_use]
    pub fn acknowledged_bytes(&self) -> u64 {
        self.acknowledged.saturating_mul(u64::from(self.blksize)).min(self.size)
    }

    /// Packets sent more than once.
    #[must_use]
    pub const fn retransmissions(&self) -> u32 {
        self.retransmissions
    }

    /// Whether the client has answered nothing and was not sent anything twice: its request may still be on its way a second time.
    #[must_use]
    pub const fn is_fresh(&self) -> bool {
        !self.answered && self.retransmissions == 0
    }

    /// Whether the file has more blocks than 16 bits can number.
    #[must_use]
    pub const fn wraps(&self) -> bool {
        self.last > 65_535
    }
}

/// The number of a block as it stands on the wire.
#[must_use]
pub const fn low_16_bits(block: u64) -> u16 {
    let [.., high, low] = block.to_be_bytes();
    u16::from_be_bytes([high, low])
}

fn clamp_u32(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn options(list: &[TransferOption]) -> Options {
        let mut options = Options::default();
        for &option in list {
            options.push(option);
        }
        options
    }

    fn start(clock: &Clock, size: u64, asked: &[TransferOption]) -> (Transfer, Action) {
        Transfer::start(clock.now(), &Terms::agree(&options(asked), 1468), size, RETRANSMIT_AFTER)
    }

    const fn data(first: u64, count: u16) -> Action {
        Action::SendData { first, count }
    }

    #[test]
    fn terms_are_clamped_and_never_exceed_what_was_asked() {
        use TransferOption::{BlockSize, Timeout, TransferSize, WindowSize};
        for (asked, blksize, windowsize) in [
            (&[][..], 512, 1),
            (&[BlockSize(8)], 8, 1),
            (&[BlockSize(1024)], 1024, 1),
            (&[BlockSize(65464)], 1468, 1),
            (&[WindowSize(65535)], 512, 64),
            (&[BlockSize(1468), WindowSize(3)], 1468, 3),
        ] {
            let terms = Terms::agree(&options(asked), 1468);
            assert_eq!((terms.blksize, terms.windowsize), (blksize, windowsize), "{asked:?}");
        }
        let terms = Terms::agree(&options(&[Timeout(5), TransferSize, BlockSize(9000)]), 1468);
        assert_eq!(terms.accepted, options(&[Timeout(5), TransferSize, BlockSize(1468)]), "order is the client's");
        let huge = Terms::agree(&options(&[BlockSize(65464), WindowSize(64)]), 65464);
        assert!(usize::from(huge.blksize) * usize::from(huge.windowsize) <= MAX_WINDOW_BYTES);
    }

    #[test]
    fn lock_step_from_oack_to_the_empty_last_block() {
        let clock = Clock::manual(0);
        let (mut transfer, action) = start(&clock, 1024, &[TransferOption::TransferSize]);
        assert_eq!(action, Action::SendOack);
        assert_eq!(transfer.on_ack(clock.now(), 1), Action::Wait, "nothing but ACK 0 answers an OACK");
        assert_eq!(transfer.on_ack(clock.now(), 0), data(1, 1));
        assert_eq!(transfer.on_ack(clock.now(), 1), data(2, 1));
        assert_eq!(transfer.acknowledged_bytes(), 512);
        assert_eq!(transfer.on_ack(clock.now(), 2), data(3, 1), "1024 is a multiple of 512: an empty block ends it");
        assert_eq!(transfer.acknowledged_bytes(), 1024);
        assert_eq!(transfer.on_ack(clock.now(), 3), Action::Done);
        assert_eq!((transfer.acknowledged_bytes(), transfer.retransmissions()), (1024, 0));
    }

    #[test]
    fn repeated_old_and_future_acks_never_cause_a_resend_in_lock_step() {
        let clock = Clock::manual(0);
        let (mut transfer, action) = start(&clock, 5000, &[]);
        assert_eq!(action, data(1, 1));
        assert_eq!(transfer.on_ack(clock.now(), 1), data(2, 1));
        for stray in [1, 1, 0, 3, 65535] {
            assert_eq!(transfer.on_ack(clock.now(), stray), Action::Wait, "ACK {stray}");
        }
        assert_eq!(transfer.retransmissions(), 0);
        assert_eq!(transfer.on_ack(clock.now(), 2), data(3, 1));
    }

    #[test]
    fn silence_is_answered_with_doubling_waits_then_given_up() {
        let clock = Clock::manual(0);
        let (mut transfer, _) = start(&clock, 5000, &[]);
        let mut waits = Vec::new();
        loop {
            let wait = transfer.deadline().since(clock.now());
            assert_eq!(transfer.on_timer(clock.now()), Action::Wait, "not before the deadline");
            waits.push(wait.as_millis());
            clock.advance(wait);
            match transfer.on_timer(clock.now()) {
                Action::GiveUp => break,
                action => assert_eq!(action, data(1, 1)),
            }
        }
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 4000, 4000, 4000, 4000]);
        assert_eq!(transfer.retransmissions(), u32::from(MAX_RETRANSMISSIONS));
    }

    #[test]
    fn progress_resets_the_wait_and_the_count() {
        let clock = Clock::manual(0);
        let (mut transfer, _) = start(&clock, 1_000_000, &[]);
        for block in 1..=20 {
            for _ in 0..MAX_RETRANSMISSIONS {
                clock.advance(transfer.deadline().since(clock.now()));
                assert_eq!(transfer.on_timer(clock.now()), data(u64::from(block), 1));
            }
            assert_eq!(transfer.on_ack(clock.now(), block), data(u64::from(block) + 1, 1));
            assert_eq!(transfer.deadline().since(clock.now()), RETRANSMIT_AFTER);
        }
    }

    #[test]
    fn an_agreed_timeout_is_kept_and_not_doubled_beyond_reason() {
        let clock = Clock::manual(0);
        let (mut transfer, _) = start(&clock, 5000, &[TransferOption::Timeout(5)]);
        for _ in 0..2 {
            assert_eq!(transfer.deadline().since(clock.now()), Duration::from_secs(5));
            clock.advance(Duration::from_secs(5));
            assert_eq!(transfer.on_timer(clock.now()), Action::SendOack);
        }
    }

    #[test]
    fn a_window_is_resent_once_per_report_of_loss() {
        let clock = Clock::manual(0);
        let (mut transfer, _) = start(&clock, 512 * 20, &[TransferOption::WindowSize(4)]);
        assert_eq!(transfer.on_ack(clock.now(), 0), data(1, 4));
        assert_eq!(transfer.on_ack(clock.now(), 0), data(1, 4), "first block lost (RFC 7440)");
        assert_eq!(transfer.on_ack(clock.now(), 0), Action::Wait, "the same report again");
        assert_eq!(transfer.on_ack(clock.now(), 2), data(3, 4), "block 3 lost");
        assert_eq!(transfer.retransmissions(), 4 + 2);
        assert_eq!(transfer.on_ack(clock.now(), 6), data(7, 4));
        assert_eq!(transfer.on_ack(clock.now(), 6), data(7, 4), "a new number may be reported again");
        assert_eq!(transfer.on_ack(clock.now(), 10), data(11, 4));
        assert_eq!(transfer.on_ack(clock.now(), 14), data(15, 4));
        assert_eq!(transfer.on_ack(clock.now(), 18), data(19, 3), "no further than the last, empty block 21");
        assert_eq!(transfer.on_ack(clock.now(), 21), Action::Done);
    }

    #[test]
    fn block_numbers_roll_over_to_zero() {
        for windowsize in [1_u16, 64] {
            let clock = Clock::manual(0);
            let size = 512 * 140_000;
            let (mut transfer, _) = start(&clock, size, &[TransferOption::WindowSize(windowsize)]);
            assert!(transfer.wraps());
            let mut action = transfer.on_ack(clock.now(), 0);
            let mut expected = 1;
            while let Action::SendData { first, count } = action {
                assert_eq!(first, expected);
                expected = first + u64::from(count);
                action = transfer.on_ack(clock.now(), low_16_bits(expected - 1));
            }
            assert_eq!((action, transfer.acknowledged_bytes()), (Action::Done, size));
        }
        let clock = Clock::manual(0);
        assert!(!start(&clock, 512 * 65_535 - 1, &[]).0.wraps(), "65535 blocks are numbered without wrapping");
        assert!(start(&clock, 512 * 65_535, &[]).0.wraps());
    }
}
