//! Restarting workloads for the current credential, and finding out which replaced accounts somebody may still need. What is
//! to be done is decided in `plan::restart`.
//!
//! Nothing here holds up a rotation: what could not be done or seen is told, and looked at again.

use super::observe::Gathered;
use crate::api::conditions::{self, RESTARTED, Reason, ReasonKind};
use crate::api::dynamic_secret::RestartRecord;
use crate::api::names::{restarted_for, role_name};
use crate::api::target::WorkloadReference;
use crate::api::{CredentialLease, DynamicSecret};
use crate::channel::frames::{Done, Task};
use crate::cluster::{credential_secret, status, workload};
use crate::control::context::Context;
use crate::control::hold::Error;
use crate::control::servers;
use crate::control::tasks::{Answer, ask};
use crate::plan::dynamic_secret::{self as plan, LeaseSeen};
use crate::plan::restart::{Asked, Look, State, judge, tell};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use std::time::Duration;

/// Until the next look at a rollout, or at the sessions of a replaced account.
const ROLLING: SignedDuration = SignedDuration::from_secs(5);
/// Until the next look at what waits for a person.
const STOPPED: SignedDuration = SignedDuration::from_mins(1);
/// How long an engine may take to count sessions.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is told of restarts; once each, until all is well.
const TOLD: [Reason; 4] = [
    Reason::RestartForbidden,
    Reason::RestartNotAllowed,
    Reason::RestartPaused,
    Reason::WorkloadMissing,
];

/// Restarts what is due, and notes in `gathered` which replaced accounts may still be needed and when to look again. Returns
/// the dynamic secret if its status was written.
pub(super) async fn pursue(
    ctx: &Context,
    seen: &DynamicSecret,
    gathered: &mut Gathered,
    now: Timestamp,
) -> Result<Option<DynamicSecret>, Error> {
    if seen.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    if seen.spec.restart().is_empty() {
        return forget(ctx, seen).await;
    }
    let observed = gathered.observed(seen, false);
    let Some(current) = plan::current(&observed) else {
        return Ok(None);
    };
    let delivered_at = current.issued_at.unwrap_or(now);
    let asked = Asked {
        revision: &current.name,
        delivered_at,
        first: is_first(seen, &gathered.leases, current),
    };
    let states = states(ctx, seen, &asked).await?;
    let held = states.iter().any(|(_, state)| state.holds());
    let over = plan::overlap_ends(&observed, current).is_some_and(|at| now >= at);
    let mut in_use: Vec<(String, Timestamp)> = Vec::new();
    for lease in plan::replaced(&observed) {
        if held || (over && has_sessions(ctx, seen, &lease.name).await) {
            in_use.push((lease.name.clone(), lease.expires_at.unwrap_or(now)));
        }
    }
    let revision = current.name.clone();
    gathered.restarts_due = due(&states, held, &in_use, now);
    for lease in &mut gathered.leases {
        lease.in_use = in_use.iter().any(|(name, _)| *name == lease.name);
    }
    let until = in_use.iter().map(|(_, until)| *until).max();
    say(ctx, seen, &revision, &states, until.filter(|_| !held), now).await
}

/// Whether nothing was delivered before this lease.
fn is_first(seen: &DynamicSecret, leases: &[LeaseSeen], current: &LeaseSeen) -> bool {
    let history = seen.status.iter().flat_map(|status| &status.history);
    let mut earlier = history.filter(|record| record.serial > 0 && record.issued_at.is_some());
    let beside = |lease: &LeaseSeen| lease.serial > 0 && lease.issued_at.is_some() && lease.name != current.name;
    earlier.next().is_none() && !leases.iter().any(beside)
}

/// Looks at every workload, unless the books say that all of it is done, and restarts those that are due.
async fn states(
    ctx: &Context,
    seen: &DynamicSecret,
    asked: &Asked<'_>,
) -> Result<Vec<(WorkloadReference, State)>, Error> {
    let namespace = seen.namespace().unwrap_or_default();
    let annotation = restarted_for(&seen.name_any());
    let mut states = Vec::new();
    for workload in seen.spec.restart() {
        let record = record_of(seen, workload).filter(|record| record.revision == asked.revision);
        if record.is_some_and(|record| record.complete) {
            states.push((workload.clone(), State::Complete));
            continue;
        }
        let look = workload::look(&ctx.client, &namespace, workload, &annotation).await;
        let mut state = judge(&look, asked, record.is_some());
        if state == State::Due {
            ctx.still_leading()?;
            state = restart(ctx, seen, workload, &annotation, asked).await;
        }
        states.push((workload.clone(), state));
    }
    Ok(states)
}

fn record_of<'a>(seen: &'a DynamicSecret, workload: &WorkloadReference) -> Option<&'a RestartRecord> {
    let mut records = seen.status.iter().flat_map(|status| &status.restarts);
    records.find(|record| record.kind == workload.kind && record.name == workload.name)
}

async fn restart(
    ctx: &Context,
    seen: &DynamicSecret,
    workload: &WorkloadReference,
    annotation: &str,
    asked: &Asked<'_>,
) -> State {
    let namespace = seen.namespace().unwrap_or_default();
    let done = workload::restart(&ctx.client, &namespace, workload, annotation, asked.revision).await;
    match done {
        Ok(()) => {
            let (kind, name) = (workload.kind.as_str(), &workload.name);
            tracing::info!(
                dynamic_secret = seen.name_any(),
                kind,
                name,
                revision = asked.revision,
                "restarted"
            );
            let note = format!(
                "{kind} {name} is restarted for the credential of lease {}",
                asked.revision
            );
            ctx.announce(seen, Reason::RollingOut, &note, EventType::Normal).await;
            State::Restarted
        }
        Err(error) => match workload::failed(&error) {
            Look::Forbidden(why) => State::Forbidden(why),
            Look::Missing => State::Missing,
            _ => State::Unknown,
        },
    }
}

/// Whether an account has sessions. Who cannot be asked is taken to have some: the lease's own end is near enough.
async fn has_sessions(ctx: &Context, seen: &DynamicSecret, lease: &str) -> bool {
    let namespace = seen.namespace().unwrap_or_default();
    let Some(lease) = ctx.stores.leases.get(&ObjectRef::new(lease).within(&namespace)) else {
        return true;
    };
    match sessions(ctx, &lease).await {
        Some(count) => count > 0,
        None => true,
    }
}

async fn sessions(ctx: &Context, lease: &CredentialLease) -> Option<u64> {
    let claim = lease.claim()?;
    let role = role_name(&claim.user_prefix, &lease.spec.dynamic_secret, &lease.uid()?)?;
    let server = servers::login(ctx, &claim.server).await.ok()??;
    let task = Task::Sessions { server, role };
    match ask(ctx, &ctx.pool_uid(&claim.pool), &claim.server, task, PATIENCE).await {
        Answer::Done(_, Done::Sessions { count }) => Some(count),
        other => {
            let why = other.hold();
            tracing::debug!(
                lease = lease.name_any(),
                message = why.message,
                "sessions could not be counted"
            );
            None
        }
    }
}

fn due(
    states: &[(WorkloadReference, State)],
    held: bool,
    in_use: &[(String, Timestamp)],
    now: Timestamp,
) -> Option<Timestamp> {
    let rolls = |state: &State| matches!(state, State::Restarted | State::RollingOut(..) | State::Unknown);
    let pause = if states.iter().any(|(_, state)| rolls(state)) || (!held && !in_use.is_empty()) {
        ROLLING
    } else if states.iter().any(|(_, state)| *state != State::Complete) {
        STOPPED
    } else {
        return None;
    };
    now.saturating_add(pause).ok()
}

/// Writes what was done, and how it stands. `until`: accounts that were replaced have sessions, and live on until then at most.
async fn say(
    ctx: &Context,
    seen: &DynamicSecret,
    revision: &str,
    all: &[(WorkloadReference, State)],
    until: Option<Timestamp>,
    now: Timestamp,
) -> Result<Option<DynamicSecret>, Error> {
    let (reason, mut message) = tell(all);
    if let Some(until) = until {
        let end = credential_secret::whole_seconds(until);
        message = format!(
            "{message}; the replaced account has sessions and ends with the last of them, at {end} at the latest"
        );
    }
    let records: Vec<RestartRecord> = all
        .iter()
        .filter_map(|(workload, state)| record(seen, revision, workload, state))
        .collect();
    let written = status::amend(&ctx.client, seen, |owner| {
        let generation = owner.metadata.generation;
        let status = owner.status.get_or_insert_default();
        let before = status.clone();
        status.restarts.clone_from(&records);
        let good = if reason.kind() == ReasonKind::Good {
            "True"
        } else {
            "False"
        };
        conditions::set(
            &mut status.conditions,
            RESTARTED,
            good,
            reason,
            &message,
            generation,
            now,
        );
        *status != before
    })
    .await?;
    if TOLD.contains(&reason) {
        ctx.tell(seen, reason, &message, EventType::Warning).await;
    } else if reason == Reason::RolledOut {
        ctx.told.forget_some(&seen.uid().unwrap_or_default(), &TOLD);
    }
    Ok(written)
}

/// What the books say from now on; nothing of a workload that was not restarted and has to be.
fn record(seen: &DynamicSecret, revision: &str, workload: &WorkloadReference, state: &State) -> Option<RestartRecord> {
    let known = record_of(seen, workload).is_some_and(|record| record.revision == revision);
    let restarted = matches!(state, State::Restarted | State::RollingOut(..) | State::Complete);
    (known || restarted).then(|| RestartRecord {
        kind: workload.kind,
        name: workload.name.clone(),
        revision: revision.to_owned(),
        complete: *state == State::Complete,
    })
}

/// Nothing is to be restarted (any more).
async fn forget(ctx: &Context, seen: &DynamicSecret) -> Result<Option<DynamicSecret>, Error> {
    let said = seen.status.as_ref();
    let nothing = said.is_none_or(|s| s.restarts.is_empty() && conditions::find(&s.conditions, RESTARTED).is_none());
    if nothing {
        return Ok(None);
    }
    let written = status::amend(&ctx.client, seen, |owner| {
        let status = owner.status.get_or_insert_default();
        status.restarts.clear();
        status.conditions.retain(|condition| condition.type_ != RESTARTED);
        true
    });
    Ok(written.await?)
}
