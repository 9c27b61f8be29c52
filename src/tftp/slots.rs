//! Transfers by key, and their timers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Moment;

/// Names one value for as long as it lives; never reused for another while anyone could remember it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// As epoll's user data.
    pub(super) const fn token(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    pub(super) const fn from_token(token: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = token.to_be_bytes();
        Self { generation: u32::from_be_bytes([a, b, c, d]), index: u32::from_be_bytes([e, f, g, h]) }
    }
}

/// Values in reused places.
#[derive(Debug)]
pub(super) struct Slots<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(super) const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop()
            && let Some(place) = self.places.get_mut(index as usize)
        {
            place.0 = place.0.wrapping_add(1);
            place.1 = Some(value);
            return Key { index, generation: place.0 };
        }
        let index = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.push((0, Some(value)));
        Key { index, generation: 0 }
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        match self.places.get(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => value.as_ref(),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.places.get_mut(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => value.as_mut(),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.get_mut(key)?;
        self.free.push(key.index);
        self.places.get_mut(key.index as usize)?.1.take()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0..)
            .zip(&self.places)
            .filter_map(|(index, (generation, value))| Some((Key { index, generation: *generation }, value.as_ref()?)))
    }
}

/// Wake-ups in order. Cheap to postpone: an entry is looked at again when its moment has come, not moved before.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Moment, Key)>>);

impl Timers {
    pub(super) fn push(&mut self, at: Moment, key: Key) {
        self.0.push(Reverse((at, key)));
    }

    /// The earliest moment for which there is an entry.
    pub(super) fn next(&self) -> Option<Moment> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes an entry whose moment has come.
    pub(super) fn pop_due(&mut self, now: Moment) -> Option<(Moment, Key)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }

    /// Drops entries that nothing waits for once they outnumber the `live` ones: memory stays bounded however many
    /// transfers with long timers end early.
    pub(super) fn compact(&mut self, live: usize, waited_for: impl Fn(Moment, Key) -> bool) {
        if self.0.len() > 64 + 4 * live {
            self.0.retain(|Reverse((at, key))| waited_for(*at, *key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_key_outlives_its_value_harmlessly() {
        let mut slots = Slots::new();
        let old = slots.insert("old");
        assert_eq!(slots.remove(old), Some("old"));
        let new = slots.insert("new");
        assert_eq!(slots.get(old), None);
        assert_eq!(slots.remove(old), None);
        assert_eq!(slots.get_mut(Key::from_token(new.token())), Some(&mut "new"));
        assert_eq!(slots.len(), 1);
        assert_eq!(slots.iter().map(|(key, _)| key).collect::<Vec<_>>(), [new]);
    }

    #[test]
    fn timers_come_in_order_and_are_compacted() {
        let at = |ms| Moment::new(Duration::from_millis(ms));
        let key = |index| Key { index, generation: 0 };
        let mut timers = Timers::default();
        for index in 0..100 {
            timers.push(at(u64::from(100 - index)), key(index));
        }
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.pop_due(at(0)), None);
        assert_eq!(timers.pop_due(at(5)), Some((at(1), key(99))));
        timers.compact(1, |_, k| k == key(3));
        assert_eq!(timers.pop_due(at(1000)), Some((at(97), key(3))));
        assert_eq!(timers.pop_due(at(1000)), None);
    }
}
