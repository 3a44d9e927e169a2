//! The controller of dynamic secrets: observes, asks `plan::dynamic_secret`, and makes or ends leases.

mod observe;
mod rest;
mod restart;

use super::abandon::{self, Verdict};
use super::context::Context;
use super::hold::{Error, Halt, Hold};
use super::lease::until_then;
use super::making::{self, Basis};
use super::occupied::Waiter;
use super::report;
use super::servers;
use super::tasks::{Answer, ask};
use super::watches::LEASES;
use crate::api::conditions::Reason;
use crate::api::dynamic_secret::GroupRecord;
use crate::api::names::DYNAMIC_SECRET_FINALIZER;
use crate::api::{CredentialLease, DynamicSecret};
use crate::channel::frames::{Done, Group, Task};
use crate::cluster::{objects, server_record, status};
use crate::plan::dynamic_secret::{self as plan, Early, Step};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use observe::{Gathered, gather};
use rest::rest;
use std::sync::Arc;
use std::time::Duration;

/// How long an engine may take to drop a group.
const DROP_PATIENCE: Duration = Duration::from_secs(30);
/// Until the next look where an event is what is really waited for.
const BY_EVENT: Duration = Duration::from_mins(1);
/// Until the next look where this one was at an old view; the newer view usually comes sooner.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a pass waits for the cache of leases to be complete.
const FILLING: Duration = Duration::from_secs(10);
/// Until the next look while something is being taken back.
const SOON: Duration = Duration::from_secs(2);

/// One pass over one dynamic secret.
pub async fn reconcile(seen: Arc<DynamicSecret>, ctx: Arc<Context>) -> Result<Action, Error> {
    // What lives there lives to its end, and what is deleted is taken back. Nothing else: caches show no Secret of that
    // namespace, and each credential would look as if somebody had deleted it.
    if let Err(hold) = ctx.serves(&seen.namespace().unwrap_or_default())
        && seen.metadata.deletion_timestamp.is_none()
    {
        ctx.still_leading()?;
        report::owner_waits(&ctx, &seen, &hold).await?;
        return Ok(Action::await_change());
    }
    if !shows_leases(&ctx, &seen).await {
        return Ok(Action::requeue(AGAIN));
    }
    let mut gathered = gather(&ctx, &seen).await?;
    let now = ctx.now();
    // What was written is the newer view: other writes of this pass need not run into it.
    let written = restart::pursue(&ctx, &seen, &mut gathered, now).await?;
    let seen = written.map_or(seen, Arc::new);
    let step = plan::next(
        &gathered.observed(&seen, ctx.nudges.take(&seen.uid().unwrap_or_default())),
        now,
    );
    tracing::debug!(dynamic_secret = seen.name_any(), ?step, "step");
    act(&ctx, &seen, &gathered, step, now).await
}

/// Whether the cache can tell which leases there are. While it is still being filled after a start, a credential would look as
/// if it had ended, and be replaced. One that is deleted has its leases listed at the source.
async fn shows_leases(ctx: &Context, seen: &DynamicSecret) -> bool {
    if seen.metadata.deletion_timestamp.is_some() {
        return true;
    }
    let filled = ctx.stores.filled.with(&[LEASES]);
    tokio::time::timeout(FILLING, filled).await.is_ok()
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
            let observed = gathered.observed(seen, false);
            let basis = Basis {
                serial,
                delivered: observed.delivered_serial,
                current: plan::current(&observed).map(|lease| lease.serial),
            };
            make(ctx, seen, basis).await
        }
        Step::End { lease, why } => {
            // Said before the first lease goes: nobody may read Ready while credentials are taken back.
            if why == Early::OwnerDeleted {
                rest::leaving(ctx, seen, gathered).await?;
            }
            end(ctx, seen, &lease, why).await
        }
        Step::DropGroup { group } => drop_group(ctx, seen, &group).await,
        Step::Release => {
            objects::remove_finalizer(&ctx.client, seen, DYNAMIC_SECRET_FINALIZER).await?;
            ctx.told_no_more(&seen.uid().unwrap_or_default());
            Ok(Action::await_change())
        }
        Step::Wait { until, waiting } => rest(ctx, seen, gathered, until, waiting, now).await,
    }
}

async fn make(ctx: &Context, seen: &DynamicSecret, basis: Basis) -> Result<Action, Error> {
    match making::make(ctx, seen, basis).await {
        Ok(true) => Ok(Action::requeue(BY_EVENT)),
        // It was due, and still is: the next look must not wait for a backoff that this one had passed.
        Ok(false) => {
            ctx.nudges.nudge(&seen.uid().unwrap_or_default());
            Ok(Action::requeue(AGAIN))
        }
        Err(Halt::Error(error)) => {
            ctx.nudges.nudge(&seen.uid().unwrap_or_default());
            Err(error)
        }
        Err(Halt::Hold(hold)) if hold.reason == Reason::Deleting => Ok(Action::await_change()),
        // What an event ends is no failure: it costs nothing to wait for it. And a refusal that counts here but not in
        // `explain` would tell a stranger whether pool and base secret exist.
        Err(Halt::Hold(hold)) if matches!(hold.reason, Reason::WaitingForEngine | Reason::AccessDenied) => {
            report::owner_waits(ctx, seen, &hold).await?;
            Ok(Action::requeue(BY_EVENT))
        }
        Err(Halt::Hold(hold)) => {
            if matches!(hold.reason, Reason::TargetNotOurs | Reason::TargetShared) {
                ctx.await_place(Waiter::of_dynamic_secret(seen, making::target_name(seen)));
            }
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
    let Some(found) = servers::record(ctx, &record.server).await? else {
        let hold = Hold::new(
            Reason::BaseSecretMissing,
            format!(
                "server record {home}/{} is gone, so group role {name} cannot be dropped; restore it",
                record.server
            ),
        );
        report::owner_waits(ctx, seen, &hold).await?;
        return let_go_or_wait(ctx, seen, &record, &hold, BY_EVENT).await;
    };
    let claimed = crate::api::lease::ClaimedGroup {
        name: record.name.clone(),
        grants: record.grants.clone(),
        since: record.since.clone(),
    };
    let group = servers::group(ctx, &seen.uid().unwrap_or_default(), &claimed)?;
    ctx.servers.group_lost(&record.server, name);
    let pool = pool_of(ctx, seen, &record);
    match ask_to_drop(ctx, &pool, &found, group).await {
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
            let_go_or_wait(ctx, seen, &record, &hold, wait).await
        }
    }
}

async fn let_go_or_wait(
    ctx: &Context,
    seen: &DynamicSecret,
    record: &GroupRecord,
    hold: &Hold,
    wait: Duration,
) -> Result<Action, Error> {
    match abandon::group(ctx, seen, record, hold).await? {
        Verdict::Keep => Ok(Action::requeue(wait)),
        Verdict::NotYet(then) => Ok(Action::requeue(wait.min(until_then(ctx.now(), then)))),
        Verdict::LetGo => {
            forget_group(ctx, seen, record).await?;
            Ok(Action::requeue(Duration::ZERO))
        }
    }
}

/// Asks, and goes on with the keepers that the answer wants.
pub(super) async fn ask_to_drop(ctx: &Context, pool: &str, found: &server_record::Record, group: Group) -> Answer {
    let mut wanted = Vec::new();
    for _ in 0..=servers::KEEPER_ROUNDS {
        let keepers = match servers::keepers(ctx, &found.login.record, &wanted) {
            Ok(keepers) => keepers,
            Err(hold) => return Answer::NotAsked(hold),
        };
        let task = Task::DropGroup {
            server: found.login.clone(),
            installation: ctx.installation.id.clone(),
            signers: servers::signers_on(ctx, found),
            group: group.clone(),
            keepers,
        };
        match ask(ctx, pool, &found.login.record, task, DROP_PATIENCE).await {
            Answer::Done(_, Done::GroupNeedsKeepers { databases }) => wanted = databases,
            answer => return answer,
        }
    }
    let message = format!("group role {} owns something in many databases; it goes on", group.name);
    Answer::NotAsked(Hold::new(Reason::Revoking, message))
}

/// The pool whose engines reach a group's server: the one on the books, or, where that one is gone, the one of the name that
/// the spec has now.
fn pool_of(ctx: &Context, seen: &DynamicSecret, record: &GroupRecord) -> String {
    let known = |uid: &String| ctx.stores.pools.find(|pool| pool.uid().as_ref() == Some(uid)).is_some();
    if known(&record.pool) {
        return record.pool.clone();
    }
    let namespace = seen
        .spec
        .pool
        .namespace
        .clone()
        .or_else(|| seen.namespace())
        .unwrap_or_default();
    let named = ctx
        .stores
        .pools
        .get(&ObjectRef::new(&seen.spec.pool.name).within(&namespace));
    named.and_then(|pool| pool.uid()).unwrap_or_else(|| record.pool.clone())
}

async fn forget_group(ctx: &Context, seen: &DynamicSecret, record: &GroupRecord) -> Result<(), Error> {
    status::amend(&ctx.client, seen, |owner| {
        let groups = &mut owner.status.get_or_insert_default().groups;
        let before = groups.len();
        groups.retain(|g| g != record);
        groups.len() != before
    })
    .await?;
    // Perhaps that was the last role of ours on that server: then its record can go at once.
    ctx.audit.want_record(&record.server);
    Ok(())
}
