//! What a bootloader says before its first DISCOVER: that boot is not known yet, and the one before is over.

use std::collections::VecDeque;

use crate::clock::Moment;
use crate::pi::Mac;

/// Lines that may wait for their boots: a bootloader says about 20 before it asks for an address.
const LINES: usize = 256;

/// Lines that wait for the boot that they belong to.
#[derive(Debug, Default)]
pub(super) struct Early(VecDeque<(Moment, Mac, Box<[u8]>)>);

impl Early {
    /// Keeps a line; the oldest makes room.
    pub(super) fn keep(&mut self, at: Moment, mac: Mac, line: &[u8]) {
        if self.0.len() >= LINES {
            self.0.pop_front();
        }
        self.0.push_back((at, mac, line.into()));
    }

    /// Takes the lines of a Pi whose boot begins. Those from before `since` belong to none, and go with them.
    pub(super) fn take(&mut self, mac: Mac, since: Moment) -> Vec<(Moment, Box<[u8]>)> {
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(|(_, of, _)| *of == mac);
        self.0 = left;
        let taken: VecDeque<_> = taken;
        taken.into_iter().filter(|(at, ..)| *at >= since).map(|(at, _, line)| (at, line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn lines_wait_for_their_own_boot_and_not_for_ever() {
        let at = |s| Moment::new(Duration::from_secs(s));
        let (lion, bear) = (Mac([2; 6]), Mac([4; 6]));
        let mut early = Early::default();
        early.keep(at(1), lion, b"long ago");
        early.keep(at(100), lion, b"LINK STATUS");
        early.keep(at(100), bear, b"another");
        assert_eq!(early.take(lion, at(50)), [(at(100), Box::from(*b"LINK STATUS"))]);
        assert_eq!(early.take(lion, at(0)), []);
        (0..1000).for_each(|_| early.keep(at(100), bear, b"noise"));
        assert_eq!(early.take(bear, at(0)).len(), LINES);
    }
}
