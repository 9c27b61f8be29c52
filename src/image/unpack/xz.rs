//! xz streams through liblzma: one thread, bounded memory.

use liblzma::stream::{Action, CONCATENATED, Error, Status, Stream};

use super::{Decode, DecodeError, Step};

pub(super) struct Xz {
    stream: Stream,
    limit: u64,
}

impl Xz {
    pub(super) fn new(limit: u64) -> Result<Self, DecodeError> {
        // Several streams in a row are one file to xz, and pixz writes such files.
        let stream = Stream::new_stream_decoder(limit, CONCATENATED);
        stream.map(|stream| Self { stream, limit }).map_err(|_| DecodeError::OutOfMemory)
    }

    fn error(&mut self, error: Error) -> DecodeError {
        match error {
            Error::MemLimit => self.too_large(),
            Error::Mem => DecodeError::OutOfMemory,
            Error::Data => DecodeError::Damaged("its checksums or its content do not fit"),
            Error::Format => DecodeError::Damaged("something that is no xz stream follows"),
            Error::Options | Error::NoCheck | Error::UnsupportedCheck => {
                DecodeError::Unsupported("an unusual xz filter or check")
            }
            Error::Program => DecodeError::Damaged("the decoder gave up"),
        }
    }

    /// The limit can only be raised to what is enough, which is how to learn that figure.
    fn too_large(&mut self) -> DecodeError {
        let (mut low, mut high) = (self.limit, 16 << 30);
        while high - low > 1 << 20 {
            let middle = low + (high - low) / 2;
            if self.stream.set_memlimit(middle).is_ok() { high = middle } else { low = middle }
        }
        let advice = "pack it again with xz -6 or less (xz -9 needs 65 MiB)";
        DecodeError::MemoryLimit { needed: high, limit: self.limit, advice }
    }
}

impl Decode for Xz {
    fn step(&mut self, input: &[u8], output: &mut [u8], last: bool) -> Result<Step, DecodeError> {
        let (before_in, before_out) = (self.stream.total_in(), self.stream.total_out());
        let action = if last { Action::Finish } else { Action::Run };
        let status = self.stream.process(input, output, action).map_err(|error| self.error(error))?;
        let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(0);
        Ok(Step {
            consumed: count(self.stream.total_in(), before_in),
            produced: count(self.stream.total_out(), before_out),
            end: matches!(status, Status::StreamEnd),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_dictionary_too_large_for_a_router_is_refused_with_both_numbers() {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 9);
        encoder.write_all(&[0; 100]).unwrap();
        let packed = encoder.finish().unwrap();
        let mut xz = Xz::new(48 << 20).unwrap();
        let error = xz.step(&packed, &mut [0; 100], false).unwrap_err();
        assert!(error.to_string().contains("needs 65 MiB of memory and 48 MiB"), "{error}");
        let mut xz = Xz::new(66 << 20).unwrap();
        assert_eq!(xz.step(&packed, &mut [0; 200], false).unwrap().produced, 100);
    }
}
