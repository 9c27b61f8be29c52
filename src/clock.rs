//! The one clock. Everything that needs the time asks a [`Clock`], so that tests can drive it.

#![allow(clippy::disallowed_types, reason = "the only place that reads the system's clocks")]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// 2025-01-01, Unix time in ms: before piboot was written. A router whose clock shows an earlier date was not told the time.
pub const FIRST_DATE_MS: i64 = 1_735_689_600_000;

/// A point in monotonic time: the span since the clock was made. Never goes backwards, not even when a router
/// without a battery-backed clock learns the date after boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(Duration);

impl Moment {
    /// A moment `since_start` after the clock was made.
    #[must_use]
    pub const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The span since the clock was made.
    #[must_use]
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The span from `earlier` to this moment, zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment less `span`, at the earliest the clock's start.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span))
    }

    /// This moment plus `span`, saturating.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// Source of monotonic and wall-clock time; cheap to clone, usable from every thread.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System(Instant),
    Manual(Arc<Mutex<Manual>>),
}

#[derive(Debug)]
struct Manual {
    elapsed: Duration,
    wall_ms: i64,
}

impl Clock {
    /// The machine's clock; its first [`Moment`] is now.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System(Instant::now()))
    }

    /// A clock that stands still until [`Clock::advance`] is called; its wall clock starts at `wall_ms` (Unix time in ms).
    #[must_use]
    pub fn manual(wall_ms: i64) -> Self {
        Self(Source::Manual(Arc::new(Mutex::new(Manual { elapsed: Duration::ZERO, wall_ms }))))
    }

    /// Monotonic now.
    #[must_use]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Source::System(start) => Moment(start.elapsed()),
            Source::Manual(m) => Moment(m.lock().unwrap_or_else(PoisonError::into_inner).elapsed),
        }
    }

    /// Unix time in milliseconds, as the machine believes it to be.
    #[must_use]
    pub fn wall_ms(&self) -> i64 {
        match &self.0 {
            Source::System(_) => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            }
            Source::Manual(m) => m.lock().unwrap_or_else(PoisonError::into_inner).wall_ms,
        }
    }

    /// Moves a manual clock forward; does nothing to the system's.
    pub fn advance(&self, span: Duration) {
        if let Source::Manual(m) = &self.0 {
            let mut m = m.lock().unwrap_or_else(PoisonError::into_inner);
            m.elapsed = m.elapsed.saturating_add(span);
            m.wall_ms = m.wall_ms.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
        }
    }
}

/// A point in time as names of files have it: `2026-11-20-151504`, in UTC.
#[must_use]
pub fn stamp(wall_ms: i64) -> String {
    let seconds = wall_ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Eras of 400 years that begin in March, so that a leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year + era * 400, month + 3) } else { (year + era * 400 + 1, month - 9) };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}-{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_dates() {
        // As date -u -d @SECONDS +%Y-%m-%d-%H%M%S prints them.
        for (seconds, text) in [
            (0, "1970-01-01-000000"),
            (951_782_399, "2000-02-28-235959"),
            (951_782_400, "2000-02-29-000000"),
            (1_795_187_704, "2026-11-20-151504"),
            (4_107_542_399, "2100-02-28-235959"),
            (4_107_542_400, "2100-03-01-000000"),
        ] {
            assert_eq!(stamp(seconds * 1000), text);
        }
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(1_000);
        let before = clock.now();
        assert_eq!(clock.now(), before);
        clock.advance(Duration::from_millis(250));
        assert_eq!(clock.now().since(before), Duration::from_millis(250));
        assert_eq!(before.since(clock.now()), Duration::ZERO);
        assert_eq!(clock.wall_ms(), 1_250);
    }
}
