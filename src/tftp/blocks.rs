//! From file to packets: blocks are read several at a time into the places from which they are sent, headers between them.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;

use super::transfer::{MAX_WINDOWSIZE, low_16_bits};
use super::wire::{DATA_HEADER, data_header};

/// Bytes read ahead for a transfer in lock step: one read for eleven to thirty blocks.
const READ_AHEAD: usize = 16 * 1024;
/// Transfers that have such a buffer; the others read block by block. Bounds them to a megabyte.
const MAX_READING_AHEAD: usize = 64;
/// Such buffers kept for the next transfer.
const MAX_SPARE: usize = 4;

/// A run of ready-made DATA packets of one file.
#[derive(Debug)]
pub(super) struct Blocks {
    packets: Vec<u8>,
    blksize: usize,
    first: u64,
    count: usize,
    /// Payload bytes of the whole run.
    length: usize,
}

/// The shape of a file being sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Bytes of the file.
    pub(super) size: u64,
    /// Bytes per block.
    pub(super) blksize: u16,
}

impl Blocks {
    /// Room for `capacity` bytes of packets.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { packets: vec![0; capacity], blksize: 0, first: 0, count: 0, length: 0 }
    }

    /// How many blocks of `blksize` fit.
    pub(super) fn room(&self, blksize: u16) -> usize {
        (self.packets.len() / (DATA_HEADER + usize::from(blksize))).min(usize::from(MAX_WINDOWSIZE))
    }

    /// Whether the blocks from `first` on are all here. A buffer is one transfer's, or loaded anew for each use.
    pub(super) fn has(&self, first: u64, count: u16) -> bool {
        first >= self.first && first + u64::from(count) <= self.first + self.count as u64
    }

    /// Forgets what it holds.
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// Reads up to `count` blocks from number `first` on, fewer where the file ends.
    ///
    /// # Errors
    /// What reading says, and when the file has become shorter than `layout` says: never a short block in its middle,
    /// which a client would take for its end.
    pub(super) fn load(&mut self, file: &OwnedFd, layout: Layout, first: u64, count: usize) -> io::Result<()> {
        self.clear();
        let blksize = usize::from(layout.blksize);
        let offset = first.saturating_sub(1).saturating_mul(u64::from(layout.blksize));
        let rest = usize::try_from(layout.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        // A file whose size is a multiple of the block size ends with an empty block.
        let count = count.min(self.room(layout.blksize)).min(rest / blksize + 1);
        let length = rest.min(count * blksize);
        let mut payloads = self.packets.chunks_mut(DATA_HEADER + blksize);
        let mut left = length;
        let mut parts: [IoSliceMut<'_>; MAX_WINDOWSIZE as usize] = std::array::from_fn(|_| {
            let payload = payloads.next().and_then(|packet| packet.get_mut(DATA_HEADER..)).unwrap_or_default();
            let used = payload.len().min(left);
            left -= used;
            IoSliceMut::new(&mut payload[..used])
        });
        read_exactly(file, &mut parts[..count], length, offset)?;
        (self.blksize, self.first, self.count, self.length) = (blksize, first, count, length);
        for (number, packet) in (first..).zip(self.packets.chunks_mut(DATA_HEADER + blksize)).take(count) {
            packet[..DATA_HEADER].copy_from_slice(&data_header(low_16_bits(number)));
        }
        Ok(())
    }

    /// The DATA packet of block `number`, which must have been loaded: an empty slice otherwise.
    pub(super) fn packet(&self, number: u64) -> &[u8] {
        let index = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        if number < self.first || index >= self.count {
            return &[];
        }
        let payload = self.length.saturating_sub(index * self.blksize).min(self.blksize);
        let start = index * (DATA_HEADER + self.blksize);
        self.packets.get(start..start + DATA_HEADER + payload).unwrap_or_default()
    }

    /// The DATA packets from block `first` on, for `sendmmsg`; empty slices beyond what is loaded.
    pub(super) fn window(&self, first: u64) -> [[IoSlice<'_>; 1]; MAX_WINDOWSIZE as usize] {
        let mut numbers = first..;
        std::array::from_fn(|_| [IoSlice::new(numbers.next().map_or(&[], |number| self.packet(number)))])
    }
}

/// Buffers for reading ahead, as many as memory allows.
#[derive(Debug, Default)]
pub(super) struct Pool {
    spare: Vec<Blocks>,
    lent: usize,
}

impl Pool {
    /// A buffer, unless too many are out.
    pub(super) fn lend(&mut self) -> Option<Blocks> {
        if self.lent >= MAX_READING_AHEAD {
            return None;
        }
        self.lent += 1;
        Some(self.spare.pop().unwrap_or_else(|| Blocks::with_capacity(READ_AHEAD)))
    }

    /// Takes back what was lent.
    pub(super) fn give_back(&mut self, buffer: Option<Blocks>) {
        let Some(mut buffer) = buffer else { return };
        self.lent = self.lent.saturating_sub(1);
        if self.spare.len() < MAX_SPARE {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

/// Fills `parts`, `length` bytes in all.
fn read_exactly(file: &OwnedFd, parts: &mut [IoSliceMut<'_>], length: usize, offset: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    let read = rustix::io::retry_on_intr(|| rustix::io::preadv(file, parts, offset))?;
    if read == length {
        return Ok(());
    }
    // Rare: a file system may give less than is there.
    let mut at = 0;
    for part in parts {
        let mut part = &mut part[..];
        while !part.is_empty() {
            let done = read.saturating_sub(at).min(part.len());
            let got = if done > 0 {
                done
            } else {
                rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *part, offset + at as u64))?
            };
            if got == 0 {
                return Err(io::Error::other("the file became shorter while it was being sent"));
            }
            at += got;
            part = part.get_mut(got..).unwrap_or_default();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.into()
    }

    #[test]
    fn packets_carry_their_numbers_and_the_last_is_short_or_empty() {
        let bytes: Vec<u8> = (0..1024).map(|i| (i / 4) as u8).collect();
        let fd = file(&bytes);
        let mut blocks = Blocks::with_capacity(16 * 1024);
        for size in [1024, 1023, 512, 1, 0] {
            let layout = Layout { size, blksize: 512 };
            blocks.load(&fd, layout, 1, 64).unwrap();
            let mut got = Vec::new();
            for number in 1..=size / 512 + 1 {
                let packet = blocks.packet(number);
                assert_eq!(packet[..4], [0, 3, 0, number as u8]);
                got.extend_from_slice(&packet[4..]);
            }
            assert_eq!(got, bytes[..size as usize]);
            assert!(blocks.has(1, (size / 512 + 1) as u16) && !blocks.has(1, (size / 512 + 2) as u16));
            assert!(blocks.packet(size / 512 + 2).is_empty() && blocks.packet(0).is_empty());
        }
    }

    #[test]
    fn the_pool_is_bounded_and_gives_nothing_of_the_last_file_away() {
        let mut pool = Pool::default();
        let mut lent: Vec<_> = (0..MAX_READING_AHEAD).map(|_| pool.lend()).collect();
        assert!(lent.iter().all(Option::is_some) && pool.lend().is_none());
        let mut used = lent.pop().flatten().unwrap();
        used.load(&file(b"secret"), Layout { size: 6, blksize: 512 }, 1, 1).unwrap();
        pool.give_back(Some(used));
        assert!(!pool.lend().unwrap().has(1, 1));
    }

    #[test]
    fn a_run_from_the_middle_behind_the_wrap() {
        let fd = file(&[]);
        let size = 8 * 70_000;
        rustix::fs::ftruncate(&fd, size).unwrap();
        let mut blocks = Blocks::with_capacity(1024);
        blocks.load(&fd, Layout { size, blksize: 8 }, 65_535, 3).unwrap();
        let numbers: Vec<_> = (65_535..65_538).map(|number| blocks.packet(number)[2..4].to_vec()).collect();
        assert_eq!(numbers, [[255, 255], [0, 0], [0, 1]]);
        assert!(blocks.has(65_536, 2) && !blocks.has(65_534, 1) && !blocks.has(65_538, 1));
        blocks.clear();
        assert!(!blocks.has(65_535, 1));
    }

    #[test]
    fn a_file_shorter_than_promised_is_an_error() {
        let fd = file(&[7; 1000]);
        let mut blocks = Blocks::with_capacity(16 * 1024);
        let error = blocks.load(&fd, Layout { size: 2000, blksize: 512 }, 1, 4).unwrap_err();
        assert!(error.to_string().contains("shorter"), "{error}");
        assert!(!blocks.has(1, 1), "nothing half loaded is kept");
    }
}
