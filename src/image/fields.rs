//! Little-endian fields of on-disk structures. Reading past the end gives zero: the parsers check lengths first, and a
//! wrong check must not be able to stop the agent.

/// The `N` bytes at `at`, zero where there are none.
fn bytes<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(field) = at.checked_add(N).and_then(|end| data.get(at..end)) {
        out.copy_from_slice(field);
    }
    out
}

/// Unsigned 16-bit field.
pub(crate) fn u16_at(data: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(data, at))
}

/// Unsigned 32-bit field.
pub(crate) fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(data, at))
}

/// Signed 32-bit field.
pub(crate) fn i32_at(data: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(bytes(data, at))
}
