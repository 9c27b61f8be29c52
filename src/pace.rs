//! How often something may happen: a burst at once, then so many a second.

use std::time::Duration;

use crate::clock::Moment;

/// A token bucket. What it has saved up is kept as time, so that no fraction is lost.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    each: Duration,
    most: Duration,
    saved: Duration,
    at: Moment,
}

impl Pace {
    /// `burst` at once from now on, `per_second` in the long run; both at least one.
    #[must_use]
    pub fn new(burst: u32, per_second: u32, now: Moment) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        let most = each.saturating_mul(burst.max(1));
        Self { each, most, saved: most, at: now }
    }

    /// At most one in `each` from now on.
    #[must_use]
    pub const fn one_in(each: Duration, now: Moment) -> Self {
        Self { each, most: each, saved: each, at: now }
    }

    /// Whether it may happen now; if so, it counts as having happened.
    pub fn take(&mut self, now: Moment) -> bool {
        self.refill(now);
        let may = self.saved >= self.each;
        if may {
            self.saved = self.saved.saturating_sub(self.each);
        }
        may
    }

    /// Whether nothing has happened for long enough that all of the burst is there.
    pub fn is_full(&mut self, now: Moment) -> bool {
        self.refill(now);
        self.saved == self.most
    }

    fn refill(&mut self, now: Moment) {
        self.saved = self.saved.saturating_add(now.since(self.at)).min(self.most);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_through_and_then_so_many_a_second() {
        let at = |ms| Moment::new(Duration::from_millis(ms));
        let mut pace = Pace::new(5, 3, at(0));
        let mut count = |ms| (0..100).filter(|_| pace.take(at(ms))).count();
        assert_eq!([count(0), count(0), count(999), count(1000), count(2000)], [5, 0, 2, 1, 3]);
        assert_eq!(count(1000), 0, "a moment before the last one adds nothing");
        assert_eq!(count(600_000), 5, "no more is saved up than a burst");
        assert!(!pace.is_full(at(600_000)) && pace.is_full(at(700_000)));
    }
}
