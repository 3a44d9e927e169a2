//! What is done once for each object, however often the step that does it is repeated. Found and forgotten by the object's
//! UID, so that neither costs more the more objects there are.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What was done for which object.
pub struct Once<T>(Mutex<HashMap<Box<str>, Vec<T>>>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: PartialEq> Once<T> {
    /// Whether this is the first time; from now on it is not.
    pub fn is_first(&self, uid: &str, what: T) -> bool {
        let mut all = self.all();
        let Some(done) = all.get_mut(uid) else {
            all.insert(uid.into(), vec![what]);
            return true;
        };
        let first = !done.contains(&what);
        if first {
            done.push(what);
        }
        first
    }

    /// Of these the next one is the first again.
    pub fn forget_some(&self, uid: &str, what: &[T]) {
        let mut all = self.all();
        let Some(done) = all.get_mut(uid) else { return };
        done.retain(|one| !what.contains(one));
        if done.is_empty() {
            all.remove(uid);
        }
    }

    /// Nothing more comes of the object, or it begins anew.
    pub fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Box<str>, Vec<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Once;

    #[test]
    fn each_is_the_first_once_for_each_object_until_it_is_forgotten() {
        let once = Once::default();
        assert!(once.is_first("a", 1) && once.is_first("a", 2) && once.is_first("b", 1));
        assert!(!once.is_first("a", 1) && !once.is_first("b", 1));
        once.forget_some("a", &[1, 3]);
        assert!(once.is_first("a", 1) && !once.is_first("a", 2));
        once.forget("a");
        once.forget_some("b", &[1]);
        assert_eq!(once.all().len(), 0);
        assert!(once.is_first("a", 2) && once.is_first("b", 1));
    }
}
