//! When objects of one kind in one namespace came and went, as a watch shows it: nobody has to ask again and again, which
//! would be load of our own.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Beyond this something is wrong, and not slow.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Default)]
struct Seen {
    came: HashMap<String, Instant>,
    went: HashMap<String, Instant>,
    /// What a list that is being read has shown so far.
    listed: HashSet<String>,
}

impl Seen {
    fn note<K: Resource<DynamicType = ()>>(
        &mut self,
        event: Event<PartialObjectMeta<K>>,
        name: fn(&PartialObjectMeta<K>) -> String,
        now: Instant,
    ) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                let name = name(&object);
                self.listed.insert(name.clone());
                self.came.entry(name).or_insert(now);
            }
            // A watch that had to begin anew is told nothing of what went meanwhile: the list does not show it, that is all.
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let missing: Vec<String> = self
                    .came
                    .keys()
                    .filter(|name| !listed.contains(*name))
                    .cloned()
                    .collect();
                for name in missing {
                    self.went.entry(name).or_insert(now);
                }
            }
            Event::Apply(object) => {
                self.came.entry(name(&object)).or_insert(now);
            }
            Event::Delete(object) => {
                self.went.entry(name(&object)).or_insert(now);
            }
        }
    }
}

/// A watch that writes down when it saw what.
pub struct Sightings {
    seen: Arc<Mutex<Seen>>,
    news: watch::Receiver<()>,
    watching: JoinHandle<()>,
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sightings {
    /// Of all objects of a kind in a namespace by their names, from now on.
    pub fn of<K>(client: Client, namespace: &str) -> Self
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        Self::called::<K>(client, namespace, PartialObjectMeta::name_any)
    }

    /// The same by what they are called here, as by a name and a revision.
    pub fn called<K>(client: Client, namespace: &str, name: fn(&PartialObjectMeta<K>) -> String) -> Self
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (tell, news) = watch::channel(());
        let noted = Arc::clone(&seen);
        let api = Api::<PartialObjectMeta<K>>::namespaced(client, namespace);
        let watching = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(api, Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                let Ok(event) = event else { continue };
                lock(&noted).note(event, name, Instant::now());
                tell.send_replace(());
            }
        });
        Self { seen, news, watching }
    }

    /// When an object of this name came.
    pub async fn came(&self, name: &str) -> Result<Instant> {
        self.until(&format!("{name} came"), |seen| seen.came.get(name).copied())
            .await
    }

    /// When an object of this name went.
    pub async fn left(&self, name: &str) -> Result<Instant> {
        self.until(&format!("{name} went"), |seen| seen.went.get(name).copied())
            .await
    }

    /// Waits until so many have gone since the beginning.
    pub async fn gone(&self, count: usize) -> Result<()> {
        self.until(&format!("{count} are gone"), |seen| {
            (seen.went.len() >= count).then_some(())
        })
        .await
    }

    /// How many have gone since the beginning.
    pub fn went(&self) -> usize {
        lock(&self.seen).went.len()
    }

    /// How many of them went between two moments.
    pub fn went_between(&self, from: Instant, to: Instant) -> usize {
        let within = |at: &&Instant| **at >= from && **at < to;
        lock(&self.seen).went.values().filter(within).count()
    }

    async fn until<T>(&self, what: &str, mut look: impl FnMut(&Seen) -> Option<T>) -> Result<T> {
        let mut news = self.news.clone();
        let waiting = async {
            loop {
                news.mark_unchanged();
                if let Some(found) = look(&lock(&self.seen)) {
                    return Ok(found);
                }
                news.changed().await.context("the watch has ended")?;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.with_context(|| format!("waited {PATIENCE:?} for this: {what}"))?
    }
}

impl Drop for Sightings {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::json;

    fn secret(name: &str) -> PartialObjectMeta<Secret> {
        serde_json::from_value(json!({"metadata": {"name": name}})).expect("metadata of a Secret")
    }

    #[test]
    fn what_went_while_a_watch_began_anew_is_not_waited_for() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        let mut note = |event| seen.note(event, PartialObjectMeta::name_any, now);
        note(Event::Init);
        note(Event::InitApply(secret("a")));
        note(Event::InitDone);
        note(Event::Apply(secret("b")));
        note(Event::Apply(secret("c")));
        note(Event::Delete(secret("c")));
        note(Event::Init);
        note(Event::InitApply(secret("b")));
        note(Event::InitDone);
        let mut went: Vec<&String> = seen.went.keys().collect();
        went.sort();
        assert_eq!(went, ["a", "c"]);
    }
}
