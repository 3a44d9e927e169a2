//! The controller of engines: keys and registrations, Deployments of managed ones, and what `kubectl get engines` shows.

use super::context::Context;
use super::hold::{Error, Hold};
use super::lease::until_then;
use crate::api::conditions::{self, READY, Reason};
use crate::api::engine::EngineStatus;
use crate::api::names::{
    ENGINE_LABEL, MANAGED_BY, OPERATOR, POOL_FINALIZER, POOL_LABEL, REGISTRATION_SECRET_TYPE, managed_engine,
    registration_secret,
};
use crate::api::{CredentialLease, Engine, EnginePool};
use crate::channel::hub::SessionInfo;
use crate::cluster::{Intention, objects, status};
use crate::keys::EngineKey;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use std::collections::BTreeMap;
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
    let mut registration = None;
    if engine.spec.public_key.is_none() {
        registration = Some(register(&ctx, &engine, managed).await?);
    } else if engine
        .status
        .as_ref()
        .and_then(|s| s.registration_secret.as_ref())
        .is_some()
    {
        registration = engine.status.as_ref().and_then(|s| s.registration_secret.clone());
    }
    if let (true, Some(pool), Some(name)) = (managed, &pool, managed_engine(&engine.uid().unwrap_or_default())) {
        super::deployment::apply(&ctx, &engine, pool, &name).await?;
    }
    super::ping::answer(&ctx, &engine).await?;
    report(&ctx, &engine, pool.is_some(), registration).await
}

/// Engines that a pool made are owned by it.
pub fn is_managed(engine: &Engine) -> bool {
    engine
        .owner_references()
        .iter()
        .any(|owner| owner.controller == Some(true) && owner.kind == "EnginePool")
}

/// Makes the engine's key: the Secret first, then the public half in the spec. A Secret that is already there is read,
/// so a crash between the two makes no second key.
async fn register(ctx: &Context, engine: &Engine, managed: bool) -> Result<String, Error> {
    let (namespace, name) = (engine.namespace().unwrap_or_default(), engine.name_any());
    let (home, secret_name) = if managed {
        (
            ctx.settings.home.clone(),
            managed_engine(&engine.uid().unwrap_or_default()).unwrap_or_default(),
        )
    } else {
        (namespace.clone(), registration_secret(&name))
    };
    let key = if let Some(found) = objects::read::<Secret>(&ctx.client, &home, &secret_name).await? {
        read_key(&found, engine)
    } else {
        let made = EngineKey::generate(ctx.installation.root.hash(), &namespace).map_err(|e| surprise(&e))?;
        let secret = registration(ctx, engine, &home, &secret_name, &made, managed);
        match objects::make(&ctx.client, &home, &secret).await {
            Ok(_) => Ok(made),
            Err(error) if error.is_conflict() => {
                let found: Option<Secret> = objects::read(&ctx.client, &home, &secret_name).await?;
                let rival = || Err(not_ours(&home, &secret_name));
                found.map_or_else(rival, |found| read_key(&found, engine))
            }
            Err(error) => return Err(error.into()),
        }
    };
    let key = match key {
        Ok(key) => key,
        Err(hold) => {
            write_condition(ctx, engine, &hold, |_| ()).await?;
            return Ok(secret_name);
        }
    };
    let patch = serde_json::json!({"metadata": {"uid": engine.uid(), "resourceVersion": engine.resource_version()}, "spec": {"publicKey": key.public().to_string()}});
    let api: Api<Engine> = Api::namespaced(ctx.client.clone(), &namespace);
    api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .to(|| format!("write the public key of engine {namespace}/{name}"))?;
    Ok(secret_name)
}

fn surprise(error: &dyn std::error::Error) -> crate::cluster::Error {
    crate::cluster::Error {
        intention: format!("make an engine key: {error}"),
        source: Box::new(kube::Error::Service(error.to_string().into())),
    }
}

fn not_ours(namespace: &str, name: &str) -> Hold {
    Hold::new(
        Reason::TargetNotOurs,
        format!("Secret {namespace}/{name} exists and is not this engine's registration; delete or rename it"),
    )
}

/// The key in a registration Secret, if the Secret is this Engine's.
fn read_key(secret: &Secret, engine: &Engine) -> Result<EngineKey, Hold> {
    let refused = || not_ours(&secret.namespace().unwrap_or_default(), &secret.name_any());
    let ours = secret.labels().get(ENGINE_LABEL) == engine.uid().as_ref()
        && secret.labels().get(MANAGED_BY).map(String::as_str) == Some(OPERATOR);
    let bytes = secret
        .data
        .as_ref()
        .and_then(|data| data.get("DSV_PRIVATE_KEY"))
        .filter(|_| ours)
        .ok_or_else(refused)?;
    let text = String::from_utf8(bytes.0.clone()).map_err(|_| refused())?;
    EngineKey::parse(&crate::keys::SecretText::new(text)).map_err(|_| refused())
}

fn registration(ctx: &Context, engine: &Engine, home: &str, name: &str, key: &EngineKey, managed: bool) -> Secret {
    let data = [
        ("ENGINE_NAME", engine.name_any()),
        ("DSV_ENDPOINT", ctx.settings.engine_endpoints.join(",")),
        ("DSV_PRIVATE_KEY", key.text().reveal().to_owned()),
    ];
    let labels: BTreeMap<String, String> = [
        (MANAGED_BY, OPERATOR.to_owned()),
        (ENGINE_LABEL, engine.uid().unwrap_or_default()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(home.to_owned()),
            labels: Some(labels),
            // An owner in another namespace is not allowed; a managed engine's Secret is deleted with its Engine by us.
            owner_references: (!managed).then(|| engine.controller_owner_ref(&()).into_iter().collect()),
            ..ObjectMeta::default()
        },
        type_: Some(REGISTRATION_SECRET_TYPE.to_owned()),
        data: Some(
            data.into_iter()
                .map(|(k, v)| (k.to_owned(), ByteString(v.into_bytes())))
                .collect(),
        ),
        ..Secret::default()
    }
}

/// A deleted engine stays for revocations as long as its pool has open leases.
async fn leave(ctx: &Context, engine: &Engine) -> Result<Action, Error> {
    ctx.hub.recheck();
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
    let groups = !super::pool::owners_of_groups(ctx, &uid).is_empty()
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

/// Open leases of a pool, counted at the source.
pub async fn open_leases(ctx: &Context, pool_uid: &str) -> Result<i64, Error> {
    let api: Api<CredentialLease> = Api::all(ctx.client.clone());
    let params = ListParams::default().labels(&format!("{POOL_LABEL}={pool_uid}"));
    let list = api
        .list_metadata(&params)
        .await
        .to(|| "count the leases of a pool".to_owned())?;
    Ok(i64::try_from(list.items.len()).unwrap_or(i64::MAX))
}

async fn report(ctx: &Context, engine: &Engine, has_pool: bool, registration: Option<String>) -> Result<Action, Error> {
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
    let recheck = engine
        .spec
        .previous_public_key
        .as_ref()
        .map(|key| until_then(now, key.until.0))
        .filter(|left| !left.is_zero());
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
