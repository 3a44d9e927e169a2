//! Whether every controller still moves. One that works on a single object for too long is stuck, and only a restart helps.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long one piece of work may take by default: twice what a reconcile is given before it is cut off.
pub const LIMIT: Duration = Duration::from_mins(2);

/// All controllers of the process; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Beats {
    beats: Arc<Mutex<Vec<Beat>>>,
}

/// One controller's sign of life; clones are the same.
#[derive(Debug, Clone)]
pub struct Beat {
    name: &'static str,
    limit: Duration,
    work: Arc<Mutex<Work>>,
}

/// Work in progress, by number: when it began or last made progress.
#[derive(Debug, Default)]
struct Work {
    next: u64,
    since: BTreeMap<u64, Instant>,
}

/// One piece of work; done when dropped.
#[derive(Debug)]
#[must_use = "the work counts as done when this is dropped"]
pub struct Busy {
    number: u64,
    work: Arc<Mutex<Work>>,
}

/// A controller that does not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stalled {
    /// Its name.
    pub name: &'static str,
    /// For how long.
    pub since: Duration,
}

impl Beats {
    /// A new controller: `limit` is how long one piece of its work may go without progress. While it has none, it is alive.
    pub fn register(&self, name: &'static str, limit: Duration) -> Beat {
        let beat = Beat {
            name,
            limit,
            work: Arc::default(),
        };
        self.beats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(beat.clone());
        beat
    }

    /// The controllers that do not move.
    pub fn stalled(&self) -> Vec<Stalled> {
        self.stalled_at(Instant::now())
    }

    fn stalled_at(&self, now: Instant) -> Vec<Stalled> {
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.iter().filter_map(|beat| beat.stalled_at(now)).collect()
    }
}

impl Beat {
    /// Begins a piece of work.
    pub fn busy(&self) -> Busy {
        self.busy_since(Instant::now())
    }

    fn busy_since(&self, since: Instant) -> Busy {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let number = work.next;
        work.next = number.wrapping_add(1);
        work.since.insert(number, since);
        Busy {
            number,
            work: self.work.clone(),
        }
    }

    fn stalled_at(&self, now: Instant) -> Option<Stalled> {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(*work.since.values().min()?);
        (since > self.limit).then_some(Stalled { name: self.name, since })
    }
}

impl Busy {
    /// The work goes on: its time begins anew.
    pub fn progress(&self) {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        work.since.insert(self.number, Instant::now());
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        work.since.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn one_stuck_piece_of_work_is_seen_behind_many_that_move() {
        let (beats, start) = (Beats::default(), Instant::now());
        let (leases, pools) = (beats.register("leases", LIMIT), beats.register("pools", LIMIT));
        let stuck = leases.busy_since(start);
        for _ in 0..100 {
            drop(leases.busy_since(start + seconds(100)));
        }
        let _moving = pools.busy_since(start + seconds(100));
        assert_eq!(beats.stalled_at(start + seconds(120)), []);
        let stalled = Stalled {
            name: "leases",
            since: seconds(121),
        };
        assert_eq!(beats.stalled_at(start + seconds(121)), [stalled]);
        drop(stuck);
        assert_eq!(beats.stalled_at(start + seconds(121)), []);
    }

    #[test]
    fn idle_is_alive_however_long() {
        let beats = Beats::default();
        drop(beats.register("leases", Duration::ZERO).busy());
        assert_eq!(beats.stalled_at(Instant::now() + seconds(1_000_000)), []);
    }

    #[test]
    fn progress_counts_as_life() {
        let (beats, start) = (Beats::default(), Instant::now());
        let audit = beats.register("audit", LIMIT);
        let long = audit.busy_since(start.checked_sub(seconds(500)).unwrap());
        assert_eq!(beats.stalled_at(start).len(), 1);
        long.progress();
        assert_eq!(beats.stalled_at(start + seconds(60)), []);
    }

    #[test]
    fn work_that_panics_is_over() {
        let beats = Beats::default();
        let beat = beats.register("leases", Duration::ZERO);
        let panics = std::panic::catch_unwind(|| {
            let _busy = beat.busy();
            panic!("a fault");
        });
        assert!(panics.is_err());
        assert_eq!(beats.stalled_at(Instant::now() + seconds(1)), []);
    }
}
