//! Passes that wait for one server. A server that hangs must not have all places of a controller, so only some wait there at
//! a time; the others stand outside without a place, and each that leaves calls the next one in.

use super::context::Context;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Passes that wait for one server at a time: half of a controller's, so that all others have the rest.
pub const INSIDE: u16 = 32;

/// Namespace and name of a lease.
type Lease = (String, String);

/// Who waits for which server, by server record.
pub struct Crowds {
    inside: u16,
    all: Mutex<HashMap<String, Crowd>>,
}

impl Default for Crowds {
    fn default() -> Self {
        Self::of(INSIDE)
    }
}

#[derive(Default)]
struct Crowd {
    inside: usize,
    outside: VecDeque<Lease>,
    /// Those of them who wait still: a lease that is woken by something else comes again, and stands there once.
    known: HashSet<Lease>,
}

/// A place inside. Leaving it calls the next one.
pub struct Place<'a> {
    crowds: &'a Crowds,
    ctx: &'a Context,
    record: &'a str,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.crowds.leave(self.record);
        self.crowds.call(self.ctx, self.record);
    }
}

impl Crowds {
    /// So many places for each.
    pub fn of(inside: u16) -> Self {
        Self {
            inside,
            all: Mutex::default(),
        }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, Crowd>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, or none where the lease has to stand outside; then it is woken when one is free.
    pub fn enter<'a>(&'a self, ctx: &'a Context, record: &'a str, lease: Lease) -> Option<Place<'a>> {
        // Not `then_some`: a place that is made is left when it is dropped, also one that nobody was given.
        self.admit(record, lease).then(|| Place {
            crowds: self,
            ctx,
            record,
        })
    }

    fn admit(&self, record: &str, lease: Lease) -> bool {
        let mut crowds = self.locked();
        let crowd = crowds.entry(record.to_owned()).or_default();
        if crowd.inside < usize::from(self.inside) {
            crowd.inside += 1;
            crowd.known.remove(&lease);
            return true;
        }
        if crowd.known.insert(lease.clone()) {
            crowd.outside.push_back(lease);
        }
        false
    }

    fn leave(&self, record: &str) {
        if let Some(crowd) = self.locked().get_mut(record) {
            crowd.inside = crowd.inside.saturating_sub(1);
        }
    }

    /// Wakes the next one that stands outside. To be called as well by whoever came and needed no place.
    pub fn call(&self, ctx: &Context, record: &str) {
        if let Some((namespace, name)) = self.next(record) {
            ctx.wake_lease(&namespace, &name);
        }
    }

    fn next(&self, record: &str) -> Option<Lease> {
        let mut crowds = self.locked();
        let crowd = crowds.get_mut(record)?;
        while let Some(next) = crowd.outside.pop_front() {
            // Who came in by himself stands outside no more; to call him would be to call nobody.
            if crowd.known.remove(&next) {
                return Some(next);
            }
        }
        if crowd.inside == 0 {
            crowds.remove(record);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(number: usize) -> Lease {
        ("shop".to_owned(), format!("lease-{number}"))
    }

    #[test]
    fn whoever_leaves_calls_the_one_who_came_first() {
        let crowds = Crowds::default();
        for number in 0..INSIDE {
            assert!(crowds.admit("server", lease(usize::from(number))));
        }
        assert!(!crowds.admit("server", lease(100)));
        assert!(!crowds.admit("server", lease(101)));
        assert!(!crowds.admit("server", lease(100)), "it stands there already");
        assert!(
            crowds.admit("another", lease(102)),
            "another server has places of its own"
        );
        crowds.leave("server");
        assert_eq!(crowds.next("server"), Some(lease(100)));
        assert!(crowds.admit("server", lease(100)));
        assert_eq!(crowds.next("server"), Some(lease(101)));
        assert_eq!(crowds.next("server"), None);
        for _ in 0..INSIDE {
            crowds.leave("server");
        }
        assert_eq!(crowds.next("server"), None);
        assert!(
            !crowds.locked().contains_key("server"),
            "nothing is kept of a server that nobody waits for"
        );
    }

    #[test]
    fn whoever_came_in_by_himself_is_not_called() {
        let crowds = Crowds::of(1);
        assert!(crowds.admit("server", lease(1)));
        assert!(!crowds.admit("server", lease(2)) && !crowds.admit("server", lease(3)));
        crowds.leave("server");
        assert!(crowds.admit("server", lease(2)));
        crowds.leave("server");
        assert_eq!(crowds.next("server"), Some(lease(3)));
    }
}
