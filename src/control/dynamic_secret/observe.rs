//! Observing a dynamic secret: from the caches as far as they tell, from the API server where it matters.

use crate::api::names::{DYNAMIC_SECRET_FINALIZER, DYNAMIC_SECRET_LABEL, LEASE_LABEL, ROTATE_AT, credential};
use crate::api::{CredentialLease, DynamicSecret, EnginePool};
use crate::cluster::{Intention, Parts, credential_secret};
use crate::control::context::Context;
use crate::control::hold::Error;
use crate::control::{prepare, servers};
use crate::plan::dynamic_secret::{GroupSeen, LeaseSeen, Observed, TargetSeen};
use jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use std::sync::Arc;
use std::time::Duration;

/// What was gathered for one decision.
pub(super) struct Gathered {
    pub(super) uid: String,
    pub(super) leases: Vec<LeaseSeen>,
    groups: Vec<GroupSeen>,
    fingerprint: Option<String>,
    target: TargetSeen,
    namespace_going: bool,
    /// When workloads that are restarted are looked at again.
    pub(super) restarts_due: Option<Timestamp>,
    /// The rotate-at that the newest delivered lease was made for.
    answer: Option<String>,
}

impl Gathered {
    pub(super) fn observed<'a>(&'a self, seen: &'a DynamicSecret, nudged: bool) -> Observed<'a> {
        let status = seen.status.as_ref();
        let span = |length: Duration| SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
        let stale_failures = status.and_then(|s| s.failed_generation) != seen.metadata.generation;
        let failures = if nudged || stale_failures {
            0
        } else {
            status.and_then(|s| s.failures).unwrap_or(0)
        };
        let delivered = status.and_then(|s| s.delivered_serial).unwrap_or(0);
        let issued = self
            .leases
            .iter()
            .filter(|l| l.issued_at.is_some())
            .map(|l| l.serial)
            .max()
            .unwrap_or(0);
        Observed {
            uid: &self.uid,
            deleting: seen.metadata.deletion_timestamp.is_some(),
            namespace_going: self.namespace_going,
            deletion_policy: seen.spec.deletion_policy.unwrap_or_default(),
            finalizer: seen.finalizers().iter().any(|f| f == DYNAMIC_SECRET_FINALIZER),
            suspended: seen.spec.suspend == Some(true),
            mode: seen.spec.mode(),
            ttl: span(seen.spec.ttl.length().unwrap_or_default()),
            renew_before: span(seen.spec.renew_before()),
            overlap: span(seen.spec.overlap()),
            fingerprint: self.fingerprint.as_deref(),
            rotate_at: seen.annotations().get(ROTATE_AT).map(String::as_str),
            // A delivered serial that the status does not name yet has answered what it was made for, and nothing later.
            answered: self
                .answer
                .as_deref()
                .filter(|_| issued > delivered)
                .or_else(|| status.and_then(|s| s.answered_rotate_at.as_deref())),
            last_serial: status.and_then(|s| s.last_serial).unwrap_or(0),
            delivered_serial: delivered.max(issued),
            leases: &self.leases,
            target: self.target,
            failures,
            last_failure: status
                .and_then(|s| s.last_failure.as_ref())
                .map(|at| at.0)
                .filter(|_| failures > 0),
            groups: &self.groups,
            restarts_due: self.restarts_due,
        }
    }
}

/// Gathers what one decision needs.
pub(super) async fn gather(ctx: &Context, seen: &DynamicSecret) -> Result<Gathered, Error> {
    let uid = seen.uid().unwrap_or_default();
    let deleting = seen.metadata.deletion_timestamp.is_some();
    let mut noted = Noted::default();
    for lease in cached_leases(ctx, seen, &uid) {
        noted.note(&lease, ctx.now());
    }
    if deleting && noted.leases.is_empty() {
        note_listed(ctx, seen, &uid, &mut noted).await?;
    }
    let Noted { leases, answer, .. } = noted;
    let (fingerprint, current_group) = fingerprint(ctx, seen, &uid).await?;
    let recorded = seen.status.iter().flat_map(|s| &s.groups);
    let groups = recorded.map(|g| GroupSeen {
        name: g.name.clone(),
        current: current_group.as_ref() == Some(&g.name),
        leaving: pool_leaves(ctx, &g.pool),
    });
    let target = target_seen(ctx, seen, &leases).await?;
    let namespace_going = deleting && namespace_is_going(ctx, seen).await?;
    Ok(Gathered {
        answer,
        groups: groups.collect(),
        uid,
        leases,
        fingerprint,
        target,
        namespace_going,
        restarts_due: None,
    })
}

fn pool_leaves(ctx: &Context, uid: &str) -> bool {
    let leaves = |pool: &EnginePool| pool.uid().as_deref() == Some(uid) && pool.metadata.deletion_timestamp.is_some();
    !ctx.stores.pools.state_filter(leaves).is_empty()
}

fn cached_leases(ctx: &Context, seen: &DynamicSecret, uid: &str) -> Vec<Arc<CredentialLease>> {
    let namespace = seen.namespace().unwrap_or_default();
    ctx.stores.lease_index.owned(&ctx.stores.leases, &namespace, uid)
}

/// What is noted of leases, one after the other.
#[derive(Default)]
struct Noted {
    leases: Vec<LeaseSeen>,
    /// The highest serial that was delivered.
    newest: i64,
    /// The rotate-at that this one was made for.
    answer: Option<String>,
}

impl Noted {
    fn note(&mut self, lease: &CredentialLease, now: Timestamp) {
        let Some(seen) = lease_seen(lease, now) else { return };
        if seen.issued_at.is_some() && seen.serial > self.newest {
            self.newest = seen.serial;
            self.answer = lease.annotations().get(ROTATE_AT).cloned();
        }
        self.leases.push(seen);
    }
}

/// As long as the cache shows leases of a dynamic secret that is deleted, it waits for them. That there are none is only
/// believed at the source: a cache may be old, and then groups are dropped and the books are closed.
async fn note_listed(ctx: &Context, seen: &DynamicSecret, uid: &str, noted: &mut Noted) -> Result<(), Error> {
    let namespace = seen.namespace().unwrap_or_default();
    let api: Api<CredentialLease> = Api::namespaced(ctx.client.clone(), &namespace);
    let params = ListParams::default().labels(&format!("{DYNAMIC_SECRET_LABEL}={uid}"));
    let mut leases = Parts::of(api, params);
    while let Some(part) = leases
        .next()
        .await
        .to(|| format!("list the leases of {namespace}/{}", seen.name_any()))?
    {
        for lease in &part {
            noted.note(lease, ctx.now());
        }
    }
    Ok(())
}

fn lease_seen(lease: &CredentialLease, now: Timestamp) -> Option<LeaseSeen> {
    let claim = lease.claim()?;
    let status = lease.status.as_ref();
    let reported = status.is_some_and(|s| s.issued_at.is_some());
    Some(LeaseSeen {
        name: lease.name_any(),
        serial: claim.serial,
        issued_at: status.and_then(|s| s.issued_at.as_ref()).map(|at| at.0),
        expires_at: Some(claim.expires_at.0),
        // One that is over but was never reported may still turn out to have been delivered.
        ending: lease.metadata.deletion_timestamp.is_some() || (reported && now >= claim.expires_at.0),
        fingerprint: claim.fingerprint.to_string(),
        ttl_seconds: claim.ttl_seconds,
        group: claim.group.name.clone(),
        in_use: false,
    })
}

/// Fingerprint and group of a credential that would be issued now; none where pool or base secret cannot be read.
async fn fingerprint(
    ctx: &Context,
    seen: &DynamicSecret,
    uid: &str,
) -> Result<(Option<String>, Option<String>), Error> {
    let namespace = seen
        .spec
        .pool
        .namespace
        .clone()
        .or_else(|| seen.namespace())
        .unwrap_or_default();
    let Some(pool) = ctx
        .stores
        .pools
        .get(&ObjectRef::new(&seen.spec.pool.name).within(&namespace))
    else {
        return Ok((None, None));
    };
    let base = servers::identity(ctx, &namespace, &seen.spec.link_config.linked_secret).await?;
    let Some(base) = base else { return Ok((None, None)) };
    let Ok(grants) = prepare::completed_grants(seen, &base.database) else {
        return Ok((None, None));
    };
    let group = prepare::group_name(&ctx.installation.id, uid, &grants);
    let print = prepare::fingerprint(
        &base.record,
        &pool.uid().unwrap_or_default(),
        &group,
        seen.spec.prefix(),
    );
    Ok((Some(print), Some(group)))
}

/// The target Secret against the newest delivered lease. The cache shows metadata of Secrets with our label; only where
/// it differs from what is expected are the Secret itself and its data looked at.
async fn target_seen(ctx: &Context, seen: &DynamicSecret, leases: &[LeaseSeen]) -> Result<TargetSeen, Error> {
    let newest = leases
        .iter()
        .filter(|l| l.serial > 0 && l.issued_at.is_some() && !l.ending)
        .max_by_key(|l| l.serial);
    let Some(newest) = newest else {
        return Ok(TargetSeen::Intact);
    };
    let namespace = seen.namespace().unwrap_or_default();
    let lease = ctx.stores.leases.get(&ObjectRef::new(&newest.name).within(&namespace));
    let Some(target) = lease.as_ref().and_then(|l| l.claim()?.target.clone()) else {
        return Ok(TargetSeen::Intact);
    };
    let uid = lease.as_ref().and_then(|l| l.uid()).unwrap_or_default();
    let lease_status = lease.as_ref().and_then(|l| l.status.as_ref());
    let cached = ctx.stores.credentials.get(&ObjectRef::new(&target).within(&namespace));
    if let Some(secret) = cached.filter(|secret| secret.lease_uid.as_deref() == Some(&uid)) {
        let version = secret.version.to_string();
        let delivered = lease_status.and_then(|s| s.secret_version.clone());
        if delivered.as_ref() == Some(&version) || ctx.intact(&uid, &version) {
            return Ok(TargetSeen::Intact);
        }
        if credential_secret::is_intact(&ctx.client, &namespace, &target, &ctx.installation.hash_key).await? {
            ctx.note_intact(&uid, &version);
            return Ok(TargetSeen::Intact);
        }
    }
    if ctx.serves(&namespace).is_err() {
        return Ok(TargetSeen::Intact);
    }
    let live = credential_secret::look(&ctx.client, &namespace, &target).await?;
    let Some(live) = live else {
        return Ok(TargetSeen::Absent);
    };
    if live.annotations().get(credential::LEASE_UID) != Some(&uid) {
        // A later lease of ours, or somebody else's Secret in its place.
        let ours = live.annotations().get(credential::DYNAMIC_SECRET_UID).cloned() == seen.uid();
        return Ok(if ours && live.labels().contains_key(LEASE_LABEL) {
            TargetSeen::Intact
        } else {
            TargetSeen::Released
        });
    }
    if live.labels().get(LEASE_LABEL) != Some(&uid) {
        return Ok(TargetSeen::Released);
    }
    let intact = credential_secret::is_intact(&ctx.client, &namespace, &target, &ctx.installation.hash_key).await?;
    Ok(if intact { TargetSeen::Intact } else { TargetSeen::Edited })
}

async fn namespace_is_going(ctx: &Context, seen: &DynamicSecret) -> Result<bool, Error> {
    let name = seen.namespace().unwrap_or_default();
    let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(ctx.client.clone());
    let found = api.get_opt(&name).await.to(|| format!("read namespace {name}"))?;
    Ok(found.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}
