//! One watch per kind: it fills the cache, and what it shows wakes the controllers that care.

mod filled;
mod listed;
mod syncs;

pub use filled::*;
pub use syncs::dsv_tenant_changed;

use super::abandon;
use super::cached_lease::{Slimming, label};
use super::context::{Context, Stores};
use super::credential_cache::{self, SeenCredential};
use super::definitions::definition;
use super::lease_index::LeaseIndex;
use crate::api::conditions::{self, READY};
use crate::api::names::{CONFIRM_REVOCATION, DYNAMIC_SECRET_LABEL, LEASE_LABEL, TYPE_LABEL, credential};
use crate::api::{CredentialLease, DsvTenant, DynamicSecret, Engine, EnginePool, SecretSync};
use crate::channel::hub::HubEvent;
use crate::cluster::watched::Namespaces;
use crate::telemetry::metrics::{Metrics, ObjectKind};
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use listed::{PAGE, everywhere, slimmed, watched};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

/// A cache and the stream that fills it; each object that appears, changes or goes comes out of the stream. `filled` is told
/// when the cache is complete for the first time: a [`Store`] itself wakes only one of those who wait for that, and its
/// controller is one already. `seen` is told of what becomes of the watch.
fn watch<K, S>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + 'static,
    filled: (&Filled, &'static str),
    mut seen: S,
) -> (Store<K>, BoxStream<'static, Result<K, watcher::Error>>)
where
    S: FnMut(&Result<watcher::Event<K>, watcher::Error>) + Send + 'static,
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (reader, writer) = reflector::store();
    let (filled, name) = (filled.0.0.clone(), filled.1);
    let stream = events
        .reflect(writer)
        .inspect(move |event| seen(event))
        .inspect_ok(move |event| {
            if matches!(event, watcher::Event::InitDone) {
                filled.send_if_modified(|caches| caches.insert(name));
            }
        })
        .touched_objects()
        .boxed();
    (reader, stream)
}

/// As [`watch`], with a cache that keeps less than the stream has.
fn watch_credentials(
    events: impl Stream<Item = Result<watcher::Event<PartialObjectMeta<Secret>>, watcher::Error>> + Send + 'static,
    filled: &Filled,
) -> (
    Store<SeenCredential>,
    BoxStream<'static, Result<PartialObjectMeta<Secret>, watcher::Error>>,
) {
    let (reader, mut writer) = reflector::store();
    let filled = filled.0.clone();
    let stream = events
        .inspect_ok(move |event| {
            credential_cache::reflect(&mut writer, event);
            if matches!(event, watcher::Event::InitDone) {
                filled.send_if_modified(|caches| caches.insert(CREDENTIALS));
            }
        })
        .touched_objects()
        .boxed();
    (reader, stream)
}

/// Streams of all kinds, not yet polled.
pub struct Watches {
    /// Leases.
    pub leases: BoxStream<'static, Result<CredentialLease, watcher::Error>>,
    /// Dynamic secrets.
    pub dynamic_secrets: BoxStream<'static, Result<DynamicSecret, watcher::Error>>,
    /// Pools.
    pub pools: BoxStream<'static, Result<EnginePool, watcher::Error>>,
    /// Engines.
    pub engines: BoxStream<'static, Result<Engine, watcher::Error>>,
    /// DSV tenants.
    pub dsv_tenants: BoxStream<'static, Result<DsvTenant, watcher::Error>>,
    /// Syncs.
    pub secret_syncs: BoxStream<'static, Result<SecretSync, watcher::Error>>,
    /// Credential Secrets.
    pub credentials: BoxStream<'static, Result<PartialObjectMeta<Secret>, watcher::Error>>,
    /// Namespaces, whose labels decide about access.
    pub namespaces: BoxStream<'static, Result<PartialObjectMeta<Namespace>, watcher::Error>>,
    /// Base secrets.
    pub bases: BoxStream<'static, Result<PartialObjectMeta<Secret>, watcher::Error>>,
}

/// Prepares all watches. Our own kinds are watched everywhere, so that no account is forgotten whatever namespaces are
/// served; Secrets where they are, and by their metadata only: no cache holds a password.
pub fn prepare(client: &Client, metrics: &Metrics, served: &Namespaces) -> (Stores, Watches) {
    let filled = Filled::new();
    let lease_index = Arc::new(LeaseIndex::default());
    let mut slimming = Slimming::default();
    let (index, mut definition_of_leases) = (lease_index.clone(), definition(metrics, ObjectKind::CredentialLease));
    let all_leases = watched::<CredentialLease>(client);
    let all_leases = async move {
        failpoint!("leases.list", "leases");
        all_leases
    };
    let (leases, lease_stream) = watch(
        all_leases.flatten_stream().modify(move |lease| slimming.slim(lease)),
        (&filled, LEASES),
        move |event: &Result<_, _>| {
            event.as_ref().into_iter().for_each(|event| index.note(event));
            definition_of_leases(event);
        },
    );
    let (dynamic_secrets, dynamic_stream) = watch(
        everywhere::<DynamicSecret>(client),
        (&filled, DYNAMIC_SECRETS),
        definition(metrics, ObjectKind::DynamicSecret),
    );
    let (pools, pool_stream) = watch(
        everywhere::<EnginePool>(client),
        (&filled, POOLS),
        definition(metrics, ObjectKind::EnginePool),
    );
    let (engines, engine_stream) = watch(
        everywhere::<Engine>(client),
        (&filled, ENGINES),
        definition(metrics, ObjectKind::Engine),
    );
    let ((dsv_tenants, tenant_stream), (secret_syncs, sync_stream)) = syncs::syncs(client, metrics, &filled);
    let secrets = |label: &str| served.secrets(client, &watcher::Config::default().page_size(PAGE).labels(label));
    let (credentials, credential_stream) = watch_credentials(secrets(LEASE_LABEL), &filled);
    let (bases, base_stream) = watch(secrets(TYPE_LABEL).modify(slimmed), (&filled, BASES), |_| ());
    let stores = Stores {
        leases,
        lease_index,
        dynamic_secrets,
        pools,
        engines,
        dsv_tenants,
        secret_syncs,
        credentials,
        bases,
        filled,
    };
    let watches = Watches {
        namespaces: namespaces(client),
        leases: lease_stream,
        dynamic_secrets: dynamic_stream,
        pools: pool_stream,
        engines: engine_stream,
        dsv_tenants: tenant_stream,
        secret_syncs: sync_stream,
        credentials: credential_stream,
        bases: base_stream,
    };
    (stores, watches)
}

/// No cache: namespaces are read live where it counts.
fn namespaces(client: &Client) -> BoxStream<'static, Result<PartialObjectMeta<Namespace>, watcher::Error>> {
    let all = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
    watcher(all, watcher::Config::default())
        .default_backoff()
        .touched_objects()
        .boxed()
}

/// What else cares when a lease changes: its dynamic secret, and when it is gone whoever waits for its place.
pub fn lease_changed(ctx: &Context, lease: &CredentialLease) {
    ctx.guards.look();
    ctx.wake_owner(lease);
    ctx.places.note_lease(ctx, lease);
    let shown = ctx.stores.leases.get(&ObjectRef::from_obj(lease));
    if shown
        .as_deref()
        .and_then(|lease| label(lease, DYNAMIC_SECRET_LABEL))
        .is_some()
    {
        ctx.admission.shown(lease);
    }
    // While it is being filled the cache shows nothing at all.
    if ctx.stores.filled.has(LEASES) && shown.is_none() {
        if let (Some(uid), Some(claim)) = (lease.uid(), lease.claim()) {
            ctx.audit.lease_gone(&uid, &claim.server, claim.expires_at.0);
        }
        ctx.admission.gone(lease);
        ctx.places.freed(ctx, &lease.namespace().unwrap_or_default());
    }
}

/// What else cares when a dynamic secret changes: leases that somebody asked for.
pub fn dynamic_secret_changed(ctx: &Context, changed: &DynamicSecret) {
    syncs::wake_syncs(ctx, changed.metadata.namespace.as_deref(), &changed.name_any());
    ctx.places.note_dynamic_secret(ctx, changed);
    let (namespace, name) = (changed.namespace().unwrap_or_default(), changed.name_any());
    for lease in ctx.stores.lease_index.asking(&ctx.stores.leases, &namespace, &name) {
        ctx.wake_lease(&namespace, &lease.name_any());
    }
}

/// What else cares when a pool changes: its dynamic secrets and engines.
pub fn pool_changed(ctx: &Context, pool: &EnginePool) {
    let (namespace, name) = (pool.namespace().unwrap_or_default(), pool.name_any());
    let uses = |d: &DynamicSecret| {
        d.spec.pool.name == name
            && d.spec.pool.namespace.clone().or_else(|| d.namespace()).as_deref() == Some(&namespace)
    };
    abandon::wake(ctx, pool);
    let uid = pool.uid().unwrap_or_default();
    let gone = ctx.stores.pools.get(&ObjectRef::from_obj(pool)).is_none();
    let confirms = pool.annotations().get(CONFIRM_REVOCATION).filter(|_| !gone);
    ctx.audit.confirmation_seen(&uid, confirms);
    let now = relied_on(pool);
    // What a pool's status counts changes all the time; if that ended backoffs, nothing that is refused would ever rest.
    let same = !gone && ctx.relied_on.replace(&uid, now.clone()) == Some(now);
    if gone {
        ctx.relied_on.forget(&uid);
        ctx.checked.forget(&uid);
        // Its servers may be nobody's now.
        ctx.audit.want_pool(&uid);
    }
    if !same {
        if !gone {
            // Engines of a pool that was made anew serve this one now.
            ctx.hub.recheck();
        }
        nudge_all(ctx, ctx.stores.dynamic_secrets.state_filter(uses));
    }
    for engine in ctx
        .stores
        .engines
        .state_filter(|e| e.namespace().as_deref() == Some(&namespace) && e.spec.pool == name)
    {
        let _ = ctx.wakes.engines.send(ObjectRef::from_obj(engine.as_ref()));
    }
}

/// What of a pool decides whether its dynamic secrets are served: its spec, whether it goes, and which servers are ready.
fn relied_on(pool: &EnginePool) -> String {
    let servers = pool.status.iter().flat_map(|status| &status.servers);
    let ready: Vec<&str> = servers
        .filter(|server| server.ready)
        .map(|server| server.linked_secret.as_str())
        .collect();
    let going = pool.metadata.deletion_timestamp.is_some();
    format!("{:?} {going} {}", pool.metadata.generation, ready.join(" "))
}

/// What else cares when an engine changes: the hub and its pool.
pub fn engine_changed(ctx: &Context, engine: &Engine) {
    let namespace = engine.namespace().unwrap_or_default();
    ctx.hub.recheck_engine(&namespace, &engine.name_any());
    wake_pool(ctx, &namespace, &engine.spec.pool);
}

fn wake_pool(ctx: &Context, namespace: &str, name: &str) {
    let _ = ctx.wakes.pools.send(ObjectRef::new(name).within(namespace));
}

fn nudge_all(ctx: &Context, all: Vec<Arc<DynamicSecret>>) {
    for one in all {
        let ready = one
            .status
            .as_ref()
            .and_then(|s| conditions::find(&s.conditions, READY))
            .is_some_and(|c| c.status == "True");
        if !ready {
            ctx.nudges.nudge(&one.uid().unwrap_or_default());
        }
        ctx.wake_dynamic_secret(&one.namespace().unwrap_or_default(), &one.name_any());
    }
}

/// Follows credential Secrets: their lease and dynamic secret look again.
pub async fn follow_credentials(
    ctx: Arc<Context>,
    stream: BoxStream<'static, Result<PartialObjectMeta<Secret>, watcher::Error>>,
) {
    follow("credential secrets", stream, |secret: &PartialObjectMeta<Secret>| {
        let namespace = secret.namespace().unwrap_or_default();
        let Some(lease) = secret.annotations().get(credential::LEASE) else {
            return;
        };
        ctx.wake_lease(&namespace, lease);
        syncs::sync_credential_changed(&ctx, secret);
        if let Some(lease) = ctx.stores.leases.get(&ObjectRef::new(lease).within(&namespace)) {
            ctx.wake_owner(&lease);
        }
    })
    .await;
}

/// Follows base secrets: pools beside them and dynamic secrets that link them look again.
pub async fn follow_bases(
    ctx: Arc<Context>,
    stream: BoxStream<'static, Result<PartialObjectMeta<Secret>, watcher::Error>>,
) {
    follow("base secrets", stream, |base: &PartialObjectMeta<Secret>| {
        let (namespace, name) = (base.namespace().unwrap_or_default(), base.name_any());
        for pool in ctx
            .stores
            .pools
            .state_filter(|p| p.namespace().as_deref() == Some(&namespace))
        {
            ctx.nudges.nudge(&pool.uid().unwrap_or_default());
            wake_pool(&ctx, &namespace, &pool.name_any());
        }
        let links = |d: &DynamicSecret| {
            d.spec.link_config.linked_secret == name
                && d.spec.pool.namespace.clone().or_else(|| d.namespace()).as_deref() == Some(&namespace)
        };
        nudge_all(&ctx, ctx.stores.dynamic_secrets.state_filter(links));
    })
    .await;
}

/// Follows namespaces: other labels may be admitted by other access entries.
pub async fn follow_namespaces(
    ctx: Arc<Context>,
    stream: BoxStream<'static, Result<PartialObjectMeta<Namespace>, watcher::Error>>,
) {
    follow("namespaces", stream, |namespace: &PartialObjectMeta<Namespace>| {
        let uid = namespace.uid().unwrap_or_default();
        if namespace.metadata.deletion_timestamp.is_some() {
            ctx.relied_on.forget(&uid);
            // Those that were deleted before let their credentials live on; a namespace must not wait for that.
            let name = namespace.name_any();
            for one in ctx
                .stores
                .dynamic_secrets
                .state_filter(|d| d.namespace().as_ref() == Some(&name))
            {
                ctx.wake_dynamic_secret(&name, &one.name_any());
            }
            return;
        }
        let labels = format!("{:?}", namespace.labels());
        let before = ctx.relied_on.replace(&uid, labels.clone());
        // The first sight says nothing: a restart hurries nobody.
        if before.is_some_and(|before| before != labels) {
            let name = Some(namespace.name_any());
            nudge_all(&ctx, ctx.stores.dynamic_secrets.state_filter(|d| d.namespace() == name));
        }
    })
    .await;
}

async fn follow<K>(
    kind: &str,
    stream: impl Stream<Item = Result<K, watcher::Error>> + Send,
    mut touched: impl FnMut(&K),
) {
    let mut stream = std::pin::pin!(stream);
    loop {
        match stream.try_next().await {
            Ok(Some(object)) => touched(&object),
            Ok(None) => return,
            // The watch backs off and starts anew by itself.
            Err(error) => tracing::warn!(
                kind,
                error = &error as &dyn std::error::Error,
                "the watch was interrupted"
            ),
        }
    }
}

/// Follows the hub: what waited for an engine goes on when one connects.
pub async fn follow_hub(ctx: Arc<Context>) {
    let mut events = ctx.hub.events();
    loop {
        match events.recv().await {
            Ok(event) => hub_event(&ctx, &event),
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                ctx.audit.want_all();
                ctx.guards.look();
                for pool in ctx.stores.pools.state() {
                    engine_connected(&ctx, &pool.uid().unwrap_or_default());
                }
            }
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn hub_event(ctx: &Context, event: &HubEvent) {
    let (HubEvent::Connected { engine, pool_uid }
    | HubEvent::Disconnected { engine, pool_uid }
    | HubEvent::DuplicateSession { engine, pool_uid }) = event;
    let _ = ctx
        .wakes
        .engines
        .send(ObjectRef::new(&engine.name).within(&engine.namespace));
    for pool in ctx
        .stores
        .pools
        .state_filter(|pool| pool.uid().as_ref() == Some(pool_uid))
    {
        ctx.nudges.nudge(pool_uid);
        let _ = ctx.wakes.pools.send(ObjectRef::from_obj(pool.as_ref()));
    }
    if matches!(event, HubEvent::Connected { .. }) {
        ctx.audit.want_pool(pool_uid);
        ctx.guards.look();
        engine_connected(ctx, pool_uid);
    }
}

/// Everything of the pool that waits: leases that are not issued or not taken back, dynamic secrets that are not ready.
pub fn engine_connected(ctx: &Context, pool_uid: &str) {
    let now = ctx.now();
    let waits = |lease: &CredentialLease| {
        let settled = lease.status.as_ref().is_some_and(|s| s.issued_at.is_some());
        let over = lease.metadata.deletion_timestamp.is_some() || lease.claim().is_some_and(|c| now >= c.expires_at.0);
        lease.claim().is_none_or(|claim| ctx.pool_uid(&claim.pool) == pool_uid) && (over || !settled)
    };
    for lease in ctx.stores.leases.state_filter(waits) {
        ctx.attempts.reset(&lease.uid().unwrap_or_default());
        ctx.wake_lease(&lease.namespace().unwrap_or_default(), &lease.name_any());
    }
    let pools = ctx
        .stores
        .pools
        .state_filter(|pool| pool.uid().as_deref() == Some(pool_uid));
    for pool in pools {
        let (namespace, name) = (pool.namespace(), pool.name_any());
        let uses = |d: &DynamicSecret| {
            d.spec.pool.name == name && d.spec.pool.namespace.clone().or_else(|| d.namespace()) == namespace
        };
        nudge_all(ctx, ctx.stores.dynamic_secrets.state_filter(uses));
    }
}
