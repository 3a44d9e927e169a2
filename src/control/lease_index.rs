//! Which leases belong together, beside the cache of leases: with ten thousand of them, a pass over one dynamic secret must not
//! look at those of the others. Follows the watch event by event, as the cache does, so it knows what the cache knows; whoever
//! reads it takes the leases themselves from there.

use super::cached_lease::label;
use crate::api::CredentialLease;
use crate::api::names::DYNAMIC_SECRET_LABEL;
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Names of leases, by what they have in common.
#[derive(Default)]
pub struct LeaseIndex(Mutex<Shown>);

#[derive(Default)]
struct Shown {
    now: Names,
    /// While the watch lists anew: what it listed so far.
    fresh: Option<Names>,
}

#[derive(Default)]
struct Names {
    /// By the UID of the dynamic secret, as the label says.
    owned: HashMap<String, HashSet<Box<str>>>,
    /// Those without a claim, by namespace and dynamic secret.
    asking: HashMap<(String, String), HashSet<Box<str>>>,
}

impl Names {
    fn note(&mut self, lease: &CredentialLease) {
        let name = lease.name_any();
        if let Some(uid) = label(lease, DYNAMIC_SECRET_LABEL) {
            put(&mut self.owned, uid.to_owned(), &name);
        }
        if lease.claim().is_none() {
            put(&mut self.asking, asks(lease), &name);
        } else {
            take(&mut self.asking, &asks(lease), &name);
        }
    }

    fn forget(&mut self, lease: &CredentialLease) {
        let name = lease.name_any();
        if let Some(uid) = label(lease, DYNAMIC_SECRET_LABEL) {
            take(&mut self.owned, &uid.to_owned(), &name);
        }
        take(&mut self.asking, &asks(lease), &name);
    }
}

fn asks(lease: &CredentialLease) -> (String, String) {
    (lease.namespace().unwrap_or_default(), lease.spec.dynamic_secret.clone())
}

fn put<K: Eq + Hash>(all: &mut HashMap<K, HashSet<Box<str>>>, key: K, name: &str) {
    let names = all.entry(key).or_default();
    if !names.contains(name) {
        names.insert(name.into());
    }
}

fn take<K: Eq + Hash>(all: &mut HashMap<K, HashSet<Box<str>>>, key: &K, name: &str) {
    let Some(names) = all.get_mut(key) else { return };
    names.remove(name);
    if names.is_empty() {
        all.remove(key);
    }
}

impl LeaseIndex {
    /// Takes in what the watch shows, after the cache has.
    pub fn note(&self, event: &watcher::Event<CredentialLease>) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            watcher::Event::Apply(lease) => shown.now.note(lease),
            watcher::Event::Delete(lease) => shown.now.forget(lease),
            watcher::Event::Init => shown.fresh = Some(Names::default()),
            watcher::Event::InitApply(lease) => shown.fresh.get_or_insert_default().note(lease),
            watcher::Event::InitDone => shown.now = shown.fresh.take().unwrap_or_default(),
        }
    }

    /// The leases in the cache with this UID in their label, in one namespace.
    pub fn owned(&self, leases: &Store<CredentialLease>, namespace: &str, uid: &str) -> Vec<Arc<CredentialLease>> {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let names = shown.now.owned.get(uid).map(|names| found(leases, namespace, names));
        drop(shown);
        let mut owned = names.unwrap_or_default();
        // A label may have been changed by hand since.
        owned.retain(|lease| label(lease, DYNAMIC_SECRET_LABEL) == Some(uid));
        owned
    }

    /// The leases in the cache that somebody asked for of this dynamic secret and that have no claim yet.
    pub fn asking(
        &self,
        leases: &Store<CredentialLease>,
        namespace: &str,
        dynamic_secret: &str,
    ) -> Vec<Arc<CredentialLease>> {
        let of = (namespace.to_owned(), dynamic_secret.to_owned());
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let names = shown.now.asking.get(&of).map(|names| found(leases, namespace, names));
        drop(shown);
        let mut asking = names.unwrap_or_default();
        asking.retain(|lease| lease.claim().is_none());
        asking
    }
}

fn found(leases: &Store<CredentialLease>, namespace: &str, names: &HashSet<Box<str>>) -> Vec<Arc<CredentialLease>> {
    let names = names.iter();
    names
        .filter_map(|name| leases.get(&ObjectRef::new(name).within(namespace)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::reflector;
    use kube::runtime::reflector::store::Writer;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    fn lease(name: &str, owner: Option<&str>) -> CredentialLease {
        let labels = owner.map_or(json!({}), |uid| json!({ DYNAMIC_SECRET_LABEL: uid }));
        serde_json::from_value(json!({
            "apiVersion": "dsv.dev/v1alpha1", "kind": "CredentialLease",
            "metadata": {"name": name, "namespace": "shop", "labels": labels},
            "spec": {"dynamicSecret": "orders"},
        }))
        .unwrap()
    }

    struct Watch {
        writer: Writer<CredentialLease>,
        leases: Store<CredentialLease>,
        index: LeaseIndex,
    }

    impl Watch {
        fn show(&mut self, event: &Event<CredentialLease>) {
            self.writer.apply_watcher_event(event);
            self.index.note(event);
        }

        fn owned(&self, uid: &str) -> Vec<String> {
            let mut names: Vec<String> = self
                .index
                .owned(&self.leases, "shop", uid)
                .iter()
                .map(|l| l.name_any())
                .collect();
            names.sort();
            names
        }

        fn asking(&self) -> usize {
            self.index.asking(&self.leases, "shop", "orders").len()
        }
    }

    fn watch() -> Watch {
        let (leases, writer) = reflector::store();
        let index = LeaseIndex::default();
        Watch { writer, leases, index }
    }

    #[test]
    fn it_knows_what_the_cache_knows() {
        let mut watch = watch();
        watch.show(&Event::Init);
        watch.show(&Event::InitApply(lease("one", Some("a"))));
        watch.show(&Event::InitApply(lease("two", Some("b"))));
        watch.show(&Event::InitDone);
        watch.show(&Event::Apply(lease("three", Some("a"))));
        watch.show(&Event::Apply(lease("four", None)));
        assert_eq!(watch.owned("a"), ["one", "three"]);
        assert_eq!((watch.owned("b"), watch.asking()), (vec!["two".to_owned()], 4));
        watch.show(&Event::Delete(lease("one", Some("a"))));
        watch.show(&Event::Delete(lease("four", None)));
        assert_eq!((watch.owned("a"), watch.asking()), (vec!["three".to_owned()], 2));
    }

    #[test]
    fn what_went_while_the_watch_was_away_is_forgotten_and_nothing_else() {
        let mut watch = watch();
        watch.show(&Event::Init);
        watch.show(&Event::InitApply(lease("one", Some("a"))));
        watch.show(&Event::InitApply(lease("two", Some("a"))));
        watch.show(&Event::InitDone);
        watch.show(&Event::Init);
        watch.show(&Event::InitApply(lease("two", Some("a"))));
        assert_eq!(
            watch.owned("a"),
            ["one", "two"],
            "as long as it is listed anew, what was known counts"
        );
        watch.show(&Event::InitDone);
        assert_eq!(watch.owned("a"), ["two"]);
    }

    #[test]
    fn a_label_that_was_changed_by_hand_counts_as_it_is_now() {
        let mut watch = watch();
        watch.show(&Event::Init);
        watch.show(&Event::InitDone);
        watch.show(&Event::Apply(lease("one", Some("a"))));
        watch.show(&Event::Apply(lease("one", Some("b"))));
        assert!(watch.owned("a").is_empty());
        assert_eq!(watch.owned("b"), ["one"]);
    }
}
