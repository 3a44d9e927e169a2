//! The controllers of one leadership: each with its watch, its wake-up calls, its sign of life and its counts.

use super::context::{Context, Wakes};
use super::hold::Error;
use super::occupied::{self, Waiter};
use super::watches::{self, Watches};
use super::{audit, bound, crowd, dynamic_secret, engine, guards, leap, lease, pool, silence, sweep, sync};
use crate::api::lease::Phase;
use crate::api::{CredentialLease, DsvTenant, DynamicSecret, Engine, EnginePool, SecretSync};
use crate::telemetry::liveness::{Beat, Beats};
use crate::telemetry::metrics::{Controller as Controlled, ReconcileOutcome};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::PartialObjectMeta;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Passes of one controller at once. A pass waits up to 20 s for a server that does not answer, and meanwhile the objects of
/// all other servers must find a place.
const CONCURRENCY: u16 = 2 * crowd::INSIDE;
/// How long one pass may take: client retries could otherwise hold an object for minutes.
const PASS: Duration = Duration::from_mins(1);
/// A pass that runs longer than this is stuck: beyond [`PASS`] something blocks the thread itself.
const STALLED: Duration = Duration::from_mins(2);
/// Between two counts of what is on the books.
const COUNT: Duration = Duration::from_secs(5);
/// Pause after a surprise.
pub const AFTER_ERROR: Duration = Duration::from_secs(2);

/// The controllers' signs of life. They outlive a leadership: `/livez` asks them all the time.
pub struct Controllers {
    beats: Vec<(Controlled, Beat)>,
}

impl Controllers {
    /// Nothing runs yet.
    pub fn new(beats: &Beats) -> Self {
        let controllers = [
            Controlled::CredentialLease,
            Controlled::DynamicSecret,
            Controlled::EnginePool,
            Controlled::Engine,
            Controlled::DsvTenant,
            Controlled::SecretSync,
        ];
        let beats = controllers.map(|which| (which, beats.register(which.as_str(), STALLED)));
        Self { beats: beats.into() }
    }

    /// Starts everything that works on objects, until `stop`.
    pub fn start(
        &self,
        ctx: &Arc<Context>,
        watches: Watches,
        woken: Woken,
        stop: &CancellationToken,
    ) -> JoinSet<&'static str> {
        let mut parts = JoinSet::new();
        let stores = ctx.stores.clone();
        let runs = |which| self.runs(which, ctx, stop);
        let c = ctx.clone();
        let leases = watches
            .leases
            .inspect_ok(move |lease| watches::lease_changed(&c, lease))
            .boxed();
        let part = runs(Controlled::CredentialLease);
        parts.spawn(control(part, leases, stores.leases, woken.leases, lease::reconcile));
        let c = ctx.clone();
        let secrets = watches
            .dynamic_secrets
            .inspect_ok(move |one| watches::dynamic_secret_changed(&c, one))
            .boxed();
        let part = runs(Controlled::DynamicSecret);
        parts.spawn(control(
            part,
            secrets,
            stores.dynamic_secrets,
            woken.dynamic_secrets,
            dynamic_secret::reconcile,
        ));
        let c = ctx.clone();
        let pools = watches
            .pools
            .inspect_ok(move |pool| watches::pool_changed(&c, pool))
            .boxed();
        parts.spawn(control(
            runs(Controlled::EnginePool),
            pools,
            stores.pools,
            woken.pools,
            pool::reconcile,
        ));
        let c = ctx.clone();
        let engines = watches
            .engines
            .inspect_ok(move |engine| watches::engine_changed(&c, engine))
            .boxed();
        parts.spawn(control(
            runs(Controlled::Engine),
            engines,
            stores.engines,
            woken.engines,
            engine::reconcile,
        ));
        self.start_syncs(
            &mut parts,
            ctx,
            (watches.dsv_tenants, watches.secret_syncs),
            (woken.dsv_tenants, woken.secret_syncs),
            stop,
        );
        let rest = (watches.credentials, watches.bases, watches.namespaces);
        follow_the_rest(&mut parts, ctx, rest, woken.occupied, stop);
        parts
    }

    fn start_syncs(
        &self,
        parts: &mut JoinSet<&'static str>,
        ctx: &Arc<Context>,
        (tenants, syncs): (Stream<DsvTenant>, Stream<SecretSync>),
        (woken_tenants, woken_syncs): (Woke<DsvTenant>, Woke<SecretSync>),
        stop: &CancellationToken,
    ) {
        let stores = ctx.stores.clone();
        let c = ctx.clone();
        let tenants = tenants
            .inspect_ok(move |tenant| watches::dsv_tenant_changed(&c, tenant))
            .boxed();
        let part = self.runs(Controlled::DsvTenant, ctx, stop);
        parts.spawn(control(
            part,
            tenants,
            stores.dsv_tenants,
            woken_tenants,
            sync::tenants::reconcile,
        ));
        let part = self.runs(Controlled::SecretSync, ctx, stop);
        parts.spawn(control(part, syncs, stores.secret_syncs, woken_syncs, sync::reconcile));
    }

    fn runs(&self, which: Controlled, ctx: &Arc<Context>, stop: &CancellationToken) -> Part {
        let beat = self
            .beats
            .iter()
            .find(|(of, _)| *of == which)
            .map(|(_, beat)| beat.clone());
        Part {
            which,
            beat,
            ctx: ctx.clone(),
            stop: stop.clone(),
        }
    }
}

type Stream<K> = BoxStream<'static, Result<K, watcher::Error>>;
type Woke<K> = mpsc::UnboundedReceiver<ObjectRef<K>>;
type Secrets = BoxStream<'static, Result<PartialObjectMeta<Secret>, watcher::Error>>;
type Namespaces = BoxStream<'static, Result<PartialObjectMeta<Namespace>, watcher::Error>>;

/// What has no objects of its own to reconcile: it wakes those that have.
fn follow_the_rest(
    parts: &mut JoinSet<&'static str>,
    ctx: &Arc<Context>,
    (credentials, bases, namespaces): (Secrets, Secrets, Namespaces),
    occupied: mpsc::UnboundedReceiver<Waiter>,
    stop: &CancellationToken,
) {
    let c = || ctx.clone();
    let mut follow = |name, part: BoxFuture<'static, ()>| {
        parts.spawn(until(stop.clone(), name, part));
    };
    follow(
        "credential secrets",
        watches::follow_credentials(c(), credentials).boxed(),
    );
    follow("base secrets", watches::follow_bases(c(), bases).boxed());
    follow("namespaces", watches::follow_namespaces(c(), namespaces).boxed());
    follow("occupied targets", occupied::follow(c(), occupied).boxed());
    follow("hub events", watches::follow_hub(c()).boxed());
    follow("sweep", sweep_for_ever(c()).boxed());
    follow("clock", leap::watch(c()).boxed());
    follow("audit", audit::run(c()).boxed());
    follow("bound leases", bound::follow(c()).boxed());
    follow("guards", guards::guard_for_ever(c()).boxed());
    follow("silence", silence::watch(c()).boxed());
    follow("counts", count_for_ever(c()).boxed());
}

/// What wakes the controllers.
pub struct Woken {
    leases: mpsc::UnboundedReceiver<ObjectRef<CredentialLease>>,
    dynamic_secrets: mpsc::UnboundedReceiver<ObjectRef<DynamicSecret>>,
    pools: mpsc::UnboundedReceiver<ObjectRef<EnginePool>>,
    engines: mpsc::UnboundedReceiver<ObjectRef<Engine>>,
    dsv_tenants: mpsc::UnboundedReceiver<ObjectRef<DsvTenant>>,
    secret_syncs: mpsc::UnboundedReceiver<ObjectRef<SecretSync>>,
    occupied: mpsc::UnboundedReceiver<Waiter>,
}

/// Ways to wake controllers, and their other ends.
pub fn wakes() -> (Wakes, Woken) {
    let (leases, woken_leases) = mpsc::unbounded_channel();
    let (dynamic_secrets, woken_dynamic) = mpsc::unbounded_channel();
    let (pools, woken_pools) = mpsc::unbounded_channel();
    let (engines, woken_engines) = mpsc::unbounded_channel();
    let (dsv_tenants, woken_tenants) = mpsc::unbounded_channel();
    let (secret_syncs, woken_syncs) = mpsc::unbounded_channel();
    let (occupied, woken_occupied) = mpsc::unbounded_channel();
    let woken = Woken {
        leases: woken_leases,
        dynamic_secrets: woken_dynamic,
        pools: woken_pools,
        engines: woken_engines,
        dsv_tenants: woken_tenants,
        secret_syncs: woken_syncs,
        occupied: woken_occupied,
    };
    (
        Wakes {
            leases,
            dynamic_secrets,
            pools,
            engines,
            dsv_tenants,
            secret_syncs,
            occupied,
        },
        woken,
    )
}

/// Runs a part until `stop`.
pub async fn until(stop: CancellationToken, name: &'static str, part: impl Future<Output = ()>) -> &'static str {
    tokio::select! {
        () = stop.cancelled() => {}
        () = part => {}
    }
    name
}

async fn sweep_for_ever(ctx: Arc<Context>) {
    // A Secret is judged against the leases. No other cache is waited for: a kind whose definition is gone has none.
    ctx.stores.filled.with(&[watches::LEASES, watches::CREDENTIALS]).await;
    loop {
        let outcome = match sweep::sweep(&ctx).await {
            Ok(_) => ReconcileOutcome::Settled,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the sweep of credential secrets was interrupted"
                );
                ReconcileOutcome::Failed
            }
        };
        ctx.metrics.reconciled(Controlled::Sweep, outcome);
        tokio::time::sleep(sweep::EVERY).await;
    }
}

/// One controller: what it is counted as, and its sign of life.
struct Part {
    which: Controlled,
    beat: Option<Beat>,
    ctx: Arc<Context>,
    stop: CancellationToken,
}

fn judged(result: &Result<Result<Action, Error>, tokio::time::error::Elapsed>) -> ReconcileOutcome {
    match result {
        Ok(Ok(action)) if *action == Action::await_change() => ReconcileOutcome::Settled,
        Ok(Ok(_)) => ReconcileOutcome::Waiting,
        Ok(Err(_)) => ReconcileOutcome::Failed,
        Err(_) => ReconcileOutcome::TimedOut,
    }
}

/// Since when a lease's account should have gone. One that is blocked waits for a person and is counted as such.
fn overdue(lease: &CredentialLease, now: Timestamp) -> Option<Duration> {
    if lease.status.as_ref().and_then(|status| status.phase) == Some(Phase::Blocked) {
        return None;
    }
    let deleted = lease.metadata.deletion_timestamp.as_ref().map(|at| at.0);
    let expired = lease.claim().map(|claim| claim.expires_at.0);
    let ended = [deleted, expired].into_iter().flatten().min()?;
    Duration::try_from(now.duration_since(ended)).ok()
}

async fn count_for_ever(ctx: Arc<Context>) {
    loop {
        let leases = ctx.stores.leases.state();
        ctx.metrics
            .leases(leases.iter().filter_map(|lease| lease.status.as_ref()?.phase));
        let now = ctx.now();
        let oldest = leases.iter().filter_map(|lease| overdue(lease, now)).max();
        ctx.metrics.overdue(oldest.unwrap_or_default());
        let pools = ctx.stores.pools.state();
        let uid = |pool: &EnginePool| pool.uid().unwrap_or_default();
        let connected = pools.iter().map(|pool| ctx.hub.takers(&uid(pool)));
        ctx.metrics.engines_connected(connected.sum());
        ctx.own_writes.forget(Instant::now());
        tokio::time::sleep(COUNT).await;
    }
}

/// Runs one controller until `stop`. A pass that fails is repeated; a pass that hangs is dropped and repeated.
async fn control<K, F>(
    part: Part,
    stream: BoxStream<'static, Result<K, watcher::Error>>,
    store: Store<K>,
    woken: mpsc::UnboundedReceiver<ObjectRef<K>>,
    reconcile: impl Fn(Arc<K>, Arc<Context>) -> F + Send + Sync + Copy + 'static,
) -> &'static str
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Debug + Unpin,
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let (which, name) = (part.which, part.which.as_str());
    let (ctx, stop) = (part.ctx, part.stop);
    let pass = move |object: Arc<K>, ctx: Arc<Context>| {
        let beat = part.beat.clone();
        async move {
            let _busy = beat.as_ref().map(Beat::busy);
            let metrics = ctx.metrics.clone();
            let result = tokio::time::timeout(PASS, reconcile(object, ctx)).await;
            metrics.reconciled(which, judged(&result));
            result.unwrap_or_else(|_| {
                tracing::warn!(controller = name, "a pass took too long and is repeated");
                Ok(Action::requeue(AFTER_ERROR))
            })
        }
    };
    let policy = move |object: Arc<K>, error: &Error, _: Arc<Context>| {
        let object = object.meta().name.clone().unwrap_or_default();
        match error {
            Error::NotLeading(_) => tracing::debug!(controller = name, object, "no longer leading"),
            Error::Cluster(error) if error.is_conflict() => return Action::requeue(Duration::from_millis(100)),
            other => tracing::warn!(
                controller = name,
                object,
                error = other as &dyn std::error::Error,
                "a pass failed and is repeated"
            ),
        }
        Action::requeue(AFTER_ERROR)
    };
    let wakes = receive(woken).map(|mut object: ObjectRef<K>| {
        (object.extra.uid, object.extra.resource_version) = (None, None);
        object
    });
    Controller::for_stream(stream.map_ok(only_named).boxed(), store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(wakes)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(pass, policy, ctx)
        .for_each(|outcome| {
            // Failed passes are logged by the policy; what else comes here is the watch.
            if let Err(error @ kube::runtime::controller::Error::QueueError(_)) = &outcome {
                let error = error as &dyn std::error::Error;
                tracing::warn!(controller = name, error, "the watch was interrupted; it starts anew");
            }
            std::future::ready(())
        })
        .await;
    name
}

/// What is queued: an object's UID and version are not needed to find it, and with thousands of leases they are most of
/// what waits.
fn only_named<K: Resource>(mut object: K) -> K {
    let meta = object.meta_mut();
    (meta.uid, meta.resource_version) = (None, None);
    object
}

fn receive<T: Send + 'static>(receiver: mpsc::UnboundedReceiver<T>) -> impl futures::Stream<Item = T> + Send {
    futures::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|item| (item, receiver))
    })
}
