//! Secrets in the place of a target that are not ours: nothing else watches them, and when one goes, whoever waits for the
//! place looks again at once instead of at the end of its backoff.
//!
//! Each is watched by itself, for as long as somebody is refused because of it. All Secrets of a cluster would be too much.

use super::context::Context;
use crate::api::{CredentialLease, DynamicSecret};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

/// Secrets that are watched at once. More would let a tenant burden the API server; theirs are looked at by backoff.
const MOST: usize = 256;
/// How long one is watched after the refusal. The next attempt follows within seven minutes; if it is refused too, it asks
/// anew, and if there is none, nobody waits any more.
const AFTER_REFUSAL: Duration = Duration::from_mins(10);

/// Somebody whose target is occupied.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Waiter {
    /// Namespace of both.
    pub namespace: String,
    /// The Secret.
    pub secret: String,
    /// Who.
    pub who: Who,
}

/// What waits for a Secret's place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// A dynamic secret.
    DynamicSecret {
        /// Name.
        name: String,
        /// UID.
        uid: String,
    },
    /// A lease that somebody asked for.
    Lease {
        /// Name.
        name: String,
        /// UID.
        uid: String,
    },
}

impl Waiter {
    /// A dynamic secret whose next credential has no place.
    pub fn of_dynamic_secret(waits: &DynamicSecret, secret: String) -> Self {
        let (name, uid) = (waits.name_any(), waits.uid().unwrap_or_default());
        Self {
            namespace: waits.namespace().unwrap_or_default(),
            secret,
            who: Who::DynamicSecret { name, uid },
        }
    }

    /// A lease that is refused because of its target.
    pub fn of_lease(waits: &CredentialLease, secret: String) -> Self {
        let (name, uid) = (waits.name_any(), waits.uid().unwrap_or_default());
        Self {
            namespace: waits.namespace().unwrap_or_default(),
            secret,
            who: Who::Lease { name, uid },
        }
    }
}

/// Watches what is asked for, for one leadership.
pub async fn follow(ctx: Arc<Context>, mut asked: mpsc::UnboundedReceiver<Waiter>) {
    let mut watches: JoinSet<Option<Waiter>> = JoinSet::new();
    let mut running: HashMap<Waiter, AbortHandle> = HashMap::new();
    loop {
        tokio::select! {
            waiter = asked.recv() => {
                let Some(waiter) = waiter else { return };
                running.retain(|_, watch| !watch.is_finished());
                if let Some(old) = running.remove(&waiter) {
                    old.abort();
                } else if running.len() >= MOST {
                    tracing::warn!(namespace = waiter.namespace, "too many occupied targets; this one is looked at by backoff");
                    continue;
                }
                let watch = watches.spawn(until_gone(ctx.client.clone(), waiter.clone()));
                running.insert(waiter, watch);
            }
            Some(ended) = watches.join_next() => {
                // One that was aborted was replaced by another one.
                if let Ok(Some(waiter)) = ended {
                    wake(&ctx, &waiter);
                }
            }
        }
    }
}

fn wake(ctx: &Context, waiter: &Waiter) {
    match &waiter.who {
        Who::DynamicSecret { name, uid } => {
            ctx.nudges.nudge(uid);
            ctx.wake_dynamic_secret(&waiter.namespace, name);
        }
        Who::Lease { name, uid } => {
            ctx.attempts.reset(uid);
            ctx.wake_lease(&waiter.namespace, name);
        }
    }
}

/// Ends with the waiter when the Secret is gone, and without after a while.
async fn until_gone(client: Client, waiter: Waiter) -> Option<Waiter> {
    let gone = tokio::time::timeout(AFTER_REFUSAL, gone(client, &waiter)).await;
    gone.is_ok().then_some(waiter)
}

async fn gone(client: Client, waiter: &Waiter) {
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(client, &waiter.namespace);
    let only = watcher::Config::default().fields(&format!("metadata.name={}", waiter.secret));
    let mut events = pin!(watcher(api, only).default_backoff());
    let mut there = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => there = false,
            Ok(watcher::Event::InitApply(_) | watcher::Event::Apply(_)) => there = true,
            Ok(watcher::Event::InitDone) if there => {}
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => return,
            // The watch backs off and starts anew by itself.
            Err(error) => {
                tracing::debug!(%error, secret = waiter.secret, "the watch of an occupied target was interrupted");
            }
        }
    }
}
