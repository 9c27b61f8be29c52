//! The packets of a boot as a file that other programs read: classic pcap with bare IP packets
//! (draft-ietf-opsawg-pcap).

/// Bytes kept of an enrolled Pi's boot; 60 files asked for are some 12 KB.
pub const MAX_PACKETS: usize = 64 << 10;
/// Bytes kept of a boot of a Pi that nobody enrolled: anyone on the LAN can make one up.
pub const MAX_PACKETS_OF_STRANGER: usize = 8 << 10;
/// A packet is cut here; those that are kept are smaller.
const SNAP: usize = 2048;
/// Magic number of files in microseconds, version 2.4, no time zone, [`SNAP`], and `LINKTYPE_RAW`: an IPv4 or IPv6 header
/// comes first.
const HEADER: [u32; 6] = [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 2048, 101];
/// Length of what stands before each packet.
const RECORD: usize = 16;

/// The packets kept of a boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packets {
    file: Vec<u8>,
    /// Changed since they were stored.
    pub(crate) unsaved: bool,
}

impl Packets {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { file: Vec::new(), unsaved: false }
    }

    /// Those of a boot that is followed on; a file that is none of ours is left out.
    #[must_use]
    pub fn resume(file: Vec<u8>) -> Self {
        let is_ours = file.len() <= MAX_PACKETS && file.starts_with(&HEADER[0].to_le_bytes());
        Self { file: if is_ours { file } else { Vec::new() }, unsaved: false }
    }

    /// The file; empty if there are no packets.
    #[must_use]
    pub fn file(&self) -> &[u8] {
        &self.file
    }

    /// Adds a packet, from its IP header on, unless the file would become longer than `most`. `at_us` is Unix time in
    /// microseconds.
    pub(super) fn add(&mut self, at_us: u64, packet: &[u8], most: usize) {
        let kept = packet.get(..SNAP).unwrap_or(packet);
        if self.file.len().saturating_add(RECORD + kept.len()) > most {
            return;
        }
        if self.file.is_empty() {
            self.file.extend(HEADER.iter().flat_map(|word| word.to_le_bytes()));
        }
        let word = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        let lengths = [kept.len(), packet.len()].map(|length| word(u64::try_from(length).unwrap_or(u64::MAX)));
        for field in [word(at_us / 1_000_000), word(at_us % 1_000_000), lengths[0], lengths[1]] {
            self.file.extend(field);
        }
        self.file.extend(kept);
        self.unsaved = true;
    }
}

/// How many packets are in a file.
#[must_use]
pub fn count(file: &[u8]) -> usize {
    let mut rest = file.get(size_of_val(&HEADER)..).unwrap_or_default();
    let mut count = 0;
    while let Some(length) = rest.get(8..12).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()) {
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        rest = rest.get(RECORD.saturating_add(length)..).unwrap_or_default();
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_begins_with_its_header_and_never_grows_too_long() {
        let mut packets = Packets::new();
        assert_eq!((packets.file(), count(packets.file())), (&[][..], 0));
        packets.add(1_700_000_000_000_123, &[0x45, 1, 2], 4096);
        let expected = [
            &[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0][..],
            &[0; 8],
            &[0, 8, 0, 0, 101, 0, 0, 0],
            &1_700_000_000_u32.to_le_bytes(),
            &[123, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 0x45, 1, 2],
        ];
        assert_eq!(packets.file(), expected.concat());
        packets.add(0, &[0x45; 3000], 4096);
        assert_eq!(packets.file().len(), 24 + RECORD + 3 + RECORD + SNAP);
        (0..1000).for_each(|_| packets.add(0, &[0x45; 300], 4096));
        assert!((3700..=4096).contains(&packets.file().len()));
        assert_eq!(count(packets.file()), 2 + 6);
    }
}
