//! A fast 64-bit digest of a byte stream, to compare what many boards received without keeping it all.

/// FNV-1a over little-endian 64-bit words, the length mixed in at the end. It notices damage; it withstands no attacker.
#[derive(Debug, Clone)]
pub struct Digest {
    state: u64,
    tail: [u8; 8],
    tail_len: usize,
    len: u64,
}

impl Default for Digest {
    fn default() -> Digest {
        Digest { state: 0xcbf2_9ce4_8422_2325, tail: [0; 8], tail_len: 0, len: 0 }
    }
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> u64 {
        let mut digest = Digest::default();
        digest.update(bytes);
        digest.finish()
    }

    /// Takes in the next bytes; how they are cut into calls does not matter.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        if self.tail_len > 0 {
            let take = bytes.len().min(8 - self.tail_len);
            self.tail[self.tail_len..self.tail_len + take].copy_from_slice(&bytes[..take]);
            self.tail_len += take;
            bytes = &bytes[take..];
            if self.tail_len < 8 {
                return;
            }
            self.mix(u64::from_le_bytes(self.tail));
            self.tail_len = 0;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        self.tail[..rest.len()].copy_from_slice(rest);
        self.tail_len = rest.len();
    }

    /// The digest of everything so far.
    pub fn finish(&self) -> u64 {
        let mut end = self.clone();
        let mut last = [0; 8];
        last[..self.tail_len].copy_from_slice(&self.tail[..self.tail_len]);
        end.mix(u64::from_le_bytes(last));
        end.mix(self.len);
        end.state
    }

    fn mix(&mut self, word: u64) {
        // The rotation lets high bits reach low ones, which FNV's multiplication by words would not.
        self.state = (self.state ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_does_not_matter_but_every_bit_does() {
        let data: Vec<u8> = (0..5000u32).map(|i| (i * 7) as u8).collect();
        for cut in [1, 7, 8, 9, 512, 1468] {
            let mut digest = Digest::default();
            data.chunks(cut).for_each(|chunk| digest.update(chunk));
            assert_eq!(digest.finish(), Digest::of(&data));
        }
        for at in [0, 1, 8, 4999] {
            let mut bad = data.clone();
            bad[at] ^= 0x80;
            assert_ne!(Digest::of(&bad), Digest::of(&data));
        }
        assert_ne!(Digest::of(&[0; 3]), Digest::of(&[0; 4]));
    }
}
