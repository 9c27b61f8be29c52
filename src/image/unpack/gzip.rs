//! gzip (RFC 1952): members in a row are one file, each with its own checksum.

use super::inflate::Inflate;
use super::{Decode, DecodeError, Step};
use crate::image::fields::u32_at;

mod flag {
    pub(super) const HEADER_CRC: u8 = 1 << 1;
    pub(super) const EXTRA: u8 = 1 << 2;
    pub(super) const NAME: u8 = 1 << 3;
    pub(super) const COMMENT: u8 = 1 << 4;
    pub(super) const RESERVED: u8 = 0xe0;
}

pub(super) struct Gzip {
    state: State,
    inflate: Inflate,
    /// Header fields of this member that are still to come, by their flags.
    flags: u8,
    /// Bytes of a field or trailer that has not come whole.
    held: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The ten bytes every header has.
    Header,
    /// Two bytes before the extra field.
    ExtraLength,
    /// Eight bytes behind the content.
    Trailer,
    /// Bytes nobody needs.
    Skip(usize),
    /// A text that ends in NUL.
    Text,
    Body,
    /// After a member: another one, or padding.
    Between,
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self { state: State::Header, inflate: Inflate::new(), flags: 0, held: Vec::new() }
    }

    /// Collects `wanted` bytes in `held`; answers how many it took.
    fn collect(&mut self, input: &[u8], wanted: usize) -> usize {
        let length = wanted.saturating_sub(self.held.len()).min(input.len());
        self.held.extend(input.iter().take(length));
        length
    }

    fn header(&mut self) -> Result<(), DecodeError> {
        let [0x1f, 0x8b, method, flags, ..] = self.held[..] else {
            return Err(DecodeError::Damaged("something that is no gzip stream follows"));
        };
        if method != 8 || flags & flag::RESERVED != 0 {
            return Err(DecodeError::Unsupported("an unknown gzip method"));
        }
        self.flags = flags;
        self.next_field();
        Ok(())
    }

    /// Goes on to the next header field there is, in the order of RFC 1952 section 2.3.
    fn next_field(&mut self) {
        self.held.clear();
        let mut take = |flag: u8| {
            let there = self.flags & flag != 0;
            self.flags &= !flag;
            there
        };
        self.state = if take(flag::EXTRA) {
            State::ExtraLength
        } else if take(flag::NAME) || take(flag::COMMENT) {
            State::Text
        } else if take(flag::HEADER_CRC) {
            State::Skip(2)
        } else {
            self.inflate.reset();
            State::Body
        };
    }

    fn trailer(&mut self) -> Result<(), DecodeError> {
        // The size is counted modulo 2^32.
        let size = self.inflate.unpacked() & u64::from(u32::MAX);
        if u32_at(&self.held, 0) != self.inflate.crc() || u64::from(u32_at(&self.held, 4)) != size {
            return Err(DecodeError::Damaged("its checksum does not fit its content"));
        }
        self.held.clear();
        self.state = State::Between;
        Ok(())
    }
}

impl Decode for Gzip {
    fn step(&mut self, input: &[u8], output: &mut [u8], last: bool) -> Result<Step, DecodeError> {
        let mut consumed = 0;
        while let Some(rest) = input.get(consumed..).filter(|rest| !rest.is_empty()) {
            match self.state {
                State::Header => {
                    consumed += self.collect(rest, 10);
                    if self.held.len() == 10 {
                        self.header()?;
                    }
                }
                State::ExtraLength => {
                    consumed += self.collect(rest, 2);
                    if let [low, high] = self.held[..] {
                        self.held.clear();
                        self.state = State::Skip(usize::from(u16::from_le_bytes([low, high])));
                    }
                }
                State::Skip(0) => self.next_field(),
                State::Skip(left) => {
                    let length = left.min(rest.len());
                    consumed += length;
                    self.state = State::Skip(left - length);
                }
                State::Text => {
                    let end = rest.iter().position(|byte| *byte == 0);
                    consumed += end.map_or(rest.len(), |end| end + 1);
                    if end.is_some() {
                        self.next_field();
                    }
                }
                State::Body => {
                    let step = self.inflate.step(rest, output)?;
                    consumed += step.consumed;
                    if step.end {
                        self.state = State::Trailer;
                    }
                    if step.produced > 0 || !step.end {
                        return Ok(Step { consumed, produced: step.produced, end: false });
                    }
                }
                State::Trailer => {
                    consumed += self.collect(rest, 8);
                    if self.held.len() == 8 {
                        self.trailer()?;
                    }
                }
                // Tapes and some writers pad with zeros.
                State::Between if rest.first() == Some(&0) => consumed += 1,
                State::Between => self.state = State::Header,
            }
        }
        // What the decompressor still holds comes without further input.
        if self.state == State::Body && consumed == 0 {
            let step = self.inflate.step(&[], output)?;
            if step.end {
                self.state = State::Trailer;
            }
            return Ok(Step { consumed: 0, produced: step.produced, end: false });
        }
        Ok(Step { consumed, produced: 0, end: last && self.state == State::Between })
    }
}
