//! Closing the books on accounts that are proven gone: the lease is deleted, its end recorded, its finalizer taken off. Those are
//! most of the writes of an end, and no account waits for them; so when thousands end at once they have some places of the
//! controller and not all of them, and what is still to be dropped goes ahead.
//!
//! What was proven is known to this process only. Another one asks the engine again, which proves the same.

use super::context::Context;
use super::crowd::{Crowds, Place};
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Passes that close books at a time. With eight of them a busy API server let fewer leases close than begin, and ends of one
/// dynamic secret no longer met in one write; with all of a controller's places they were in the way of accounts to be dropped.
const AT_ONCE: u16 = 16;

/// Leases whose accounts are gone, and who of them writes.
pub struct Closing {
    crowds: Crowds,
    proven: Mutex<HashSet<Box<str>>>,
}

impl Default for Closing {
    fn default() -> Self {
        Self {
            crowds: Crowds::of(AT_ONCE),
            proven: Mutex::default(),
        }
    }
}

impl Closing {
    /// A place to write from. None where the lease has to stand outside: it is woken when one is free.
    pub fn enter<'a>(&'a self, ctx: &'a Context, lease: (String, String)) -> Option<Place<'a>> {
        self.crowds.enter(ctx, "", lease)
    }

    /// The lease's account is proven gone, and nobody can bring it back.
    pub fn note_proven(&self, uid: &str) {
        self.proven().insert(uid.into());
    }

    /// Whether the account was proven gone in an earlier pass.
    pub fn is_proven(&self, uid: &str) -> bool {
        self.proven().contains(uid)
    }

    /// The lease is closed.
    pub fn forget(&self, uid: &str) {
        self.proven().remove(uid);
    }

    fn proven(&self) -> MutexGuard<'_, HashSet<Box<str>>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_proven_is_known_until_the_lease_is_closed() {
        let closing = Closing::default();
        closing.note_proven("a");
        assert!(closing.is_proven("a") && !closing.is_proven("b"));
        closing.forget("a");
        assert!(!closing.is_proven("a"));
    }
}
