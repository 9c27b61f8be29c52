//! xz streams through liblzma: one thread, bounded memory.

use liblzma::stream::{Action, CONCATENATED, Error, Status, Stream};

use super::{Decode, DecodeError, Step};

/// pi-gen compresses with `xz -6`, which needs 9 MiB; `xz -9` needs 65. Small routers must not be pushed out of memory.
pub(super) const MEMORY_LIMIT: u64 = 48 << 20;

pub(super) struct Xz(Stream);

impl Xz {
    pub(super) fn new() -> Result<Self, DecodeError> {
        // Several streams in a row are one file to xz, and pixz writes such files.
        Stream::new_stream_decoder(MEMORY_LIMIT, CONCATENATED).map(Self).map_err(error)
    }
}

fn error(error: Error) -> DecodeError {
    match error {
        Error::MemLimit => DecodeError::MemoryLimit(MEMORY_LIMIT),
        Error::Mem => DecodeError::OutOfMemory,
        Error::Data => DecodeError::Damaged("its checksums or its content do not fit"),
        Error::Format => DecodeError::Damaged("something that is no xz stream follows"),
        Error::Options | Error::NoCheck | Error::UnsupportedCheck => DecodeError::Unsupported,
        Error::Program => DecodeError::Damaged("the decoder gave up"),
    }
}

impl Decode for Xz {
    fn step(&mut self, input: &[u8], output: &mut [u8], last: bool) -> Result<Step, DecodeError> {
        let (before_in, before_out) = (self.0.total_in(), self.0.total_out());
        let action = if last { Action::Finish } else { Action::Run };
        let status = self.0.process(input, output, action).map_err(error)?;
        let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(0);
        Ok(Step {
            consumed: count(self.0.total_in(), before_in),
            produced: count(self.0.total_out(), before_out),
            end: matches!(status, Status::StreamEnd),
        })
    }
}
