//! Numbers that look random and are the same in every run.

pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// xorshift64*.
    pub(crate) fn u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.u64() >> 16) as usize % end
    }

    pub(crate) fn of<'a, T>(&mut self, choice: &'a [T]) -> &'a T {
        &choice[self.below(choice.len())]
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Any number, those at the edges often.
    pub(crate) fn edgy32(&mut self) -> u32 {
        let any = (self.u64() >> 32) as u32;
        *self.of(&[any, any >> 16, any >> 24, 0, 1, u32::MAX, 1 << 31, (1 << 31) - 1])
    }

    pub(crate) fn edgy64(&mut self) -> u64 {
        let any = self.u64();
        *self.of(&[any, any >> 32, 0, 1, u64::MAX, 1 << 63, (1 << 63) - 1, u32::MAX.into(), 1 << 32])
    }

    /// Bytes of any value, as many as one of `lengths` says.
    pub(crate) fn bytes(&mut self, lengths: &[usize]) -> Vec<u8> {
        let length = *self.of(lengths);
        (0..length).map(|_| (self.u64() >> 56) as u8).collect()
    }
}
