//! The controller of engines: keys and registrations, Deployments of managed ones, and what `kubectl get engines` shows.

use super::cached_lease::label;
use super::context::Context;
use super::engine_key;
use super::hold::{Error, Hold};
use super::lease::until_then;
use super::registration::{self, Place};
use crate::api::conditions::{self, READY, Reason};
use crate::api::engine::EngineStatus;
use crate::api::names::{POOL_FINALIZER, POOL_LABEL, managed_engine};
use crate::api::{CredentialLease, Engine, EnginePool};
use crate::channel::hub::SessionInfo;
use crate::cluster::{Intention, Parts, objects, status};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use std::sync::Arc;
use std::time::Duration;

/// Between two writes of an unchanged heartbeat.
const HEARTBEAT: SignedDuration = SignedDuration::from_mins(10);
/// Until the next look at an engine that is connected; events come sooner.
const CONNECTED: Duration = Duration::from_mins(10);
/// Until the next look at an engine that is not; events come sooner.
const AWAY: Duration = Duration::from_mins(5);

/// One pass over one engine.
pub async fn reconcile(engine: Arc<Engine>, ctx: Arc<Context>) -> Result<Action, Error> {
    ctx.still_leading()?;
    if engine.metadata.deletion_timestamp.is_some() {
        return leave(&ctx, &engine).await;
    }
    if !engine.finalizers().iter().any(|f| f == POOL_FINALIZER) {
        objects::add_finalizer(&ctx.client, engine.as_ref(), POOL_FINALIZER).await?;
        return Ok(Action::await_change());
    }
    let namespace = engine.namespace().unwrap_or_default();
    let pool = ctx
        .stores
        .pools
        .get(&ObjectRef::<EnginePool>::new(&engine.spec.pool).within(&namespace));
    let managed = is_managed(&engine);
    let place = registration::place(&ctx, &engine, managed);
    let (mut registered, mut key_due) = (None, None);
    let served = ctx.serves(&place.namespace);
    if engine.spec.public_key.is_none() {
        if let Err(hold) = served {
            write_condition(&ctx, &engine, &hold, |_| ()).await?;
            return Ok(Action::requeue(AWAY));
        }
        return register(&ctx, &engine, &place).await;
    }
    if engine.status.as_ref().is_some_and(|s| s.registration_secret.is_some()) || managed {
        registered = Some(place.name.clone());
        if served.is_ok() {
            match engine_key::change(&ctx, &engine, pool.as_deref(), &place).await? {
                engine_key::Pass::Changed => return Ok(Action::await_change()),
                engine_key::Pass::Until(then) => key_due = then,
            }
        }
    }
    if let (true, Some(pool), Some(name)) = (managed, &pool, managed_engine(&engine.uid().unwrap_or_default())) {
        super::deployment::apply(&ctx, &engine, pool, &name).await?;
    }
    super::ping::answer(&ctx, &engine).await?;
    report(&ctx, &engine, pool.is_some(), registered, key_due).await
}

/// Engines that a pool made are owned by it.
pub fn is_managed(engine: &Engine) -> bool {
    engine
        .owner_references()
        .iter()
        .any(|owner| owner.controller == Some(true) && owner.kind == "EnginePool")
}

/// Makes the engine's key: the Secret first, then the public half in the spec.
async fn register(ctx: &Context, engine: &Engine, place: &Place) -> Result<Action, Error> {
    let key = match registration::first_key(ctx, engine, place).await? {
        Ok(key) => key,
        Err(hold) => {
            write_condition(ctx, engine, &hold, |_| ()).await?;
            return Ok(Action::requeue(AWAY));
        }
    };
    let (namespace, name) = (engine.namespace().unwrap_or_default(), engine.name_any());
    let patch = serde_json::json!({
        "metadata": {"uid": engine.uid(), "resourceVersion": engine.resource_version()},
        "spec": {"publicKey": key.public().to_string()},
    });
    let api: Api<Engine> = Api::namespaced(ctx.client.clone(), &namespace);
    let written = api
        .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .to(|| format!("write the public key of engine {namespace}/{name}"))?;
    status::amend(&ctx.client, &written, |engine| {
        let status = engine.status.get_or_insert_default();
        status.registration_secret = Some(place.name.clone());
        status.key_since = Some(Time(ctx.now()));
        true
    })
    .await?;
    Ok(Action::await_change())
}

/// A deleted engine stays for revocations as long as its pool has open leases.
async fn leave(ctx: &Context, engine: &Engine) -> Result<Action, Error> {
    ctx.hub
        .recheck_engine(&engine.namespace().unwrap_or_default(), &engine.name_any());
    if !engine.finalizers().iter().any(|f| f == POOL_FINALIZER) {
        return Ok(Action::await_change()); // somebody else's finalizer holds it
    }
    let namespace = engine.namespace().unwrap_or_default();
    let pool = pool_of(ctx, engine, &namespace).await?;
    let managed = managed_engine(&engine.uid().unwrap_or_default()).filter(|_| is_managed(engine));
    if let Some(pool) = &pool
        && let Some(open) = needed_by(ctx, pool, &namespace).await?
        // One that began to leave cannot work any more. Kept, it would wait for itself, and its name would be taken.
        && (managed.is_none() || super::deployment::exists(ctx, managed.as_deref().unwrap_or_default()).await?)
    {
        let message = format!(
            "{open} open leases of the pool and its group roles need an engine, and no other one is connected; this one takes them back and then goes"
        );
        write_condition(ctx, engine, &Hold::new(Reason::Deleting, message), |_| ()).await?;
        return Ok(Action::requeue(Duration::from_secs(2)));
    }
    if let Some(name) = managed {
        super::deployment::remove(ctx, &name).await?;
        if let Some(secret) = objects::read::<Secret>(&ctx.client, &ctx.settings.home, &name).await? {
            objects::delete(&ctx.client, &secret).await?;
        }
    }
    objects::remove_finalizer(&ctx.client, engine, POOL_FINALIZER).await?;
    Ok(Action::await_change())
}

/// Asked for where the cache does not show it: after a start it may not be filled yet, and an engine that took its pool for
/// gone would leave its accounts.
async fn pool_of(ctx: &Context, engine: &Engine, namespace: &str) -> Result<Option<Arc<EnginePool>>, Error> {
    let name = &engine.spec.pool;
    if let Some(pool) = ctx
        .stores
        .pools
        .get(&ObjectRef::<EnginePool>::new(name).within(namespace))
    {
        return Ok(Some(pool));
    }
    match objects::read::<EnginePool>(&ctx.client, namespace, name).await {
        // Without their definition there are no pools.
        Err(error) if error.is_not_served() => Ok(None),
        other => Ok(other?.map(Arc::new)),
    }
}

/// The open leases of a pool which has no other engine for them or for its group roles.
async fn needed_by(ctx: &Context, pool: &EnginePool, namespace: &str) -> Result<Option<i64>, Error> {
    let uid = pool.uid().unwrap_or_default();
    let open = open_leases(ctx, &uid).await?;
    // A pool that leaves has its group roles dropped; otherwise they can wait for another engine. Where the namespace goes,
    // its engines are often deleted a moment before the pool.
    let groups = !super::pool::owners_of_groups(ctx, &uid).await?.is_empty()
        && (pool.metadata.deletion_timestamp.is_some() || namespace_goes(ctx, namespace).await?);
    // One that is deleted too is no other: of all engines deleted together none would be left.
    let stays = |uid: &str| {
        let found = ctx.stores.engines.find(|other| other.uid().as_deref() == Some(uid));
        found.is_some_and(|other| other.metadata.deletion_timestamp.is_none())
    };
    let sessions = ctx.hub.connected(&uid);
    let others = sessions.iter().any(|s| !s.draining && stays(&s.engine.uid));
    Ok(Some(open).filter(|_| (open > 0 || groups) && !others))
}

/// Whether everything in a namespace is about to be deleted.
pub async fn namespace_goes(ctx: &Context, name: &str) -> Result<bool, Error> {
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let namespace = api.get_opt(name).await.to(|| format!("read namespace {name}"))?;
    Ok(namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}

/// Open leases of a pool. As long as the cache shows any, it counts: whoever asks waits until there are none. That there are
/// none is only believed at the source.
pub async fn open_leases(ctx: &Context, pool_uid: &str) -> Result<i64, Error> {
    let of_pool = |lease: &CredentialLease| label(lease, POOL_LABEL) == Some(pool_uid);
    let mut open = ctx.stores.leases.state_filter(of_pool).len();
    if open == 0 {
        let params = ListParams::default().labels(&format!("{POOL_LABEL}={pool_uid}"));
        let mut leases = Parts::<CredentialLease>::of(Api::all(ctx.client.clone()), params);
        let next = async |leases: &mut Parts<_>| {
            let next = leases.next_metadata().await;
            next.to(|| "count the leases of a pool".to_owned())
        };
        while let Some(part) = next(&mut leases).await? {
            open += part.len();
        }
    }
    Ok(i64::try_from(open).unwrap_or(i64::MAX))
}

async fn report(
    ctx: &Context,
    engine: &Engine,
    has_pool: bool,
    registration: Option<String>,
    key_due: Option<Timestamp>,
) -> Result<Action, Error> {
    let uid = engine.uid().unwrap_or_default();
    let session = ctx.hub.session(&uid).filter(|session| !session.draining);
    let now = ctx.now();
    let hold = judge(engine, has_pool, session.as_ref());
    let connected = hold.reason == Reason::Connected;
    let heard = session
        .as_ref()
        .map(|s| s.last_heard)
        .or_else(|| ctx.hub.last_heard(&uid));
    let version = session.map(|s| s.version);
    write_condition(ctx, engine, &hold, |status| {
        if registration.is_some() {
            status.registration_secret.clone_from(&registration);
        }
        if version.is_some() {
            status.version.clone_from(&version);
        }
        note_heartbeat(status, heard, connected, now);
    })
    .await?;
    let previous = engine.spec.previous_public_key.as_ref().map(|key| key.until.0);
    let recheck = [previous, key_due]
        .into_iter()
        .flatten()
        .map(|then| until_then(now, then))
        .filter(|left| !left.is_zero())
        .min();
    let usual = if connected { CONNECTED } else { AWAY };
    Ok(Action::requeue(recheck.map_or(usual, |left| left.min(usual))))
}

fn judge(engine: &Engine, has_pool: bool, session: Option<&SessionInfo>) -> Hold {
    if engine.spec.disabled == Some(true) {
        return Hold::new(Reason::Disabled, "spec.disabled is true; the engine is cut off");
    }
    if !has_pool {
        return Hold::new(
            Reason::PoolMissing,
            format!(
                "EnginePool {} does not exist in this namespace; create it",
                engine.spec.pool
            ),
        );
    }
    match session {
        Some(session) if session.duplicate_session => Hold::new(
            Reason::DuplicateSession,
            "two processes use this engine's key and take over from each other; stop one, or give it an Engine of its own",
        ),
        Some(_) => Hold::new(Reason::Connected, "connected and waiting for messages"),
        None => Hold::new(
            Reason::NotConnected,
            "the engine has not dialled in; start dsv-engine with its registration, and look at its log",
        ),
    }
}

/// On connect, on disconnect, and at most every ten minutes: the live value is served elsewhere.
fn note_heartbeat(status: &mut EngineStatus, heard: Option<Timestamp>, connected: bool, now: Timestamp) {
    let Some(heard) = heard else { return };
    let old = status.last_heartbeat.as_ref().map(|at| at.0);
    let was = conditions::find(&status.conditions, READY).is_some_and(|c| c.status == "True");
    if old.is_none_or(|old| now.duration_since(old) >= HEARTBEAT) || was != connected {
        status.last_heartbeat = Some(Time(heard));
    }
}

async fn write_condition(
    ctx: &Context,
    engine: &Engine,
    hold: &Hold,
    change: impl Fn(&mut EngineStatus),
) -> Result<(), Error> {
    let now = ctx.now();
    status::amend(&ctx.client, engine, |engine| {
        let generation = engine.metadata.generation;
        let status = engine.status.get_or_insert_default();
        let before = status.clone();
        change(status);
        status.observed_generation = generation;
        conditions::set_ready(&mut status.conditions, hold.reason, &hold.message, generation, now);
        *status != before
    })
    .await?;
    if hold.reason.kind() == conditions::ReasonKind::Refused || hold.reason == Reason::DuplicateSession {
        ctx.tell(engine, hold.reason, &hold.message, EventType::Warning).await;
    }
    Ok(())
}
