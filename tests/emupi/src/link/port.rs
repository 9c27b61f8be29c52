//! A board's end of its cable.

use super::{Kind, LinkError, Shared, lock};
use crate::frame::Mac;
use crate::reactor::Alarm;
use crate::rng::Rng;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::task::Poll;
use std::time::Instant;

/// Frames that get lost on a board's cable, in both directions: which ones depends on the seed alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct FrameLoss {
    /// Probability for each frame, 0 to 1.
    pub rate: f64,
    /// What decides.
    pub seed: u64,
}

/// One board's connection to a [`Link`].
#[derive(Debug)]
pub struct Port {
    mac: Mac,
    frames: Receiver<Arc<[u8]>>,
    shared: Arc<Shared>,
    /// Set for a board that shares its thread with others.
    alarm: Option<Alarm>,
    loss: f64,
    lost_in: Rng,
    lost_out: Rng,
}

impl Port {
    pub(super) fn new(
        mac: Mac,
        frames: Receiver<Arc<[u8]>>,
        shared: Arc<Shared>,
        loss: FrameLoss,
        alarm: Option<Alarm>,
    ) -> Port {
        let [a, b, c, d, e, f] = mac.0;
        // Boards with the same seed lose different frames, and what one sends does not decide what it receives.
        let mut rng = Rng::new(loss.seed ^ u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
        let (lost_in, lost_out) = (Rng::new(rng.next_u64()), Rng::new(rng.next_u64()));
        Port { mac, frames, shared, alarm, loss: loss.rate, lost_in, lost_out }
    }

    /// The board's address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// [`LinkError::Send`] when the interface is down or gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        if self.lost_out.chance(self.loss) { Ok(()) } else { self.shared.send(bytes) }
    }

    /// Sends one frame that no bad cable loses.
    ///
    /// # Errors
    /// [`LinkError::Send`] when the interface is down or gone.
    pub fn send_surely(&self, bytes: &[u8]) -> Result<(), LinkError> {
        self.shared.send(bytes)
    }

    /// The next frame, or `None` at the deadline.
    pub(crate) async fn frame(&mut self, deadline: Instant) -> Option<Arc<[u8]>> {
        loop {
            let frame = match &self.alarm {
                None => self.frames.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok(),
                Some(alarm) => {
                    let next = std::future::poll_fn(|_| match self.frames.try_recv() {
                        Ok(frame) => Poll::Ready(Some(frame)),
                        Err(_) => alarm.wait(deadline),
                    });
                    next.await
                }
            };
            if frame.is_none() || !self.lost_in.chance(self.loss) {
                return frame;
            }
        }
    }

    /// Whether transport checksums of received frames can be verified. On a veth pair the sender's kernel leaves them
    /// to hardware that does not exist.
    pub fn checksums_are_final(&self) -> bool {
        self.shared.kind == Kind::Tap
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        lock(&self.shared.ports).remove(&self.mac);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Link;
    use super::*;
    use crate::frame;
    use crate::reactor::block_on;
    use std::io::ErrorKind;
    use std::time::Duration;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const SERVER: Mac = Mac([2, 0, 0, 0, 0, 1]);

    /// Which of a hundred frames each way come through.
    fn survivors(rate: f64, seed: u64) -> (Vec<u8>, Vec<u8>) {
        let (link, wire) = Link::wire().unwrap();
        wire.set_nonblocking(true).unwrap();
        let mut port = link.attach_with(MAC, FrameLoss { rate, seed }, None).unwrap();
        let (mut sent, mut received) = (Vec::new(), Vec::new());
        for n in 0..100 {
            let mut buffer = [0; 100];
            port.send(&frame::build(SERVER, MAC, 0x88b5, &[n])).unwrap();
            match wire.recv(&mut buffer) {
                Ok(_) => sent.push(n),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            port.send_surely(&frame::build(SERVER, MAC, 0x88b5, &[n])).unwrap();
            wire.recv(&mut buffer).unwrap();
        }
        wire.set_nonblocking(false).unwrap();
        for n in 0..100 {
            wire.send(&frame::build(MAC, SERVER, 0x88b5, &[n])).unwrap();
        }
        while let Some(bytes) = block_on(port.frame(Instant::now() + Duration::from_millis(300))) {
            received.push(bytes[14]);
        }
        (sent, received)
    }

    #[test]
    fn the_seed_decides_which_frames_get_lost() {
        let all: Vec<u8> = (0..100).collect();
        assert_eq!(survivors(0.0, 1), (all.clone(), all));
        let (sent, received) = survivors(0.3, 1);
        assert!((50..90).contains(&sent.len()) && (50..90).contains(&received.len()), "{sent:?} {received:?}");
        assert_ne!(sent, received, "each way has its own luck");
        assert_eq!(survivors(0.3, 1), (sent.clone(), received));
        assert_ne!(survivors(0.3, 2).0, sent);
    }
}
