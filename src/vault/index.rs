//! What is known without asking: metadata of objects, fed by a watch, in scopes that never mix.

use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as start};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;

/// How long a writer waits to see his own write here. The watch is milliseconds behind.
const OWN_WRITE: Duration = Duration::from_secs(1);

/// One thing that is known.
#[derive(Debug)]
pub struct Entry<T> {
    /// Namespace of its object; empty where it has none.
    pub namespace: String,
    /// Name of its object.
    pub object: String,
    /// Version of its object.
    pub version: String,
    /// What it says.
    pub value: T,
}

type Scope<T> = BTreeMap<String, Arc<Entry<T>>>;

/// Entries by scope and object. Cheap to clone; clones are the same.
#[derive(Debug)]
pub struct Index<T> {
    inner: Arc<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    scopes: RwLock<HashMap<String, Scope<T>>>,
    /// Counts the changes; 0 until the first list is complete.
    changes: watch::Sender<u64>,
}

impl<T> Clone for Index<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                scopes: RwLock::new(HashMap::new()),
                changes: watch::Sender::new(0),
            }),
        }
    }
}

impl<T: Send + Sync + 'static> Index<T> {
    /// All entries of a scope.
    pub fn all(&self, scope: &str) -> Vec<Arc<Entry<T>>> {
        let scopes = self.inner.scopes.read().unwrap_or_else(PoisonError::into_inner);
        scopes
            .get(scope)
            .map(|all| all.values().cloned().collect())
            .unwrap_or_default()
    }

    /// All entries of all scopes.
    pub fn everything(&self) -> Vec<Arc<Entry<T>>> {
        let scopes = self.inner.scopes.read().unwrap_or_else(PoisonError::into_inner);
        scopes.values().flat_map(|scope| scope.values().cloned()).collect()
    }

    /// Ends when the first list is complete.
    pub async fn until_filled(&self) {
        // The sender lives as long as this does.
        let _ = self.inner.changes.subscribe().wait_for(|count| *count > 0).await;
    }

    /// One entry, by the name of its object.
    pub fn get(&self, scope: &str, object: &str) -> Option<Arc<Entry<T>>> {
        let scopes = self.inner.scopes.read().unwrap_or_else(PoisonError::into_inner);
        scopes.get(scope)?.get(object).cloned()
    }

    /// How many changes there were.
    pub fn changes(&self) -> u64 {
        *self.inner.changes.borrow()
    }

    /// Whether the first list is complete.
    pub fn is_filled(&self) -> bool {
        self.changes() > 0
    }

    /// Ends at the next change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Waits until a write shows: until the entry has another version than `before`, where none stands for no entry.
    pub async fn until_seen(&self, scope: &str, object: &str, before: Option<&str>) {
        let mut changes = self.inner.changes.subscribe();
        let seen = async {
            loop {
                changes.borrow_and_update();
                let now = self.get(scope, object);
                if now.as_ref().map(|entry| entry.version.as_str()) != before {
                    return;
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        // Too late is no failure: lists may be a second behind, and whoever reads the thing itself reads it live.
        let _ = tokio::time::timeout(OWN_WRITE, seen).await;
    }

    /// Follows the objects for ever. `read` gives scope and value; none for what does not belong here.
    pub async fn follow<K>(self, api: Api<K>, config: watcher::Config, read: impl Fn(&K) -> Option<(String, T)> + Send)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        self.keep_up(start(api, config).default_backoff(), read).await;
    }

    /// The same with a watch that runs already.
    pub async fn keep_up<K>(
        self,
        events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
        read: impl Fn(&K) -> Option<(String, T)> + Send,
    ) where
        K: Resource<DynamicType = ()> + Send,
    {
        let mut events = std::pin::pin!(events);
        let mut fresh: HashMap<String, Scope<T>> = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => fresh = HashMap::new(),
                Ok(Event::InitApply(object)) => put(&mut fresh, &object, &read),
                Ok(Event::InitDone) => self.change(|scopes| *scopes = std::mem::take(&mut fresh)),
                Ok(Event::Apply(object)) => self.change(|scopes| {
                    take(scopes, &object);
                    put(scopes, &object, &read);
                }),
                Ok(Event::Delete(object)) => self.change(|scopes| take(scopes, &object)),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    kind = %K::kind(&()),
                    "a watch for the API was interrupted; it begins anew by itself"
                ),
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<String, Scope<T>>)) {
        change(&mut self.inner.scopes.write().unwrap_or_else(PoisonError::into_inner));
        self.inner.changes.send_modify(|count| *count += 1);
    }
}

/// An object may have changed its scope, or left all of them, so it is looked for everywhere.
fn take<K: Resource<DynamicType = ()>, T>(scopes: &mut HashMap<String, Scope<T>>, object: &K) {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    scopes.retain(|_, scope| {
        if scope.get(&name).is_some_and(|entry| entry.namespace == namespace) {
            scope.remove(&name);
        }
        !scope.is_empty()
    });
}

fn put<K, T>(scopes: &mut HashMap<String, Scope<T>>, object: &K, read: &impl Fn(&K) -> Option<(String, T)>)
where
    K: Resource<DynamicType = ()>,
{
    if let Some((scope, value)) = read(object) {
        let entry = Entry {
            namespace: object.namespace().unwrap_or_default(),
            object: object.name_any(),
            version: object.resource_version().unwrap_or_default(),
            value,
        };
        scopes
            .entry(scope)
            .or_default()
            .insert(entry.object.clone(), Arc::new(entry));
    }
}
