//! Seeded simulation of a lossy link: the transfer state machine against a model of a client, in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::transfer::{Action, RETRANSMIT_AFTER, Terms, Transfer, low_16_bits};
use super::wire::{Options, TransferOption};
use crate::clock::Clock;

/// What travels, by its absolute moment and a tie-breaker.
enum Message {
    Oack,
    Data { number: u16, payload: usize },
    Ack(u16),
}

struct Link {
    in_flight: BTreeMap<(Duration, u32), Message>,
    count: u32,
    seed: u32,
    loss_permille: u32,
    duplicate_permille: u32,
}

impl Link {
    fn random(&mut self) -> u32 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 17;
        self.seed ^= self.seed << 5;
        self.seed
    }

    /// Half a millisecond each way; a LAN does not reorder.
    fn send(&mut self, now: Duration, message: impl Fn() -> Message) {
        let copies = 1 + u32::from(self.random() % 1000 < self.duplicate_permille);
        for _ in 0..copies {
            if self.random() % 1000 < self.loss_permille {
                continue;
            }
            self.count += 1;
            self.in_flight.insert((now + Duration::from_micros(500), self.count), message());
        }
    }
}

/// A client as RFC 1350 and RFC 7440 want it: acknowledges a full window, reports a gap once, repeats itself after a second.
struct Client {
    blksize: usize,
    windowsize: u64,
    received: u64,
    in_window: u64,
    bytes: u64,
    gap_reported: bool,
    started: bool,
    done: bool,
    repeat_at: Duration,
}

impl Client {
    fn on_message(&mut self, now: Duration, message: &Message) -> Option<u16> {
        let answer = match *message {
            Message::Oack => (!self.started).then_some(0),
            Message::Data { number, payload } => {
                self.started = true;
                if number == low_16_bits(self.received + 1) {
                    self.received += 1;
                    self.in_window += 1;
                    self.bytes += payload as u64;
                    self.gap_reported = false;
                    self.done = payload < self.blksize;
                    let complete = self.done || self.in_window == self.windowsize;
                    if complete {
                        self.in_window = 0;
                    }
                    complete.then(|| low_16_bits(self.received))
                } else if self.windowsize == 1 {
                    Some(number).filter(|_| number == low_16_bits(self.received))
                } else {
                    let report = !self.gap_reported;
                    self.gap_reported = true;
                    self.in_window = 0;
                    report.then(|| low_16_bits(self.received))
                }
            }
            Message::Ack(_) => None,
        };
        if answer.is_some() {
            self.repeat_at = now + Duration::from_secs(1);
        }
        answer
    }
}

struct Outcome {
    client_bytes: u64,
    server: Transfer,
    action: Action,
    took: Duration,
    data_packets: u64,
}

fn run(size: u64, windowsize: u16, loss_permille: u32, duplicate_permille: u32, seed: u32) -> Outcome {
    let clock = Clock::manual(0);
    let mut asked = Options::default();
    asked.push(TransferOption::BlockSize(1024));
    asked.push(TransferOption::WindowSize(windowsize));
    let terms = Terms::agree(&asked, 1468);
    let (mut server, first) = Transfer::start(clock.now(), &terms, size, RETRANSMIT_AFTER);
    let mut link = Link { in_flight: BTreeMap::new(), count: 0, seed, loss_permille, duplicate_permille };
    let mut client = Client {
        blksize: 1024,
        windowsize: u64::from(windowsize),
        received: 0,
        in_window: 0,
        bytes: 0,
        gap_reported: false,
        started: false,
        done: false,
        repeat_at: Duration::from_secs(1),
    };
    let mut data_packets = 0;
    let mut action = first;
    loop {
        let now = clock.now().since_start();
        match action {
            Action::Wait => {}
            Action::SendOack => link.send(now, || Message::Oack),
            Action::SendData { first, count } => {
                for block in first..first + u64::from(count) {
                    let payload = size.saturating_sub((block - 1) * 1024).min(1024) as usize;
                    data_packets += 1;
                    link.send(now, || Message::Data { number: low_16_bits(block), payload });
                }
            }
            Action::Done | Action::GiveUp => {
                return Outcome { client_bytes: client.bytes, server, action, took: now, data_packets };
            }
        }
        // The next thing to happen: a packet arrives, the server's timer fires, or the client repeats its last word.
        let timer = server.deadline().since_start();
        let arrival = link.in_flight.keys().next().map_or(Duration::MAX, |key| key.0);
        let next = timer.min(arrival).min(client.repeat_at);
        clock.advance(next.saturating_sub(now));
        let now = clock.now().since_start();
        action = Action::Wait;
        if arrival <= now {
            let (_, message) = link.in_flight.pop_first().expect("arrival is its key");
            if let Message::Ack(number) = message {
                action = server.on_ack(clock.now(), number);
            } else if let Some(number) = client.on_message(now, &message) {
                link.send(now, || Message::Ack(number));
            }
        } else if timer <= now {
            action = server.on_timer(clock.now());
        } else {
            client.repeat_at = now + Duration::from_secs(1);
            if client.started {
                let number = low_16_bits(client.received);
                link.send(now, || Message::Ack(number));
            }
        }
    }
}

#[test]
fn a_perfect_link_sends_every_block_once() {
    for windowsize in [1, 8, 64] {
        let outcome = run(1_000_000, windowsize, 0, 0, 1);
        assert_eq!((outcome.action, outcome.client_bytes), (Action::Done, 1_000_000));
        assert_eq!((outcome.data_packets, outcome.server.retransmissions()), (1_000_000 / 1024 + 1, 0));
    }
}

#[test]
fn one_percent_loss_each_way_costs_time_but_never_the_file() {
    for windowsize in [1, 8, 64] {
        for seed in 1..=20 {
            let outcome = run(1_000_000, windowsize, 10, 0, seed);
            assert_eq!(outcome.client_bytes, 1_000_000, "window {windowsize} seed {seed}");
            // The last ACK may be lost for good: the client of the model leaves nobody to repeat it.
            assert!(matches!(outcome.action, Action::Done | Action::GiveUp));
            assert!(outcome.server.retransmissions() > 0);
        }
    }
}

#[test]
fn a_tenth_lost_still_arrives() {
    for windowsize in [1, 8] {
        for seed in 1..=10 {
            let outcome = run(300_000, windowsize, 100, 0, seed);
            assert_eq!(outcome.client_bytes, 300_000, "window {windowsize} seed {seed}");
        }
    }
}

#[test]
fn duplicated_packets_do_not_multiply() {
    for seed in 1..=10 {
        let outcome = run(1_000_000, 1, 0, 300, seed);
        assert_eq!(outcome.client_bytes, 1_000_000);
        assert_eq!(outcome.data_packets, 977, "Sorcerer's Apprentice, seed {seed}");
    }
}

#[test]
fn a_lost_packet_costs_a_quarter_of_a_second_not_a_whole_one() {
    let lossless = run(1_000_000, 1, 0, 0, 1).took;
    for seed in 1..=5 {
        let outcome = run(1_000_000, 1, 10, 0, seed);
        let extra = outcome.took.saturating_sub(lossless);
        let resent = outcome.server.retransmissions();
        if outcome.action == Action::Done {
            // Two losses in a row double the wait of the second.
            assert!(extra < Duration::from_millis(400) * resent, "{extra:?} for {resent} retransmissions");
        }
    }
}
