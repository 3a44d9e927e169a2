//! When objects of one kind in one namespace came and went, as a watch shows it: nobody has to ask again and again, which
//! would be load of our own.

use std::collections::HashMap;
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
                let now = Instant::now();
                match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => {
                        lock(&noted).came.entry(name(&object)).or_insert(now);
                    }
                    Ok(Event::Delete(object)) => {
                        lock(&noted).went.entry(name(&object)).or_insert(now);
                    }
                    Ok(Event::Init | Event::InitDone) | Err(_) => continue,
                }
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
