//! Who waits for a place below a limit of leases, longest first: known from the watches, so that a lease that goes costs no
//! search through all objects.

use super::context::Context;
use super::watches::{DYNAMIC_SECRETS, LEASES};
use crate::api::conditions::{self, READY, Reason};
use crate::api::{CredentialLease, DynamicSecret};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

/// How many are woken for one place that a lease left: the first may have been refused for another reason meanwhile.
const WOKEN_FOR_A_PLACE: usize = 3;

/// Those who wait.
#[derive(Default)]
pub struct Places {
    dynamic_secrets: Queues,
    leases: Queues,
}

impl Places {
    /// A dynamic secret was seen, or seen to be gone.
    pub fn note_dynamic_secret(&self, ctx: &Context, changed: &DynamicSecret) {
        // While it is being filled the cache shows nothing at all.
        let since = if ctx.stores.filled.has(DYNAMIC_SECRETS) {
            let there = ctx.stores.dynamic_secrets.get(&ObjectRef::from_obj(changed));
            there.and_then(|one| waiting(&one))
        } else {
            waiting(changed)
        };
        let namespace = changed.namespace().unwrap_or_default();
        self.dynamic_secrets.note(&namespace, &changed.name_any(), since);
    }

    /// A lease was seen, or seen to be gone.
    pub fn note_lease(&self, ctx: &Context, changed: &CredentialLease) {
        let since = if ctx.stores.filled.has(LEASES) {
            let there = ctx.stores.leases.get(&ObjectRef::from_obj(changed));
            there.and_then(|lease| asks(&lease))
        } else {
            asks(changed)
        };
        let namespace = changed.namespace().unwrap_or_default();
        self.leases.note(&namespace, &changed.name_any(), since);
    }

    /// A lease of the namespace is gone: wakes those who waited longest, and not all of them, since there is one place.
    pub fn freed(&self, ctx: &Context, namespace: &str) {
        let stores = &ctx.stores;
        self.dynamic_secrets.longest(namespace, |name| {
            let found = stores.dynamic_secrets.get(&ObjectRef::new(name).within(namespace));
            let Some(one) = found.filter(|one| waiting(one).is_some()) else {
                return false;
            };
            ctx.nudges.nudge(&one.uid().unwrap_or_default());
            ctx.wake_dynamic_secret(namespace, name);
            true
        });
        self.leases.longest(namespace, |name| {
            let found = stores.leases.get(&ObjectRef::new(name).within(namespace));
            let waiting = found.is_some_and(|lease| asks(&lease).is_some());
            if waiting {
                ctx.wake_lease(namespace, name);
            }
            waiting
        });
    }
}

/// Since when a dynamic secret waits for a place.
fn waiting(one: &DynamicSecret) -> Option<Timestamp> {
    waits(&one.status.as_ref()?.conditions)
}

/// Since when an unclaimed lease waits for a place.
fn asks(lease: &CredentialLease) -> Option<Timestamp> {
    lease
        .status
        .as_ref()
        .filter(|_| lease.claim().is_none())
        .and_then(|status| waits(&status.conditions))
}

fn waits(conditions: &[Condition]) -> Option<Timestamp> {
    let ready = conditions::find(conditions, READY).filter(|ready| ready.reason == Reason::TooManyLeases.as_str());
    ready.map(|ready| ready.last_transition_time.0)
}

/// One queue for each namespace.
#[derive(Default)]
struct Queues(Mutex<HashMap<String, Queue>>);

#[derive(Default)]
struct Queue {
    since: HashMap<String, Timestamp>,
    order: BTreeSet<(Timestamp, String)>,
}

impl Queue {
    fn leave(&mut self, name: &str) {
        if let Some((name, since)) = self.since.remove_entry(name) {
            self.order.remove(&(since, name));
        }
    }
}

impl Queues {
    fn note(&self, namespace: &str, name: &str, since: Option<Timestamp>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = since {
            let queue = all.entry(namespace.to_owned()).or_default();
            queue.leave(name);
            queue.since.insert(name.to_owned(), since);
            queue.order.insert((since, name.to_owned()));
        } else if let Some(queue) = all.get_mut(namespace) {
            queue.leave(name);
            if queue.since.is_empty() {
                all.remove(namespace);
            }
        }
    }

    /// Offers the place to those who waited longest, until enough have taken it. Who does not wait any more leaves the
    /// queue: a watch that was interrupted does not tell what went meanwhile.
    fn longest(&self, namespace: &str, mut offer: impl FnMut(&str) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = all.get_mut(namespace) else { return };
        let mut gone = Vec::new();
        let mut woken = 0;
        for (_, name) in &queue.order {
            if woken == WOKEN_FOR_A_PLACE {
                break;
            }
            if offer(name) {
                woken += 1;
            } else {
                gone.push(name.clone());
            }
        }
        for name in gone {
            queue.leave(&name);
        }
        if queue.since.is_empty() {
            all.remove(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(queues: &Queues, namespace: &str, gone: &[&str]) -> Vec<String> {
        let mut names = Vec::new();
        queues.longest(namespace, |name| {
            names.push(name.to_owned());
            !gone.contains(&name)
        });
        names
    }

    #[test]
    fn a_place_is_offered_to_those_who_waited_longest_and_to_no_more_than_three() {
        let queues = Queues::default();
        let at = |second| Timestamp::from_second(second).ok();
        for (name, since) in [("d", 4), ("b", 2), ("a", 1), ("c", 3), ("e", 5)] {
            queues.note("shop", name, at(since));
        }
        queues.note("other", "x", at(0));
        assert_eq!(offered(&queues, "shop", &[]), ["a", "b", "c"]);
        queues.note("shop", "a", None);
        queues.note("shop", "b", at(6));
        assert_eq!(offered(&queues, "shop", &[]), ["c", "d", "e"]);
        assert_eq!(offered(&queues, "nowhere", &[]), [""; 0]);
    }

    #[test]
    fn who_is_gone_without_a_word_keeps_no_place_from_the_others() {
        let queues = Queues::default();
        for (name, since) in [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)] {
            queues.note("shop", name, Timestamp::from_second(since).ok());
        }
        assert_eq!(offered(&queues, "shop", &["a", "b"]), ["a", "b", "c", "d", "e"]);
        assert_eq!(offered(&queues, "shop", &[]), ["c", "d", "e"], "they left the queue");
        for name in ["c", "d", "e"] {
            queues.note("shop", name, None);
        }
        assert!(queues.0.lock().unwrap().is_empty(), "an empty queue is not kept");
    }
}
