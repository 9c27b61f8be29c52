//! Many boards on one thread: each is a future that waits for its next frame or for a time.
//!
//! A board alone waits in its own thread and needs none of this; the same code serves both.

use crate::link::{Link, LinkError};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// When a board wants to be looked at even if no frame comes for it.
#[derive(Debug, Clone)]
pub(crate) struct Alarm {
    board: usize,
    at: Arc<Mutex<Option<Instant>>>,
}

impl Alarm {
    pub(crate) fn new(board: usize) -> Alarm {
        Alarm { board, at: Arc::default() }
    }

    /// The board's number.
    pub(crate) fn board(&self) -> usize {
        self.board
    }

    /// `None` once the time has come, until then the board sleeps.
    pub(crate) fn wait<T>(&self, until: Instant) -> Poll<Option<T>> {
        if Instant::now() >= until {
            return Poll::Ready(None);
        }
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        Poll::Pending
    }

    fn at(&self) -> Option<Instant> {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a future that never waits but in its own thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        // Only a board with an alarm is ever pending, and those are not run here.
        std::thread::yield_now();
    }
}

/// What one board does.
pub(crate) type Task<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Runs the boards until all are done, taking the link's frames in meanwhile; the results in the same order. Board `n` has
/// alarm number `n`.
pub(crate) fn run<T>(link: &Link, boards: Vec<(Alarm, Task<'_, T>)>) -> Result<Vec<T>, LinkError> {
    let link = link.take_over();
    let mut context = Context::from_waker(Waker::noop());
    let mut results: Vec<Option<T>> = boards.iter().map(|_| None).collect();
    let mut left = boards.len();
    let mut tasks: Vec<_> = boards.into_iter().map(Some).collect();
    let mut timers = BinaryHeap::new();
    // The earliest timer of each: most are moved on again and again and never go off.
    let mut scheduled: Vec<Option<Instant>> = tasks.iter().map(|_| None).collect();
    let mut ready: Vec<usize> = (0..left).collect();
    while left > 0 {
        for board in ready.drain(..) {
            let Some((alarm, task)) = &mut tasks[board] else { continue };
            if let Poll::Ready(result) = task.as_mut().poll(&mut context) {
                (tasks[board], results[board]) = (None, Some(result));
                left -= 1;
            } else if let Some(at) = alarm.at()
                && scheduled[board].is_none_or(|earliest| at < earliest)
            {
                scheduled[board] = Some(at);
                timers.push(Reverse((at, board)));
            }
        }
        link.take_in(&mut ready)?;
        let now = Instant::now();
        while let Some(&Reverse((at, board))) = timers.peek()
            && at <= now
        {
            timers.pop();
            if scheduled[board] == Some(at) {
                scheduled[board] = None;
            }
            ready.push(board);
        }
        if ready.is_empty() && left > 0 {
            link.wait(timers.peek().map(|Reverse((at, _))| *at));
        }
    }
    Ok(results.into_iter().flatten().collect())
}
