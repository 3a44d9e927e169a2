//! Wakes that may come a little later, and then once for all: a dynamic secret looks at all its leases, so being woken by each
//! change of each of thousands would keep a processor busy with it alone.

use crate::api::DynamicSecret;
use kube::runtime::reflector::ObjectRef;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// How long wakes are gathered.
const A_MOMENT: Duration = Duration::from_millis(300);

type Due = HashSet<ObjectRef<DynamicSecret>>;

/// Dynamic secrets that will be woken in a moment.
#[derive(Default)]
pub struct DeferredWakes {
    due: Arc<Mutex<Due>>,
}

impl DeferredWakes {
    /// Wakes it within a moment, unless that is already under way. What happens until then is seen by it.
    pub fn wake(&self, owner: ObjectRef<DynamicSecret>, wakes: &UnboundedSender<ObjectRef<DynamicSecret>>) {
        if !lock(&self.due).insert(owner.clone()) {
            return;
        }
        let (due, wakes) = (Arc::clone(&self.due), wakes.clone());
        tokio::spawn(async move {
            tokio::time::sleep(A_MOMENT).await;
            // Before it is woken: what changes from here on asks for another look.
            lock(&due).remove(&owner);
            // A closed channel means that this leadership is over.
            let _ = wakes.send(owner);
        });
    }
}

fn lock(due: &Mutex<Due>) -> MutexGuard<'_, Due> {
    due.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thousand_changes_are_one_look_and_a_later_one_is_another() {
        let (sender, mut looks) = tokio::sync::mpsc::unbounded_channel();
        let deferred = DeferredWakes::default();
        let owner = || ObjectRef::new("app").within("shop");
        for _ in 0..1000 {
            deferred.wake(owner(), &sender);
        }
        deferred.wake(ObjectRef::new("other").within("shop"), &sender);
        tokio::time::sleep(2 * A_MOMENT).await;
        let mut names = vec![looks.recv().await.unwrap().name, looks.recv().await.unwrap().name];
        names.sort();
        assert_eq!(names, ["app", "other"]);
        assert!(looks.try_recv().is_err());
        deferred.wake(owner(), &sender);
        assert_eq!(looks.recv().await.unwrap(), owner());
    }
}
