//! Deflate, and the CRC of what comes out: the common part of gzip and zip.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::{DecodeError, Step};

pub(super) struct Inflate {
    decompress: Decompress,
    crc: Crc,
    ended: bool,
}

impl Inflate {
    pub(super) fn new() -> Self {
        Self { decompress: Decompress::new(false), crc: Crc::new(), ended: false }
    }

    /// Prepares for another stream.
    pub(super) fn reset(&mut self) {
        self.decompress.reset(false);
        self.crc.reset();
        self.ended = false;
    }

    /// As [`Decode::step`](super::Decode::step); `end` when the deflate stream is complete.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, DecodeError> {
        let (before_in, before_out) = (self.packed(), self.unpacked());
        if !self.ended {
            let status = self.decompress.decompress(input, output, FlushDecompress::None);
            let status = status.map_err(|_| DecodeError::Damaged("its content makes no sense"))?;
            self.ended = status == Status::StreamEnd;
        }
        let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(0);
        let produced = count(self.unpacked(), before_out);
        self.crc.update(output.get(..produced).unwrap_or_default());
        Ok(Step { consumed: count(self.packed(), before_in), produced, end: self.ended })
    }

    /// CRC-32 of what came out.
    pub(super) fn crc(&self) -> u32 {
        self.crc.sum()
    }

    /// Bytes of the deflate stream so far.
    pub(super) fn packed(&self) -> u64 {
        self.decompress.total_in()
    }

    /// Bytes that came out.
    pub(super) fn unpacked(&self) -> u64 {
        self.decompress.total_out()
    }
}
