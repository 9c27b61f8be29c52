//! Answers that are finished but not sent yet. A client that has several requests under way sends them in one packet, and
//! gets the answers in one: to send a packet costs more than to answer most requests. Nothing waits here for a disk or
//! for the client: as soon as the next request may take any time, all that is here is sent.

use std::io::{self, IoSlice, Write};

/// Bytes that are worth a packet of their own.
const ENOUGH: usize = 32 << 10;
/// Answers in one.
const MAX_REPLIES: usize = 32;
/// Memory of sent answers that is kept for others.
const MAX_SPARE: usize = 4 << 10;

/// Finished answers, record marks included.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    replies: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    bytes: usize,
}

impl Outbox {
    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Whether no more should be put in before it is sent.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= ENOUGH || self.replies.len() >= MAX_REPLIES
    }

    /// Takes an answer; `reply` is empty then.
    pub(super) fn put(&mut self, reply: &mut Vec<u8>) {
        self.bytes = self.bytes.saturating_add(reply.len());
        let empty = self.spare.pop().unwrap_or_default();
        self.replies.push(std::mem::replace(reply, empty));
    }

    /// Sends everything, with as few calls as it takes.
    ///
    /// # Errors
    /// What writing returns; the outbox is empty in any case.
    pub(super) fn send(&mut self, mut to: impl Write) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); MAX_REPLIES];
        for (slice, reply) in slices.iter_mut().zip(&self.replies) {
            *slice = IoSlice::new(reply);
        }
        let result = write_all(&mut to, &mut slices[..self.replies.len().min(MAX_REPLIES)]);
        self.bytes = 0;
        for mut reply in self.replies.drain(..) {
            reply.clear();
            reply.shrink_to(MAX_SPARE);
            self.spare.push(reply);
        }
        result
    }
}

fn write_all(to: &mut impl Write, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match to.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time.
    #[derive(Default)]
    struct Slow {
        got: Vec<u8>,
        calls: usize,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.calls.is_multiple_of(2) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let taken = bytes.len().min(5);
            self.got.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_is_sent_in_order_however_little_is_taken_at_a_time() {
        let mut outbox = Outbox::default();
        let mut sent = Vec::new();
        while !outbox.is_full() {
            let mut reply = format!("answer {}", sent.len()).into_bytes();
            sent.extend_from_slice(&reply);
            outbox.put(&mut reply);
            assert!(reply.is_empty());
        }
        let mut slow = Slow::default();
        outbox.send(&mut slow).unwrap();
        assert_eq!(slow.got, sent);
        assert!(outbox.is_empty() && !outbox.is_full());
        outbox.send(&mut slow).unwrap();
        assert_eq!(slow.got, sent, "nothing twice");
    }

    #[test]
    fn large_answers_do_not_gather_and_their_memory_is_not_kept() {
        let mut outbox = Outbox::default();
        outbox.put(&mut vec![1; ENOUGH]);
        assert!(outbox.is_full());
        outbox.send(io::sink()).unwrap();
        assert!(outbox.spare.iter().all(|spare| spare.capacity() <= MAX_SPARE));
    }

    #[test]
    fn a_connection_that_is_gone_is_told_of_and_leaves_nothing() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut outbox = Outbox::default();
        outbox.put(&mut vec![1]);
        assert!(outbox.send(Gone).is_err());
        assert!(outbox.is_empty());
    }
}
