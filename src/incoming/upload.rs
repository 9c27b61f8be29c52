//! An image that somebody sends: in one go over a connection, or in pieces, each over a connection of its own.
//!
//! Nothing is held here but the socket's own buffer: who sends faster than the image is unpacked has to wait.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use nix::poll::PollFlags;

use super::{Cancel, LOOK, is_cancelled, wait};

/// A sender that sends nothing for so long has gone.
const IDLE: Duration = Duration::from_secs(60);
/// So long the next piece may take: people close the lid of a laptop, or a Wi-Fi goes away for a moment.
const NEXT_PIECE: Duration = Duration::from_secs(120);
/// Pieces that may wait: those of connections that were given up are followed by others.
const QUEUE: usize = 4;
/// Bytes that were sent before are read and dropped in steps of this size.
const SKIP: usize = 64 * 1024;

/// A connection whose other end sends bytes.
#[derive(Debug)]
pub struct Body {
    /// What was read of them already.
    pub ahead: Vec<u8>,
    /// Where the rest comes from. It may be non-blocking.
    pub stream: UnixStream,
}

impl Body {
    /// At least one byte, or 0 at the end.
    fn read(&mut self, buf: &mut [u8], cancel: &Cancel) -> io::Result<usize> {
        if !self.ahead.is_empty() {
            let length = self.ahead.len().min(buf.len());
            let rest = self.ahead.split_off(length);
            buf[..length].copy_from_slice(&self.ahead);
            self.ahead = rest;
            return Ok(length);
        }
        loop {
            wait([self.stream.as_fd()], cancel, IDLE)?;
            match self.stream.read(buf) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                other => return other,
            }
        }
    }

    /// Whether the other end is gone altogether: who has sent everything closes its own direction only.
    fn is_gone(&self, cancel: &Cancel) -> bool {
        wait([self.stream.as_fd()], cancel, IDLE).is_ok_and(|[said]| said.contains(PollFlags::POLLHUP))
    }
}

/// Told how many bytes of the image are here, or why no more are taken.
pub type Answer = Box<dyn FnOnce(Result<u64, String>) + Send>;

/// A part of an image.
pub struct Piece {
    body: Body,
    offset: u64,
    left: u64,
    answer: Option<Answer>,
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Piece").field("offset", &self.offset).field("left", &self.left).finish_non_exhaustive()
    }
}

impl Piece {
    /// `length` bytes that belong at `offset` of the image. `answer` is called once, whatever happens.
    #[must_use]
    pub fn new(body: Body, offset: u64, length: u64, answer: Answer) -> Self {
        Self { body, offset, left: length, answer: Some(answer) }
    }

    /// Says why it is not taken.
    pub fn refuse(mut self, why: String) {
        self.answer(Err(why));
    }

    fn answer(&mut self, said: Result<u64, String>) {
        if let Some(answer) = self.answer.take() {
            answer(said);
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.answer(Err("the import has ended: its job says why".to_owned()));
    }
}

enum Origin {
    Whole(Body),
    Pieces { next: Receiver<Piece>, current: Option<Piece> },
}

/// The bytes of an image that is being sent.
pub struct Upload {
    origin: Origin,
    size: Option<u64>,
    received: u64,
    cancel: Cancel,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("received", &self.received).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Upload {
    /// An image that comes over one connection, until that ends or `size` bytes have come.
    #[must_use]
    pub const fn whole(body: Body, size: Option<u64>, cancel: Cancel) -> Self {
        Self { origin: Origin::Whole(body), size, received: 0, cancel }
    }

    /// An image of `size` bytes that comes in pieces. They are put into the sender.
    pub fn pieces(size: u64) -> (SyncSender<Piece>, impl FnOnce(Cancel) -> Self + Send) {
        let (sender, next) = sync_channel(QUEUE);
        let make = move |cancel| {
            let origin = Origin::Pieces { next, current: None };
            Self { origin, size: Some(size), received: 0, cancel }
        };
        (sender, make)
    }

    fn words(&self, error: &io::Error) -> io::Error {
        let so_far = progress(self.received, self.size);
        match error.kind() {
            ErrorKind::TimedOut => io::Error::other(format!("nothing more came {so_far}")),
            ErrorKind::Other => io::Error::other(error.to_string()),
            _ => io::Error::other(format!("the connection broke {so_far} ({error})")),
        }
    }

    fn whole_part(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Origin::Whole(body) = &mut self.origin else { return Ok(0) };
        let length = body.read(buf, &self.cancel)?;
        if length > 0 {
            return Ok(length);
        }
        let so_far = progress(self.received, self.size);
        match self.size {
            Some(size) if self.received < size => Err(io::Error::other(format!("the upload ended {so_far}"))),
            None if body.is_gone(&self.cancel) => Err(io::Error::other(format!("the connection broke {so_far}"))),
            _ => Ok(0),
        }
    }

    fn piece_part(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let Origin::Pieces { next, current } = &mut self.origin else { return Ok(0) };
            let Some(piece) = current else {
                *current = Some(await_piece(next, &self.cancel)?);
                continue;
            };
            if piece.offset > self.received {
                let wrong = format!("the bytes from {} on are wanted, not those from {}", self.received, piece.offset);
                piece.answer(Err(wrong));
                *current = None;
                continue;
            }
            if piece.left == 0 {
                piece.answer(Ok(self.received));
                *current = None;
                continue;
            }
            // Sent again because its sender was not told that it had come.
            let known = self.received - piece.offset;
            let mut skipped = [0; SKIP];
            let room = if known == 0 { &mut buf[..] } else { &mut skipped[..] };
            let most = if known == 0 { piece.left } else { piece.left.min(known) };
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(room.len());
            match piece.body.read(&mut room[..most], &self.cancel) {
                Ok(length) if length > 0 => {
                    piece.offset += length as u64;
                    piece.left -= length as u64;
                    if known == 0 {
                        let received = self.received + length as u64;
                        if piece.left == 0 || self.size == Some(received) {
                            piece.answer(Ok(received));
                            *current = None;
                        }
                        return Ok(length);
                    }
                }
                // Its sender begins again where this one broke off.
                Err(error) if error.kind() == ErrorKind::Other => return Err(error),
                _ => *current = None,
            }
        }
    }
}

fn await_piece(next: &Receiver<Piece>, cancel: &Cancel) -> io::Result<Piece> {
    let mut left = NEXT_PIECE;
    loop {
        is_cancelled(cancel)?;
        match next.recv_timeout(LOOK) {
            Ok(piece) => return Ok(piece),
            Err(RecvTimeoutError::Disconnected) => return Err(ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Timeout) => left = left.saturating_sub(LOOK),
        }
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

/// "after 3 of 8 MB"
fn progress(received: u64, size: Option<u64>) -> String {
    let mb = |bytes: u64| format!("{}.{}", bytes / 1_000_000, bytes % 1_000_000 / 100_000);
    match size {
        Some(size) => format!("after {} of {} MB", mb(received), mb(size)),
        None => format!("after {} MB", mb(received)),
    }
}

impl Read for Upload {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.size.map_or(u64::MAX, |size| size - self.received);
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        if most == 0 {
            return Ok(0);
        }
        let buf = &mut buf[..most];
        let read = match self.origin {
            Origin::Whole(_) => self.whole_part(buf),
            Origin::Pieces { .. } => self.piece_part(buf),
        };
        let length = read.map_err(|error| self.words(&error))?;
        self.received += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::Shutdown;
    use std::sync::atomic::Ordering;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn connection(ahead: &[u8]) -> (UnixStream, Body) {
        let (sender, stream) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        (sender, Body { ahead: ahead.to_vec(), stream })
    }

    fn read_all(mut upload: Upload) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        upload.read_to_end(&mut all).map(|_| all).map_err(|e| e.to_string())
    }

    #[test]
    fn a_connection_that_is_closed_in_order_is_the_end_and_one_that_breaks_is_an_error() {
        let send = |size, in_order: bool| {
            let (mut sender, body) = connection(b"ab");
            sender.write_all(b"cd").unwrap();
            if in_order {
                sender.shutdown(Shutdown::Write).unwrap();
            }
            let kept = in_order.then_some(sender);
            let got = read_all(Upload::whole(body, size, Cancel::default()));
            drop(kept);
            got
        };
        assert_eq!(send(None, true), Ok(b"abcd".to_vec()));
        assert_eq!(send(Some(4), true), Ok(b"abcd".to_vec()));
        assert_eq!(send(Some(4), false), Ok(b"abcd".to_vec()), "it is all there");
        assert_eq!(send(Some(3), true), Ok(b"abc".to_vec()), "what follows is none of it");
        assert_eq!(send(None, false), Err("the connection broke after 0.0 MB".to_owned()));
        assert_eq!(send(Some(2_000_000), true), Err("the upload ended after 0.0 of 2.0 MB".to_owned()));
    }

    #[test]
    fn who_waits_notices_that_it_is_cancelled() {
        let (_sender, body) = connection(b"");
        let cancel = Cancel::default();
        let upload = Upload::whole(body, None, cancel.clone());
        let reader = std::thread::spawn(|| read_all(upload));
        cancel.store(true, Ordering::Relaxed);
        assert_eq!(reader.join().unwrap(), Err("cancelled".to_owned()));
    }

    fn piece(offset: u64, length: u64, bytes: &[u8]) -> (Piece, Receiver<Result<u64, String>>) {
        let (mut sender, body) = connection(b"");
        sender.write_all(bytes).unwrap();
        let (said, hears) = channel();
        let answer = Box::new(move |answer| said.send(answer).unwrap());
        (Piece::new(body, offset, length, answer), hears)
    }

    #[test]
    fn pieces_make_an_image_whatever_is_sent_twice_or_breaks() {
        let (sender, make) = Upload::pieces(10);
        let reader = std::thread::spawn(|| read_all(make(Cancel::default())));
        let send = |offset, length, bytes: &[u8]| {
            let (piece, hears) = piece(offset, length, bytes);
            sender.send(piece).unwrap();
            hears.recv().unwrap()
        };
        assert_eq!(send(0, 3, b"abc"), Ok(3));
        assert_eq!(send(4, 3, b"efg"), Err("the bytes from 3 on are wanted, not those from 4".to_owned()));
        assert_eq!(send(0, 3, b"abc"), Ok(3), "sent again");
        assert_eq!(send(3, 0, b""), Ok(3), "asked only");
        assert!(send(3, 4, b"de").is_err(), "its connection broke");
        assert_eq!(send(3, 4, b"defg"), Ok(7), "two of them were there");
        assert_eq!(send(7, 9, b"hijklmnop"), Ok(10), "what follows is none of it");
        assert_eq!(reader.join().unwrap(), Ok(b"abcdefghij".to_vec()));
    }

    #[test]
    fn a_piece_is_answered_when_the_import_ends() {
        let (sender, make) = Upload::pieces(10);
        let (piece, hears) = piece(0, 5, b"ab");
        sender.send(piece).unwrap();
        let mut upload = make(Cancel::default());
        assert_eq!(upload.read(&mut [0; 1]).unwrap(), 1);
        drop(upload);
        assert_eq!(hears.recv().unwrap(), Err("the import has ended: its job says why".to_owned()));
    }
}
