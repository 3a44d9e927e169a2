//! Everything that must be true before a lease is written, read fresh: pool, consent, base secret, server, group.

use super::context::Context;
use super::hold::{Error, Halt, Hold};
use super::servers::{self, Base};
use crate::api::conditions::Reason;
use crate::api::dynamic_secret::{GroupRecord, OwnedObjectsPolicy};
use crate::api::grants::Grant;
use crate::api::lease::{Claim, ClaimedGroup, ClaimedPool};
use crate::api::names::{DYNAMIC_SECRET_LABEL, MANAGED_BY, OPERATOR, POOL_LABEL, base32_hash};
use crate::api::{DynamicSecret, EnginePool};
use crate::cluster::{Intention, objects, status};
use crate::plan::consent::{self, Denied, Request};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedRwLockReadGuard;

/// How long after the claim the account may still be created, in the database's clock.
const ISSUE_WINDOW: SignedDuration = SignedDuration::from_secs(60);

/// Everything that a lease needs before it may be written.
pub struct Prepared {
    /// The dynamic secret as read just now.
    pub owner: DynamicSecret,
    /// The pool as read just now.
    pub pool: EnginePool,
    /// The base secret as read just now.
    pub base: Base,
    /// Completed grants.
    pub grants: Vec<Grant>,
    /// Group role.
    pub group: Arc<ClaimedGroup>,
    /// Labels of the asker's namespace.
    namespace_labels: BTreeMap<String, String>,
    /// Life of the account.
    ttl: SignedDuration,
    /// While this is held no server record is removed.
    _record_stays: OwnedRwLockReadGuard<()>,
}

/// Name of the group role that carries these grants for this dynamic secret.
pub fn group_name(installation: &str, owner_uid: &str, grants: &[Grant]) -> String {
    let mut texts: Vec<String> = grants.iter().map(Grant::to_string).collect();
    texts.sort();
    texts.dedup();
    let parts: Vec<&str> = [installation, owner_uid]
        .into_iter()
        .chain(texts.iter().map(String::as_str))
        .collect();
    format!("dsvg_{}", base32_hash(&parts))
}

/// Fingerprint of what a credential is issued for: a difference asks for a new one.
pub fn fingerprint(record: &str, pool_uid: &str, group: &str, prefix: &str) -> String {
    base32_hash(&[record, pool_uid, group, prefix])
}

/// The grants of a dynamic secret, completed with the base secret's database.
pub fn completed_grants(owner: &DynamicSecret, database: &str) -> Result<Vec<Grant>, Hold> {
    let parse = |pair: &crate::api::permissions::GrantPermissions| pair.parse().map(|grant| grant.complete(database));
    let grants: Result<Vec<Grant>, _> = owner.spec.pairs().iter().map(parse).collect();
    grants.map_err(|error| Hold::new(Reason::InvalidSpec, error.to_string()))
}

/// Reads the dynamic secret fresh, and goes on as [`prepare_read`].
pub async fn prepare(ctx: &Context, seen: &DynamicSecret) -> Result<Prepared, Halt> {
    let namespace = seen.namespace().unwrap_or_default();
    let fresh: Option<DynamicSecret> = objects::read(&ctx.client, &namespace, &seen.name_any()).await?;
    match fresh.filter(|fresh| fresh.uid() == seen.uid()) {
        Some(owner) => prepare_read(ctx, owner, None).await,
        None => Err(deleting().into()),
    }
}

fn deleting() -> Hold {
    Hold::new(Reason::Deleting, "the DynamicSecret is being deleted")
}

/// Checks everything that can be checked before there is a lease, and makes group and server record ready: both are on
/// the books (in the dynamic secret's status, in our namespace) before they exist anywhere else. `owner` was read from the
/// API server just now.
pub async fn prepare_read(ctx: &Context, owner: DynamicSecret, ttl: Option<Duration>) -> Result<Prepared, Halt> {
    if owner.metadata.deletion_timestamp.is_some() {
        return Err(deleting().into());
    }
    ctx.serves(&owner.namespace().unwrap_or_default())?;
    let (pool, namespace_labels) = admitted_pool(ctx, &owner).await?;
    let pool_namespace = pool.namespace().unwrap_or_default();
    let linked = &owner.spec.link_config.linked_secret;
    let base = servers::read_base(ctx, &pool_namespace, linked).await?;
    let grants = completed_grants(&owner, &base.login.database)?;
    let longest = owner
        .spec
        .ttl
        .length()
        .ok_or_else(|| Hold::new(Reason::InvalidSpec, "ttl is not a length of time"))?;
    let ttl = SignedDuration::try_from(ttl.unwrap_or(longest).min(longest)).unwrap_or(SignedDuration::MAX);
    let group_name = group_name(&ctx.installation.id, &owner.uid().unwrap_or_default(), &grants);
    let known = owner
        .status
        .iter()
        .flat_map(|s| &s.groups)
        // On any server: two records may lead to the same one, under two names.
        .find(|g| g.name == group_name);
    let since = known.map_or_else(|| Time(whole_second(ctx.now())), |record| record.since.clone());
    let group = Arc::new(ClaimedGroup {
        name: group_name,
        grants: servers::pairs(&grants),
        since,
    });
    let record_stays = ctx.keeping.clone().read_owned().await;
    let mut prepared = Prepared {
        owner,
        pool,
        base,
        grants,
        group,
        namespace_labels,
        ttl,
        _record_stays: record_stays,
    };
    // Consent first: who is not admitted learns nothing about the server, and nothing is made for him.
    admit(&prepared, 0)?;
    let pool_uid = prepared.pool.uid().unwrap_or_default();
    engine_connected(ctx, &pool_uid)?;
    servers::checked(ctx, &pool_uid, &prepared.base).await?;
    ctx.still_leading()?;
    servers::keep_record(ctx, &prepared.base).await?;
    failpoint!("prepare.recorded", prepared.owner.name_any());
    let since = record_group(ctx, &prepared).await?;
    Arc::make_mut(&mut prepared.group).since = since;
    let group = servers::group(ctx, &prepared.owner.uid().unwrap_or_default(), &prepared.group)?;
    servers::ensure_group(ctx, &pool_uid, &prepared.base.login, group).await?;
    failpoint!("prepare.grouped", prepared.owner.name_any());
    Ok(prepared)
}

/// What an engine told earlier is no reason to make a lease that nobody can bring about.
fn engine_connected(ctx: &Context, pool_uid: &str) -> Result<(), Hold> {
    if ctx.hub.takers(pool_uid) > 0 {
        return Ok(());
    }
    Err(Hold::new(
        Reason::WaitingForEngine,
        "no engine of the pool is connected; it goes on when one dials in (kubectl get engines)",
    ))
}

/// The pool, for whom it has an entry with this base secret, and the labels of the asker's namespace. Everybody else gets
/// one answer: whether there is a pool of the name, and whether it is going, is none of a stranger's business.
async fn admitted_pool(ctx: &Context, owner: &DynamicSecret) -> Result<(EnginePool, BTreeMap<String, String>), Halt> {
    let ours = owner.namespace().unwrap_or_default();
    let name = &owner.spec.pool.name;
    let namespace = owner.spec.pool.namespace.clone().unwrap_or_else(|| ours.clone());
    let pool = async { Ok(objects::read::<EnginePool>(&ctx.client, &namespace, name).await?) };
    let (pool, labels) = tokio::try_join!(pool, namespace_labels(ctx, &ours, &namespace))?;
    let denied = |denied: Denied| Hold::new(Reason::AccessDenied, denied.to_string());
    let Some(pool) = pool else {
        let message = format!("EnginePool {namespace}/{name} does not exist; create it or correct spec.pool");
        return Err(if ours == namespace {
            Hold::new(Reason::PoolMissing, message).into()
        } else {
            denied(Denied::Namespace(ours)).into()
        });
    };
    let linked = &owner.spec.link_config.linked_secret;
    consent::admit_link(&namespace, &pool.spec, (&ours, &labels), linked).map_err(denied)?;
    if pool.metadata.deletion_timestamp.is_some() {
        let message = format!("EnginePool {namespace}/{name} is being deleted; choose another one in spec.pool");
        return Err(Hold::new(Reason::PoolDeleting, message).into());
    }
    Ok((pool, labels))
}

async fn namespace_labels(ctx: &Context, ours: &str, pools: &str) -> Result<BTreeMap<String, String>, Error> {
    if ours == pools {
        return Ok(BTreeMap::new());
    }
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let namespace = api.get(ours).await.to(|| format!("read namespace {ours}"))?;
    Ok(namespace.metadata.labels.unwrap_or_default())
}

/// Whether the pool admits it to somebody who has so many open leases there.
pub fn admit(prepared: &Prepared, open_leases: i64) -> Result<(), Hold> {
    let namespace = prepared.owner.namespace().unwrap_or_default();
    let request = Request {
        namespace: &namespace,
        namespace_labels: &prepared.namespace_labels,
        linked_secret: &prepared.owner.spec.link_config.linked_secret,
        grants: &prepared.grants,
        user_prefix: prepared.owner.spec.prefix(),
        ttl: prepared.ttl,
        open_leases,
    };
    let pool_namespace = prepared.pool.namespace().unwrap_or_default();
    let database = &prepared.base.login.database;
    consent::admit(&pool_namespace, &prepared.pool.spec, database, &request).map_err(|denied| match denied {
        Denied::Leases(..) => Hold::new(Reason::TooManyLeases, denied.to_string()),
        other => Hold::new(Reason::AccessDenied, other.to_string()),
    })
}

/// Puts the group on the dynamic secret's books before it is made. Returns the claim time of its comment: of two leases that
/// are made at once the first one's counts for both, or the group would have two comments.
async fn record_group(ctx: &Context, prepared: &Prepared) -> Result<Time, Error> {
    let record = GroupRecord {
        name: prepared.group.name.clone(),
        server: prepared.base.login.record.clone(),
        pool: prepared.pool.uid().unwrap_or_default(),
        grants: prepared.group.grants.clone(),
        since: prepared.group.since.clone(),
    };
    let mut since = record.since.clone();
    status::amend(&ctx.client, &prepared.owner, |owner| {
        let groups = &mut owner.status.get_or_insert_default().groups;
        let known = groups.iter().find(|g| g.name == record.name);
        since = known.map_or_else(|| record.since.clone(), |known| known.since.clone());
        if groups
            .iter()
            .any(|g| g.name == record.name && g.server == record.server && g.pool == record.pool)
        {
            return false;
        }
        groups.retain(|g| g.name != record.name || g.server != record.server);
        groups.push(GroupRecord {
            since: since.clone(),
            ..record.clone()
        });
        true
    })
    .await?;
    Ok(since)
}

/// What is decided when a lease is made or taken on.
pub fn claim(ctx: &Context, prepared: &Prepared, serial: i64, target: Option<String>) -> Result<Claim, Hold> {
    let now = ctx.now();
    let record = &prepared.base.login.record;
    let Some(database) = ctx.servers.database_time(record) else {
        return Err(Hold::new(
            Reason::WaitingForClock,
            "no engine has reported the database's clock yet",
        ));
    };
    let pool_uid = prepared.pool.uid().unwrap_or_default();
    let prefix = prepared.owner.spec.prefix();
    let after =
        |from: Timestamp, span: SignedDuration| Time(whole_second(from.saturating_add(span).unwrap_or(Timestamp::MAX)));
    let valid_until = after(database, prepared.ttl);
    let issue_deadline = after(database, ISSUE_WINDOW.min(prepared.ttl));
    let revocation = prepared.owner.spec.revocation.as_ref().and_then(|r| r.owned_objects);
    Ok(Claim {
        maker: Arc::new(ctx.me.clone()),
        dynamic_secret_uid: prepared.owner.uid().unwrap_or_default().into(),
        serial,
        server: record.as_str().into(),
        pool: Arc::new(ClaimedPool {
            namespace: prepared.pool.namespace().unwrap_or_default(),
            name: prepared.pool.name_any(),
            uid: pool_uid.clone(),
        }),
        group: prepared.group.clone(),
        user_prefix: prefix.into(),
        fingerprint: fingerprint(record, &pool_uid, &prepared.group.name, prefix).into(),
        ttl_seconds: prepared.ttl.as_secs(),
        claimed_at: Time(whole_second(database)),
        issue_deadline: Time(issue_deadline.0.min(valid_until.0)),
        valid_until,
        expires_at: after(now, prepared.ttl),
        target,
        owned_objects: revocation.unwrap_or(OwnedObjectsPolicy::Reassign),
        account: prepared.owner.spec.account.clone().map(Arc::new),
    })
}

/// The next whole second: Kubernetes writes no fractions, and a ttl is never cut short by the rounding.
fn whole_second(at: Timestamp) -> Timestamp {
    let up = i64::from(at.subsec_nanosecond() > 0);
    Timestamp::from_second(at.as_second() + up).unwrap_or(at)
}

/// The labels by which a lease is found without reading it.
pub fn labels(claim: &Claim) -> BTreeMap<String, String> {
    [
        (MANAGED_BY, OPERATOR.to_owned()),
        (DYNAMIC_SECRET_LABEL, claim.dynamic_secret_uid.to_string()),
        (POOL_LABEL, claim.pool.uid.clone()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}
