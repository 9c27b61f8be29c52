//! Zstandard (RFC 8878) through its own library: frames in a row are one file, bounded memory.

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::{Decode, DecodeError, Step};
use crate::image::fields::u32_at;

/// `zstd -19` needs a window of 8 MiB, `--ultra -22` and `--long` of 128. Twice the former is the most that is given.
const MAX_WINDOW_LOG: u32 = 24;
const MIN_WINDOW_LOG: u32 = 10;
/// Longest frame header (section 3.1.1.1): magic number, descriptor, window, dictionary, content size.
const HEADER: usize = 18;
/// A window is not all: buffers for one block each way, and tables.
const BESIDES_WINDOW: u64 = 512 << 10;

/// `ZSTD_ErrorCode` (zstd_errors.h), which is part of the library's stable interface.
mod code {
    pub(super) const PREFIX_UNKNOWN: usize = 10;
    pub(super) const UNSUPPORTED: usize = 14;
    pub(super) const WINDOW_TOO_LARGE: usize = 16;
    pub(super) const CHECKSUM_WRONG: usize = 22;
    pub(super) const DICTIONARY_WRONG: usize = 32;
    pub(super) const OUT_OF_MEMORY: usize = 64;
}

pub(super) struct Zstd {
    context: DCtx<'static>,
    limit: u64,
    /// The first bytes of the current frame.
    header: Vec<u8>,
    /// Between two frames, or not begun.
    complete: bool,
}

impl Zstd {
    pub(super) fn new(limit: u64) -> Result<Self, DecodeError> {
        let mut context = DCtx::try_create().ok_or(DecodeError::OutOfMemory)?;
        let log = window_log(limit);
        context.set_parameter(DParameter::WindowLogMax(log)).map_err(|_| DecodeError::OutOfMemory)?;
        Ok(Self { context, limit: 1 << log, header: Vec::with_capacity(HEADER), complete: true })
    }

    fn error(&self, code: usize) -> DecodeError {
        // The library answers errors as negative numbers.
        match 0_usize.wrapping_sub(code) {
            code::WINDOW_TOO_LARGE => {
                let needed = window(&self.header).unwrap_or(self.limit.saturating_mul(2));
                let advice = "pack it again with zstd -19 or less, without --long";
                DecodeError::MemoryLimit { needed, limit: self.limit, advice }
            }
            code::PREFIX_UNKNOWN => DecodeError::Damaged("something that is no zstd frame follows"),
            code::CHECKSUM_WRONG => DecodeError::Damaged("its checksum does not fit its content"),
            code::DICTIONARY_WRONG => DecodeError::Unsupported("a zstd dictionary"),
            code::UNSUPPORTED => DecodeError::Unsupported("an unknown zstd frame parameter"),
            code::OUT_OF_MEMORY => DecodeError::OutOfMemory,
            _ => DecodeError::Damaged("its content makes no sense"),
        }
    }
}

impl Decode for Zstd {
    fn step(&mut self, input: &[u8], output: &mut [u8], last: bool) -> Result<Step, DecodeError> {
        if input.is_empty() && self.complete {
            return Ok(Step { consumed: 0, produced: 0, end: last });
        }
        if self.complete {
            self.header.clear();
        }
        self.header.extend(input.iter().take(HEADER - self.header.len().min(HEADER)));
        let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(output));
        let hint = self.context.decompress_stream(&mut to, &mut from).map_err(|code| self.error(code))?;
        self.complete = hint == 0;
        Ok(Step { consumed: from.pos(), produced: to.pos(), end: false })
    }
}

/// The largest window that fits into `limit` bytes of memory, as a power of two.
pub(super) fn window_log(limit: u64) -> u32 {
    limit.saturating_sub(BESIDES_WINDOW).max(1).ilog2().clamp(MIN_WINDOW_LOG, MAX_WINDOW_LOG)
}

/// Bytes of memory that a frame's header asks for as its window (section 3.1.1.1.2).
fn window(header: &[u8]) -> Option<u64> {
    let descriptor = *header.get(4)?;
    if descriptor & 0x20 == 0 {
        let byte = *header.get(5)?;
        let base = 1_u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * u64::from(byte & 7));
    }
    // A single segment: the window is the content.
    let at = 5 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let field = header.get(at..)?;
    Some(match descriptor >> 6 {
        2 => u64::from(u32_at(field, 0)),
        3 => u64::from(u32_at(field, 0)) | u64::from(u32_at(field, 4)) << 32,
        _ => 1 << 16,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_sizes_are_read_from_the_header() {
        assert_eq!(window(b"\x28\xb5\x2f\xfd\x00\x88"), Some(128 << 20));
        assert_eq!(window(b"\x28\xb5\x2f\xfd\x00\x89"), Some(144 << 20));
        assert_eq!(window(b"\x28\xb5\x2f\xfd\xa0\0\0\0\x40"), Some(1 << 30));
        assert_eq!(window(b"\x28\xb5\x2f\xfd\xe0\0\0\0\0\x01\0\0\0"), Some(1 << 32));
        assert_eq!(window(b"\x28\xb5"), None);
    }

    #[test]
    fn a_small_router_gets_a_small_window() {
        assert_eq!(Zstd::new(48 << 20).unwrap().limit, 16 << 20);
        assert_eq!(Zstd::new(10 << 20).unwrap().limit, 8 << 20);
        assert_eq!(Zstd::new(0).unwrap().limit, 1 << 10);
    }
}
