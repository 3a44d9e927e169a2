//! The controller of pools: managed engines, the base secrets beside the pool, and what `kubectl get enginepools` shows.

use super::context::Context;
use super::engine::{is_managed, namespace_goes, open_leases};
use super::hold::{Error, Halt, Hold};
use super::servers;
use super::watches::DYNAMIC_SECRETS;
use crate::api::conditions::{self, Reason};
use crate::api::names::POOL_FINALIZER;
use crate::api::pool::ServerStatus;
use crate::api::{CredentialLease, DynamicSecret, Engine, EnginePool, EngineSpec};
use crate::cluster::{Intention, Parts, objects, server_record, status};
use futures::{StreamExt, TryStreamExt};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::ListParams;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, Resource, ResourceExt};
use std::sync::Arc;
use std::time::Duration;

/// Between two checks of a server that is ready.
const CHECK_READY: SignedDuration = SignedDuration::from_mins(30);
/// Between two checks of a server that is not.
const CHECK_AGAIN: SignedDuration = SignedDuration::from_mins(1);
/// Until the next look at a pool; events come sooner.
const USUAL: Duration = Duration::from_mins(5);

/// Between two looks at the group roles of a pool that leaves.
const GROUP_LOOK: Duration = Duration::from_secs(1);
/// How long a pool that leaves waits for its group roles. By the clock: how often it is looked at depends on what else
/// happens, and a pool that goes too early takes along the engines that would have dropped them.
const GROUP_WAIT: Duration = Duration::from_mins(10);
/// Servers of one pool that are looked at together: one that does not answer must not keep the others waiting.
const LOOKS_AT_ONCE: usize = 16;

/// One pass over one pool.
pub async fn reconcile(pool: Arc<EnginePool>, ctx: Arc<Context>) -> Result<Action, Error> {
    ctx.still_leading()?;
    if pool.metadata.deletion_timestamp.is_some() {
        return leave(&ctx, &pool).await;
    }
    if !pool.finalizers().iter().any(|f| f == POOL_FINALIZER) {
        objects::add_finalizer(&ctx.client, pool.as_ref(), POOL_FINALIZER).await?;
        return Ok(Action::await_change());
    }
    if let Err(hold) = ctx.serves(&pool.namespace().unwrap_or_default()) {
        // Its engines stay as they are: accounts that live are theirs to take back.
        write(&ctx, &pool, &hold, |_| ()).await?;
        return Ok(Action::requeue(USUAL));
    }
    scale(&ctx, &pool).await?;
    let servers = look_at_servers(&ctx, &pool).await?;
    report(&ctx, &pool, servers).await
}

/// A deleted pool stays while leases need it: they live to their end, unless its namespace goes too, which must not wait
/// for a ttl.
async fn leave(ctx: &Context, pool: &EnginePool) -> Result<Action, Error> {
    if !pool.finalizers().iter().any(|f| f == POOL_FINALIZER) {
        return Ok(Action::await_change()); // somebody else's finalizer holds it
    }
    let uid = pool.uid().unwrap_or_default();
    let open = open_leases(ctx, &uid).await?;
    if open == 0 {
        return leave_groups(ctx, pool).await;
    }
    if namespace_goes(ctx, &pool.namespace().unwrap_or_default()).await? {
        end_leases(ctx, &uid).await?;
    }
    keep_an_engine(ctx, pool).await?;
    let message = format!("{open} open leases; the pool goes when the last one ends. No new lease is made");
    let hold = Hold::new(Reason::Deleting, message);
    write(ctx, pool, &hold, |_| ()).await?;
    Ok(Action::requeue(Duration::from_secs(5)))
}

/// With its last lease gone a pool still waits a while for its group roles: their dynamic secrets drop them now, because
/// later there is no engine for it. A database that cannot be reached does not hold it for ever.
async fn leave_groups(ctx: &Context, pool: &EnginePool) -> Result<Action, Error> {
    let uid = pool.uid().unwrap_or_default();
    let owners = owners_of_groups(ctx, &uid).await?;
    if owners.is_empty() || ctx.attempts.age(&uid) > GROUP_WAIT {
        if !owners.is_empty() {
            tracing::warn!(
                pool = pool.name_any(),
                dynamic_secrets = owners.len(),
                "the pool goes without its group roles; their dynamic secrets keep them on the books"
            );
        }
        ctx.attempts.reset(&uid);
        objects::remove_finalizer(&ctx.client, pool, POOL_FINALIZER).await?;
        return Ok(Action::await_change());
    }
    keep_an_engine(ctx, pool).await?;
    for owner in owners {
        ctx.wake_dynamic_secret(&owner.namespace().unwrap_or_default(), &owner.name_any());
    }
    Ok(Action::requeue(GROUP_LOOK))
}

/// Managed engines may have been deleted just before their pool; without one nothing could be taken back.
async fn keep_an_engine(ctx: &Context, pool: &EnginePool) -> Result<(), Error> {
    if !engines_of(ctx, pool).is_empty() {
        return Ok(());
    }
    match scale(ctx, pool).await {
        // A namespace that goes admits nothing new; there the engines wait themselves.
        Err(Error::Cluster(error)) if error.is_refused() => Ok(()),
        other => other,
    }
}

/// Dynamic secrets that have group roles of the pool on their books. While the cache does not show them all yet they are asked
/// for: a pool that went without them would leave their group roles behind.
pub async fn owners_of_groups(ctx: &Context, pool_uid: &str) -> Result<Vec<Arc<DynamicSecret>>, Error> {
    let has = |owner: &DynamicSecret| owner.status.iter().flat_map(|s| &s.groups).any(|g| g.pool == pool_uid);
    if ctx.stores.filled.has(DYNAMIC_SECRETS) {
        return Ok(ctx.stores.dynamic_secrets.state_filter(has));
    }
    let mut owners = Vec::new();
    let mut listed = Parts::<DynamicSecret>::of(Api::all(ctx.client.clone()), ListParams::default());
    loop {
        match listed
            .next()
            .await
            .to(|| "list the dynamic secrets of a pool".to_owned())
        {
            // Without their definition there are none.
            Err(error) if error.is_not_served() => return Ok(owners),
            Err(error) => return Err(error.into()),
            Ok(None) => return Ok(owners),
            Ok(Some(part)) => owners.extend(part.into_iter().filter(has).map(Arc::new)),
        }
    }
}

async fn end_leases(ctx: &Context, pool_uid: &str) -> Result<(), Error> {
    let of_pool = |lease: &CredentialLease| {
        lease.metadata.deletion_timestamp.is_none() && lease.claim().is_some_and(|claim| claim.pool.uid == pool_uid)
    };
    for lease in ctx.stores.leases.state_filter(of_pool) {
        ctx.still_leading()?;
        objects::delete(&ctx.client, lease.as_ref()).await?;
    }
    Ok(())
}

/// Makes and removes the Engine objects of managed engines.
async fn scale(ctx: &Context, pool: &EnginePool) -> Result<(), Error> {
    let wanted = pool
        .spec
        .engines
        .as_ref()
        .map_or(0, |managed| managed.replicas.min(ctx.settings.max_engines_per_pool));
    let namespace = pool.namespace().unwrap_or_default();
    let names: Vec<String> = (0..wanted)
        .map(|index| format!("{}-{index}", pool.name_any()))
        .collect();
    let engines = engines_of(ctx, pool);
    for name in &names {
        if engines.iter().any(|engine| engine.name_any() == *name) {
            continue;
        }
        let engine = Engine {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                owner_references: pool.controller_owner_ref(&()).map(|reference| vec![reference]),
                ..ObjectMeta::default()
            },
            spec: EngineSpec {
                pool: pool.name_any(),
                public_key: None,
                previous_public_key: None,
                disabled: None,
            },
            status: None,
        };
        match objects::make(&ctx.client, &namespace, &engine).await {
            Err(error) if error.is_conflict() => {}
            other => other.map(|_| ())?,
        }
    }
    // Those of an earlier pool of this name answer to nobody any more; the garbage collector may take minutes to see it.
    let surplus = |engine: &&Arc<Engine>| {
        is_managed(engine) && !(names.contains(&engine.name_any()) && is_owned_by(engine, pool))
    };
    for engine in engines
        .iter()
        .filter(surplus)
        .filter(|engine| engine.metadata.deletion_timestamp.is_none())
    {
        objects::delete(&ctx.client, engine.as_ref()).await?;
    }
    Ok(())
}

fn is_owned_by(engine: &Engine, pool: &EnginePool) -> bool {
    let uid = pool.uid();
    engine
        .owner_references()
        .iter()
        .any(|owner| Some(&owner.uid) == uid.as_ref())
}

fn engines_of(ctx: &Context, pool: &EnginePool) -> Vec<Arc<Engine>> {
    let (namespace, name) = (pool.namespace(), pool.name_any());
    ctx.stores
        .engines
        .state_filter(|engine| engine.namespace() == namespace && engine.spec.pool == name)
}

/// What is known of a server after a pass.
struct Seen {
    server: ServerStatus,
    /// Taken over from the cached status: what the live status says is at least as new.
    carried: bool,
}

async fn look_at_servers(ctx: &Context, pool: &EnginePool) -> Result<Vec<Seen>, Error> {
    let namespace = pool.namespace();
    let bases = ctx
        .stores
        .bases
        .state_filter(|base| base.namespace() == namespace && base.metadata.deletion_timestamp.is_none());
    let mut names: Vec<(String, String)> = bases
        .iter()
        .map(|base| (base.name_any(), base.resource_version().unwrap_or_default()))
        .collect();
    names.sort();
    // One nudge is for all servers of the pool.
    let nudged = ctx.nudges.take(&pool.uid().unwrap_or_default());
    let looks = names.into_iter().map(|(name, version)| async move {
        let servers = pool.status.iter().flat_map(|s| &s.servers);
        let old = servers.into_iter().find(|server| server.linked_secret == name);
        let fresh = old.filter(|old| is_fresh(ctx, pool, old, version.as_str(), nudged));
        Ok(match fresh {
            Some(old) => Seen {
                server: old.clone(),
                carried: true,
            },
            None => Seen {
                server: look_at_server(ctx, pool, &name, &version).await?,
                carried: false,
            },
        })
    });
    futures::stream::iter(looks).buffered(LOOKS_AT_ONCE).try_collect().await
}

async fn look_at_server(ctx: &Context, pool: &EnginePool, name: &str, version: &str) -> Result<ServerStatus, Error> {
    let now = ctx.now();
    let (namespace, pool_uid) = (pool.namespace().unwrap_or_default(), pool.uid().unwrap_or_default());
    let mut found = ServerStatus {
        linked_secret: name.to_owned(),
        checked_at: Some(Time(now)),
        ..ServerStatus::default()
    };
    let checked = async {
        let base = servers::read_base(ctx, &namespace, name).await?;
        found.address = Some(format!("{}:{}", base.login.host, base.login.port_text()));
        found.login = Some(base.login.username.clone());
        found.database = Some(base.login.database.clone());
        let report = servers::probe(ctx, &pool_uid, &base).await?;
        // A changed password must reach the record even if no lease is made: revocations log in with it. But only one that
        // has let an engine in: a mistyped base secret must not keep accounts of the same login from being taken back.
        let home = &ctx.settings.home;
        if server_record::login(&ctx.client, home, &base.login.record)
            .await?
            .is_some()
        {
            ctx.still_leading()?;
            servers::keep_record(ctx, &base).await?;
        }
        found.version = Some(report.version.clone());
        found.tls.clone_from(&report.tls);
        found.missing.clone_from(&report.missing);
        found.advice.clone_from(&report.advice);
        found.clock_offset_ms = ctx
            .servers
            .of(&base.login.record)
            .offset
            .and_then(|o| i64::try_from(o.as_millis()).ok());
        servers::ready(&report, name).map_err(Halt::Hold)
    };
    match checked.await {
        Ok(()) => {
            found.ready = true;
            ctx.checked.note(&pool_uid, name, version);
        }
        Err(Halt::Hold(hold)) => {
            found.reason = Some(hold.reason.as_str().to_owned());
            found.message = Some(hold.message);
        }
        Err(Halt::Error(error)) => return Err(error),
    }
    Ok(found)
}

fn is_fresh(ctx: &Context, pool: &EnginePool, old: &ServerStatus, version: &str, nudged: bool) -> bool {
    let age = old
        .checked_at
        .as_ref()
        .map_or(SignedDuration::MAX, |at| ctx.now().duration_since(at.0));
    if old.ready {
        let pool_uid = pool.uid().unwrap_or_default();
        return age < CHECK_READY && ctx.checked.has(&pool_uid, &old.linked_secret, version);
    }
    age < CHECK_AGAIN && !nudged
}

/// What to write over `live`: a cached status that lags behind must not put an older finding back.
fn merged(servers: &[Seen], live: &[ServerStatus]) -> Vec<ServerStatus> {
    let known = |name: &str| live.iter().find(|server| server.linked_secret == name);
    servers
        .iter()
        .map(|seen| match known(&seen.server.linked_secret) {
            Some(live) if seen.carried => live.clone(),
            _ => seen.server.clone(),
        })
        .collect()
}

async fn report(ctx: &Context, pool: &EnginePool, servers: Vec<Seen>) -> Result<Action, Error> {
    let uid = pool.uid().unwrap_or_default();
    let engines = engines_of(ctx, pool).len();
    let connected = ctx.hub.takers(&uid);
    let open = ctx
        .stores
        .leases
        .state_filter(|lease| lease.claim().is_some_and(|claim| claim.pool.uid == uid))
        .len();
    let asked = pool.spec.engines.as_ref().map_or(0, |managed| managed.replicas);
    let hold = match (engines, connected) {
        _ if asked > ctx.settings.max_engines_per_pool => Hold::new(
            Reason::InvalidSpec,
            format!(
                "spec.engines.replicas is {asked}, but the installer allows {} in one pool; lower it",
                ctx.settings.max_engines_per_pool
            ),
        ),
        (0, _) => Hold::new(
            Reason::WaitingForEngine,
            "the pool has no engine; set spec.engines.replicas or create an Engine with spec.pool",
        ),
        (_, 0) => Hold::new(
            Reason::WaitingForEngine,
            "no engine of the pool is connected; kubectl get engines shows why",
        ),
        _ => Hold::new(
            Reason::Connected,
            format!("{connected} of {engines} engines are connected"),
        ),
    };
    let again = if servers.iter().all(|seen| seen.server.ready) {
        USUAL
    } else {
        Duration::from_secs(61)
    };
    let count = |number: usize| Some(i64::try_from(number).unwrap_or(i64::MAX));
    write(ctx, pool, &hold, |status| {
        (status.engines, status.connected_engines, status.open_leases) =
            (count(engines), count(connected), count(open));
        status.root_hash = Some(ctx.installation.root.hash().to_string());
        status.servers = merged(&servers, &status.servers);
    })
    .await?;
    Ok(Action::requeue(again))
}

async fn write(
    ctx: &Context,
    pool: &EnginePool,
    hold: &Hold,
    change: impl Fn(&mut crate::api::EnginePoolStatus),
) -> Result<(), Error> {
    let now = ctx.now();
    status::amend(&ctx.client, pool, |pool| {
        let generation = pool.metadata.generation;
        let status = pool.status.get_or_insert_default();
        let before = status.clone();
        change(status);
        status.observed_generation = generation;
        conditions::set_ready(&mut status.conditions, hold.reason, &hold.message, generation, now);
        *status != before
    })
    .await?;
    if hold.reason.kind() == conditions::ReasonKind::Refused {
        ctx.tell(pool, hold.reason, &hold.message, EventType::Warning).await;
    }
    Ok(())
}
