//! What this process wrote into leases a moment ago. A watch shows it a little later: a pass from a view that does not have it
//! yet would ask engines and API server for what is done already. So such a view is exchanged for a live read; nothing is
//! decided from what is remembered here.

use crate::api::CredentialLease;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Far longer than a watch lags behind, and short enough that thousands of lives a minute are not remembered for long.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How far a lease has come, by what is written in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing of ours.
    Asked,
    /// It has a claim.
    Claimed,
    /// Its status says that it is issued.
    Reported,
    /// Our finalizer was taken off.
    Released,
}

impl Stage {
    /// As an object shows it. One that is released shows nothing any more.
    pub fn of(lease: &CredentialLease) -> Self {
        let reported = lease.status.as_ref().is_some_and(|status| status.issued_at.is_some());
        match lease.claim() {
            _ if reported => Self::Reported,
            Some(_) => Self::Claimed,
            None => Self::Asked,
        }
    }
}

/// The last writes, by the lease's UID.
#[derive(Default)]
pub struct OwnWrites(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    stages: HashMap<Arc<str>, (Stage, Instant)>,
    /// In the order in which they are forgotten.
    order: VecDeque<(Instant, Arc<str>)>,
}

impl OwnWrites {
    /// Remembers what was written just now.
    pub fn note(&self, uid: &str, stage: Stage, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.forget_before(now);
        let uid: Arc<str> = all
            .stages
            .get_key_value(uid)
            .map_or_else(|| uid.into(), |(uid, _)| uid.clone());
        all.stages.insert(uid.clone(), (stage, now));
        all.order.push_back((now, uid));
    }

    /// Forgets what was written long ago, and gives back what a busy time took. To be called now and then: after a busy time
    /// there may be nothing to [`Self::note`] for hours.
    pub fn forget(&self, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.forget_before(now);
        let (stages, order) = (2 * all.stages.len(), 2 * all.order.len());
        all.stages.shrink_to(stages);
        all.order.shrink_to(order);
    }

    /// Whether a view of the lease is older than what was written.
    pub fn is_behind(&self, uid: &str, seen: Stage) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.stages.get(uid).is_some_and(|(written, _)| seen < *written)
    }
}

impl Remembered {
    fn forget_before(&mut self, now: Instant) {
        while let Some((at, uid)) = self.order.front() {
            if now.saturating_duration_since(*at) < REMEMBERED {
                return;
            }
            // Written again since: its later entry forgets it.
            if self.stages.get(uid).is_some_and(|(_, last)| last == at) {
                self.stages.remove(uid);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_from_before_a_write_is_behind_for_a_minute() {
        let (writes, begin) = (OwnWrites::default(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert!(!writes.is_behind("a", Stage::Asked));
        writes.note("a", Stage::Claimed, begin);
        assert!(writes.is_behind("a", Stage::Asked));
        assert!(!writes.is_behind("a", Stage::Claimed));
        writes.note("a", Stage::Reported, after(59));
        // Its first entry is over, its second is not.
        writes.note("b", Stage::Released, after(61));
        assert!(writes.is_behind("a", Stage::Claimed));
        assert!(!writes.is_behind("a", Stage::Reported));
        assert!(writes.is_behind("b", Stage::Reported));
        writes.note("c", Stage::Claimed, after(200));
        assert!(!writes.is_behind("a", Stage::Asked) && !writes.is_behind("b", Stage::Asked));
        let all = writes.0.lock().unwrap();
        assert_eq!((all.stages.len(), all.order.len()), (1, 1));
        drop(all);
        writes.forget(after(259));
        assert!(writes.is_behind("c", Stage::Asked));
        writes.forget(after(260));
        let all = writes.0.lock().unwrap();
        assert_eq!((all.stages.capacity(), all.order.capacity()), (0, 0));
    }
}
