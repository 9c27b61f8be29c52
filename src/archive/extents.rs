//! Where the data of a sparse file is, as GNU's sparse format 1.0 writes it: decimal numbers, a line each, how many extents
//! there are, then the offset and length of each; filled up to whole blocks.

use super::header::BLOCK;
use super::{ArchiveError, Result};

/// Extents of a file that are written; what is behind them is written with its holes.
pub(super) const MAX_WRITTEN: usize = 65_536;
/// Extents of a file that are read, 4 MB of them.
const MAX_READ: u64 = 262_144;

/// The map as it stands before the data.
pub(super) fn encode(extents: &[(u64, u64)]) -> Vec<u8> {
    let mut map = format!("{}\n", extents.len());
    for (offset, length) in extents {
        map.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// Reads the map of a file of `size` bytes from blocks that `next` gives.
pub(super) fn decode(size: u64, mut next: impl FnMut() -> Result<[u8; BLOCK]>) -> Result<Vec<(u64, u64)>> {
    let damaged = || ArchiveError::Damaged("the map of a sparse file is none".to_owned());
    let mut block = next()?;
    let mut at = 0;
    let mut number = || -> Result<u64> {
        let mut sum = None;
        loop {
            let Some(byte) = block.get(at).copied() else {
                (block, at) = (next()?, 0);
                continue;
            };
            at += 1;
            sum = match (byte, sum) {
                (b'0'..=b'9', sum) => {
                    let tens = sum.unwrap_or(0_u64).checked_mul(10).ok_or_else(damaged)?;
                    Some(tens.checked_add(u64::from(byte - b'0')).ok_or_else(damaged)?)
                }
                (b'\n', Some(sum)) => return Ok(sum),
                _ => return Err(damaged()),
            };
        }
    };
    let count = number()?;
    if count > MAX_READ {
        return Err(ArchiveError::Unsupported(format!("a sparse file has {count} parts, more than {MAX_READ}")));
    }
    let (mut extents, mut end) = (Vec::new(), 0);
    for _ in 0..count {
        let (offset, length) = (number()?, number()?);
        if offset < end {
            return Err(damaged());
        }
        end = offset.checked_add(length).filter(|end| *end <= size).ok_or_else(damaged)?;
        extents.push((offset, length));
    }
    Ok(extents)
}
