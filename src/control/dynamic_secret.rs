//! The controller of dynamic secrets: observes, asks `plan::dynamic_secret`, and makes or ends leases.

use super::context::Context;
use super::hold::{Error, Halt, Hold};
use super::lease::until_then;
use super::making;
use super::report;
use super::servers;
use super::tasks::{Answer, ask};
use crate::api::conditions::{self, READY, Reason};
use crate::api::dynamic_secret::{GroupRecord, Mode};
use crate::api::names::{DYNAMIC_SECRET_FINALIZER, DYNAMIC_SECRET_LABEL, LEASE_LABEL, ROTATE_AT, credential};
use crate::api::{CredentialLease, DynamicSecret, EnginePool};
use crate::channel::frames::{Done, Task};
use crate::cluster::{Intention, credential_secret, objects, server_record, status};
use crate::plan::dynamic_secret::{self as plan, Early, GroupSeen, LeaseSeen, Observed, Step, TargetSeen, Waiting};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ListParams;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use std::sync::Arc;
use std::time::Duration;

/// How long an engine may take to drop a group.
const DROP_PATIENCE: Duration = Duration::from_secs(30);
/// Until the next look where an event is what is really waited for.
const BY_EVENT: Duration = Duration::from_secs(60);
/// Until the next look while something is being taken back.
const SOON: Duration = Duration::from_secs(2);

/// One pass over one dynamic secret.
pub async fn reconcile(seen: Arc<DynamicSecret>, ctx: Arc<Context>) -> Result<Action, Error> {
    let gathered = gather(&ctx, &seen).await?;
    let now = ctx.now();
    let step = plan::next(
        &gathered.observed(&seen, ctx.nudges.take(&seen.uid().unwrap_or_default())),
        now,
    );
    tracing::debug!(dynamic_secret = seen.name_any(), ?step, "step");
    act(&ctx, &seen, &gathered, step, now).await
}

/// What was gathered for one decision.
struct Gathered {
    uid: String,
    leases: Vec<LeaseSeen>,
    groups: Vec<GroupSeen>,
    fingerprint: Option<String>,
    target: TargetSeen,
    namespace_going: bool,
    /// The rotate-at that the newest delivered lease was made for.
    answer: Option<String>,
}

impl Gathered {
    fn observed<'a>(&'a self, seen: &'a DynamicSecret, nudged: bool) -> Observed<'a> {
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
        }
    }
}

async fn gather(ctx: &Context, seen: &DynamicSecret) -> Result<Gathered, Error> {
    let uid = seen.uid().unwrap_or_default();
    let deleting = seen.metadata.deletion_timestamp.is_some();
    let objects = if deleting {
        listed_leases(ctx, seen, &uid).await?
    } else {
        cached_leases(ctx, seen, &uid)
    };
    let leases: Vec<LeaseSeen> = objects
        .iter()
        .filter_map(|lease| lease_seen(lease, ctx.now()))
        .collect();
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
        answer: answer(&objects),
        groups: groups.collect(),
        uid,
        leases,
        fingerprint,
        target,
        namespace_going,
    })
}

fn pool_leaves(ctx: &Context, uid: &str) -> bool {
    let leaves = |pool: &EnginePool| pool.uid().as_deref() == Some(uid) && pool.metadata.deletion_timestamp.is_some();
    !ctx.stores.pools.state_filter(leaves).is_empty()
}

fn cached_leases(ctx: &Context, seen: &DynamicSecret, uid: &str) -> Vec<Arc<CredentialLease>> {
    let namespace = seen.namespace();
    let of_owner = |lease: &CredentialLease| {
        lease.namespace() == namespace
            && lease
                .labels()
                .get(DYNAMIC_SECRET_LABEL)
                .is_some_and(|label| label == uid)
    };
    ctx.stores.leases.state_filter(of_owner)
}

/// The rotate-at that the newest delivered lease was made for.
fn answer(leases: &[Arc<CredentialLease>]) -> Option<String> {
    let issued = |lease: &CredentialLease| lease.status.as_ref().is_some_and(|s| s.issued_at.is_some());
    let serial = |lease: &CredentialLease| lease.claim().map_or(0, |claim| claim.serial);
    let newest = leases
        .iter()
        .filter(|lease| issued(lease) && serial(lease) > 0)
        .max_by_key(|lease| serial(lease))?;
    newest.annotations().get(ROTATE_AT).cloned()
}

/// Before groups are dropped and the books are closed, leases are listed at the source: a cache may be old.
async fn listed_leases(ctx: &Context, seen: &DynamicSecret, uid: &str) -> Result<Vec<Arc<CredentialLease>>, Error> {
    let namespace = seen.namespace().unwrap_or_default();
    let api: Api<CredentialLease> = Api::namespaced(ctx.client.clone(), &namespace);
    let params = ListParams::default().labels(&format!("{DYNAMIC_SECRET_LABEL}={uid}"));
    let list = api
        .list(&params)
        .await
        .to(|| format!("list the leases of {namespace}/{}", seen.name_any()))?;
    Ok(list.items.into_iter().map(Arc::new).collect())
}

fn lease_seen(lease: &CredentialLease, now: Timestamp) -> Option<LeaseSeen> {
    let claim = lease.claim()?;
    let status = lease.status.as_ref();
    Some(LeaseSeen {
        name: lease.name_any(),
        serial: claim.serial,
        issued_at: status.and_then(|s| s.issued_at.as_ref()).map(|at| at.0),
        expires_at: Some(claim.expires_at.0),
        ending: lease.metadata.deletion_timestamp.is_some() || now >= claim.expires_at.0,
        fingerprint: claim.fingerprint.clone(),
        ttl_seconds: claim.ttl_seconds,
        group: claim.group.name.clone(),
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
    let Ok(grants) = making::completed_grants(seen, &base.database) else {
        return Ok((None, None));
    };
    let group = making::group_name(&ctx.installation.id, uid, &grants);
    let print = making::fingerprint(
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
    if let Some(meta) = cached.filter(|meta| meta.labels().get(LEASE_LABEL) == Some(&uid)) {
        let version = meta.metadata.resource_version.clone().unwrap_or_default();
        let delivered = lease_status.and_then(|s| s.secret_version.clone());
        if delivered.as_ref() == Some(&version) || ctx.intact(&uid, &version) {
            return Ok(TargetSeen::Intact);
        }
        if credential_secret::is_intact(&ctx.client, &namespace, &target, &ctx.installation.hash_key).await? {
            ctx.note_intact(&uid, &version);
            return Ok(TargetSeen::Intact);
        }
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

async fn act(
    ctx: &Context,
    seen: &DynamicSecret,
    gathered: &Gathered,
    step: Step,
    now: Timestamp,
) -> Result<Action, Error> {
    ctx.still_leading()?;
    match step {
        Step::AddFinalizer => {
            objects::add_finalizer(&ctx.client, seen, DYNAMIC_SECRET_FINALIZER).await?;
            Ok(Action::await_change())
        }
        Step::Make { serial, need } => {
            tracing::info!(dynamic_secret = seen.name_any(), serial, ?need, "making a lease");
            make(ctx, seen, serial).await
        }
        Step::End { lease, why } => end(ctx, seen, &lease, why).await,
        Step::DropGroup { group } => drop_group(ctx, seen, &group).await,
        Step::Release => {
            objects::remove_finalizer(&ctx.client, seen, DYNAMIC_SECRET_FINALIZER).await?;
            ctx.told_no_more(&seen.uid().unwrap_or_default());
            Ok(Action::await_change())
        }
        Step::Wait { until, waiting } => rest(ctx, seen, gathered, until, waiting, now).await,
    }
}

async fn make(ctx: &Context, seen: &DynamicSecret, serial: i64) -> Result<Action, Error> {
    match making::make(ctx, seen, serial).await {
        Ok(true) => Ok(Action::requeue(BY_EVENT)),
        Ok(false) => Ok(Action::requeue(SOON)),
        Err(Halt::Error(error)) => Err(error),
        Err(Halt::Hold(hold)) if hold.reason == Reason::Deleting => Ok(Action::await_change()),
        // What an event ends is no failure: it costs nothing to wait for it.
        Err(Halt::Hold(hold)) if hold.reason == Reason::WaitingForEngine => {
            report::owner_waits(ctx, seen, &hold).await?;
            Ok(Action::requeue(BY_EVENT))
        }
        Err(Halt::Hold(hold)) => {
            report::count_failure(ctx, seen, &hold).await?;
            Ok(Action::await_change())
        }
    }
}

async fn end(ctx: &Context, seen: &DynamicSecret, lease: &str, why: Early) -> Result<Action, Error> {
    let namespace = seen.namespace().unwrap_or_default();
    let found: Option<CredentialLease> = objects::read(&ctx.client, &namespace, lease).await?;
    let Some(found) = found else {
        return Ok(Action::requeue(SOON));
    };
    let uid = found.uid().unwrap_or_default();
    if found.metadata.deletion_timestamp.is_none() {
        tracing::info!(lease, ?why, "ending a lease");
        ctx.endings.note(&uid, why);
        objects::delete(&ctx.client, &found).await?;
    }
    Ok(Action::requeue(SOON))
}

async fn drop_group(ctx: &Context, seen: &DynamicSecret, name: &str) -> Result<Action, Error> {
    let Some(record) = seen
        .status
        .iter()
        .flat_map(|s| &s.groups)
        .find(|g| g.name == name)
        .cloned()
    else {
        return Ok(Action::requeue(SOON));
    };
    let home = &ctx.settings.home;
    let Some(server) = server_record::login(&ctx.client, home, &record.server).await? else {
        let hold = Hold::new(
            Reason::BaseSecretMissing,
            format!(
                "server record {home}/{} is gone, so group role {name} cannot be dropped; restore it",
                record.server
            ),
        );
        report::owner_waits(ctx, seen, &hold).await?;
        return Ok(Action::requeue(BY_EVENT));
    };
    let claimed = crate::api::lease::ClaimedGroup {
        name: record.name.clone(),
        grants: record.grants.clone(),
        since: record.since.clone(),
    };
    let group = servers::group(ctx, &seen.uid().unwrap_or_default(), &claimed)?;
    ctx.servers.group_lost(&record.server, name);
    let task = Task::DropGroup {
        server,
        signers: servers::signers(ctx),
        group,
    };
    match ask(ctx, &record.pool, &record.server, task, DROP_PATIENCE).await {
        Answer::Done(_, Done::GroupDropped) => {
            forget_group(ctx, seen, &record).await?;
            Ok(Action::requeue(Duration::ZERO))
        }
        other => {
            let hold = other.hold();
            let wait = if hold.reason == Reason::WaitingForEngine {
                BY_EVENT
            } else {
                SOON * 5
            };
            if seen.metadata.deletion_timestamp.is_some() {
                report::owner_waits(ctx, seen, &hold).await?;
            }
            Ok(Action::requeue(wait))
        }
    }
}

async fn forget_group(ctx: &Context, seen: &DynamicSecret, record: &GroupRecord) -> Result<(), Error> {
    status::amend(&ctx.client, seen, |owner| {
        let groups = &mut owner.status.get_or_insert_default().groups;
        let before = groups.len();
        groups.retain(|g| g != record);
        groups.len() != before
    })
    .await?;
    Ok(())
}

async fn rest(
    ctx: &Context,
    seen: &DynamicSecret,
    gathered: &Gathered,
    until: Option<Timestamp>,
    waiting: Waiting,
    now: Timestamp,
) -> Result<Action, Error> {
    let mut wake = until.map(|until| until_then(now, until));
    match waiting {
        Waiting::Valid => {
            let soon = write_valid(ctx, seen, gathered, now).await?;
            wake = [wake, soon].into_iter().flatten().min();
        }
        Waiting::Ended => ended(ctx, seen).await?,
        Waiting::Asking => {
            let hold = Hold::new(Reason::OnDemand, "leases can be asked for: create a CredentialLease");
            report::owner_waits(ctx, seen, &hold).await?;
        }
        Waiting::Suspended => suspended(ctx, seen, gathered, now).await?,
        // The reason is found out by trying: the same checks as for making say it in words.
        Waiting::Unclear => return explain(ctx, seen).await,
        Waiting::Revoking => wake = Some(wake.unwrap_or(SOON).min(SOON)),
        Waiting::Issuing | Waiting::Backoff => {}
    }
    Ok(wake.map_or_else(|| Action::requeue(BY_EVENT * 5), Action::requeue))
}

async fn ended(ctx: &Context, seen: &DynamicSecret) -> Result<(), Error> {
    let status = seen.status.as_ref();
    let said = status.and_then(|s| conditions::find(&s.conditions, READY));
    let known = [
        Reason::Expired,
        Reason::TargetDeleted,
        Reason::TargetEdited,
        Reason::TargetReleased,
        Reason::Revoking,
    ];
    if said.is_some_and(|c| known.iter().any(|r| r.as_str() == c.reason))
        && status.and_then(|s| s.observed_generation) == seen.metadata.generation
    {
        return Ok(());
    }
    let why = status.and_then(|s| s.history.first()).map(|record| record.why.as_str());
    let early = match why {
        Some("TargetDeleted") => Some(Early::TargetDeleted),
        Some("TargetEdited") => Some(Early::TargetEdited),
        Some("TargetReleased") => Some(Early::TargetReleased),
        Some("Deleted" | "Rotated" | "OwnerDeleted") => Some(Early::Rotated),
        _ => None,
    };
    let (reason, message) = report::once_over(early);
    report::owner_waits(ctx, seen, &Hold::new(reason, message)).await
}

async fn suspended(ctx: &Context, seen: &DynamicSecret, gathered: &Gathered, now: Timestamp) -> Result<(), Error> {
    if gathered
        .leases
        .iter()
        .any(|l| l.serial > 0 && l.issued_at.is_some() && !l.ending)
    {
        write_valid(ctx, seen, gathered, now).await?;
        return Ok(());
    }
    let hold = Hold::new(
        Reason::Suspended,
        "issuing is suspended; it goes on when spec.suspend is taken off",
    );
    report::owner_waits(ctx, seen, &hold).await
}

async fn explain(ctx: &Context, seen: &DynamicSecret) -> Result<Action, Error> {
    match making::prepare(ctx, seen, None).await {
        // It can be told now: the caches are a moment behind.
        Ok(_) => Ok(Action::requeue(Duration::from_millis(500))),
        Err(Halt::Hold(hold)) => {
            report::owner_waits(ctx, seen, &hold).await?;
            Ok(Action::requeue(BY_EVENT))
        }
        Err(Halt::Error(error)) => Err(error),
    }
}

/// Writes what the newest delivered lease is. Returns when `ExpiresSoon` is to be told (mode Once).
async fn write_valid(
    ctx: &Context,
    seen: &DynamicSecret,
    gathered: &Gathered,
    now: Timestamp,
) -> Result<Option<Duration>, Error> {
    let observed = gathered.observed(seen, false);
    let Some(current) = plan::current(&observed) else {
        return Ok(None);
    };
    let renew_at = plan::renew_at(&observed, current);
    let namespace = seen.namespace().unwrap_or_default();
    let Some(lease) = ctx.stores.leases.get(&ObjectRef::new(&current.name).within(&namespace)) else {
        return Ok(None);
    };
    let rotate_at = lease.annotations().get(ROTATE_AT).cloned();
    let message = match seen.spec.mode() {
        Mode::Rotate => "a fresh credential is in the Secret",
        _ => "the credential is in the Secret",
    };
    status::amend(&ctx.client, seen, |owner| {
        let generation = owner.metadata.generation;
        let status = owner.status.get_or_insert_default();
        let before = status.clone();
        let of_lease = lease.status.as_ref();
        status.observed_generation = generation;
        status.last_serial = Some(status.last_serial.unwrap_or(0).max(current.serial));
        status.delivered_serial = Some(current.serial);
        status.delivered_for = Some(current.fingerprint.clone());
        status.delivered_ttl = Some(current.ttl_seconds);
        status.username = of_lease.and_then(|s| s.username.clone());
        status.issued_by = of_lease.and_then(|s| s.issued_by.clone());
        status.issued_at = current.issued_at.map(Time);
        status.expires_at = current.expires_at.map(Time);
        status.renew_at = renew_at.map(Time);
        if rotate_at.is_some() && answers(&before.delivered_serial, current.serial) {
            status.answered_rotate_at.clone_from(&rotate_at);
        }
        (status.failures, status.last_failure, status.failed_generation) = (None, None, None);
        conditions::set_ready(&mut status.conditions, Reason::Issued, message, generation, now);
        *status != before
    })
    .await?;
    expires_soon(ctx, seen, current, now).await
}

/// A newly delivered serial answers the rotate-at that it was made for.
fn answers(before: &Option<i64>, serial: i64) -> bool {
    before.unwrap_or(0) < serial
}

/// In mode Once nothing follows, so at 80 % of the ttl an Event says that the end is near.
async fn expires_soon(
    ctx: &Context,
    seen: &DynamicSecret,
    lease: &LeaseSeen,
    now: Timestamp,
) -> Result<Option<Duration>, Error> {
    let (Mode::Once, Some(expires)) = (seen.spec.mode(), lease.expires_at) else {
        return Ok(None);
    };
    let fifth = SignedDuration::from_secs(lease.ttl_seconds) / 5;
    let at = expires.saturating_sub(fifth).unwrap_or(expires);
    if now < at {
        return Ok(Some(until_then(now, at)));
    }
    let note = format!(
        "the credential ends at {}; for another one set the annotation {ROTATE_AT}",
        credential_secret::whole_seconds(expires)
    );
    ctx.tell(seen, Reason::ExpiresSoon, &note, EventType::Normal).await;
    Ok(None)
}
