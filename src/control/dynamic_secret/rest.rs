//! A dynamic secret at rest: what its status says while nothing is to be done.

use super::observe::Gathered;
use super::{AGAIN, BY_EVENT, SOON};
use crate::api::conditions::{self, READY, Reason};
use crate::api::dynamic_secret::{DeletionPolicy, Mode, SecretReference};
use crate::api::lease::Phase;
use crate::api::names::{DYNAMIC_SECRET_FINALIZER, ROTATE_AT};
use crate::api::{CredentialLease, DynamicSecret};
use crate::cluster::{credential_secret, status};
use crate::control::context::Context;
use crate::control::hold::{Error, Halt, Hold};
use crate::control::lease::until_then;
use crate::control::{prepare, report};
use crate::plan::dynamic_secret::{self as plan, Early, LeaseSeen, Waiting};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use std::time::Duration;

/// Nothing is to be done: says what is, and when to look again.
pub(super) async fn rest(
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
        // What is left is told by the leases' own changes; each look lists them at the source.
        Waiting::Revoking | Waiting::LettingExpire if seen.metadata.deletion_timestamp.is_some() => {
            leaving(ctx, seen, gathered).await?;
            return Ok(Action::requeue(wake.unwrap_or(BY_EVENT).max(AGAIN)));
        }
        Waiting::Revoking | Waiting::LettingExpire => {
            taken_back(ctx, seen, gathered).await?;
            wake = Some(wake.unwrap_or(SOON).min(SOON));
        }
        Waiting::Issuing | Waiting::Backoff => {}
    }
    Ok(wake.map_or_else(|| Action::requeue(BY_EVENT * 5), Action::requeue))
}

/// Says of a deleted dynamic secret what it waits for. Without leases it goes at once, so there is nothing to say.
pub(super) async fn leaving(ctx: &Context, seen: &DynamicSecret, gathered: &Gathered) -> Result<(), Error> {
    if !seen.finalizers().iter().any(|f| f == DYNAMIC_SECRET_FINALIZER) {
        return Ok(());
    }
    let lives = |lease: &&LeaseSeen| !lease.ending;
    let until = match seen.spec.deletion_policy.unwrap_or_default() {
        DeletionPolicy::LetExpire => gathered.leases.iter().filter(lives).filter_map(|l| l.expires_at).max(),
        DeletionPolicy::Revoke => None,
    };
    let message = match until {
        Some(until) => format!(
            "its credentials live on to their end, the last until {} (spec.deletionPolicy); it goes then",
            credential_secret::whole_seconds(until)
        ),
        None => "its credentials are being taken back; it goes when all accounts are proven gone".to_owned(),
    };
    report::owner_waits(ctx, seen, &Hold::new(Reason::Deleting, message)).await
}

/// In mode Once: the credential is over, and the lease has said that taking its account back lasts. Before that nothing is
/// said, since most accounts are gone within the second.
async fn taken_back(ctx: &Context, seen: &DynamicSecret, gathered: &Gathered) -> Result<(), Error> {
    let delivered = gathered.leases.iter().filter(|l| l.serial > 0 && l.issued_at.is_some());
    let Some(last) = delivered.max_by_key(|l| l.serial) else {
        return Ok(());
    };
    let reference = ObjectRef::new(&last.name).within(&seen.namespace().unwrap_or_default());
    let lasts = |lease: &CredentialLease| {
        let phase = lease.status.as_ref().and_then(|status| status.phase);
        matches!(phase, Some(Phase::Revoking | Phase::Blocked))
    };
    let lasting = ctx.stores.leases.get(&reference).is_some_and(|lease| lasts(&lease));
    if !lasting {
        return Ok(());
    }
    let name = &last.name;
    let message =
        format!("the credential is over and its account is being taken back; lease {name} says what that waits for");
    let now = ctx.now();
    status::amend(&ctx.client, seen, |owner| {
        let generation = owner.metadata.generation;
        let status = owner.status.get_or_insert_default();
        // Its end is told already, in words that stay: the cache is behind.
        if status.history.iter().any(|record| record.lease == *name) {
            return false;
        }
        let before = status.clone();
        status.observed_generation = generation;
        conditions::set_ready(&mut status.conditions, Reason::Revoking, &message, generation, now);
        *status != before
    })
    .await?;
    Ok(())
}

async fn ended(ctx: &Context, seen: &DynamicSecret) -> Result<(), Error> {
    let status = seen.status.as_ref();
    let said = status.and_then(|s| conditions::find(&s.conditions, READY));
    let known = [
        Reason::Expired,
        Reason::LeaseDeleted,
        Reason::TargetDeleted,
        Reason::TargetEdited,
        Reason::TargetReleased,
        Reason::AccountMissing,
        Reason::AccountAltered,
        Reason::Revoking,
        Reason::Abandoned,
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
        Some("AccountMissing") => Some(Early::AccountMissing),
        Some("AccountAltered") => Some(Early::AccountAltered),
        Some("Deleted") => Some(Early::LeaseDeleted),
        Some("Rotated" | "OwnerDeleted") => Some(Early::Rotated),
        _ => None,
    };
    let (reason, message) = if why == Some(report::ABANDONED) {
        report::let_go()
    } else {
        report::once_over(early)
    };
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
    match prepare::prepare(ctx, seen).await {
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
        status.binding = lease
            .claim()
            .and_then(|claim| claim.target.clone())
            .map(|name| SecretReference { name });
        status.delivered_for = Some(current.fingerprint.clone());
        status.delivered_ttl = Some(current.ttl_seconds);
        status.username = of_lease.and_then(|s| s.username.clone());
        status.issued_by = of_lease.and_then(|s| s.issued_by.clone());
        status.issued_at = current.issued_at.map(Time);
        status.expires_at = current.expires_at.map(Time);
        status.renew_at = renew_at.map(Time);
        // A newly delivered serial answers the rotate-at that it was made for.
        if rotate_at.is_some() && before.delivered_serial.unwrap_or(0) < current.serial {
            status.answered_rotate_at.clone_from(&rotate_at);
        }
        (status.failures, status.last_failure, status.failed_generation) = (None, None, None);
        conditions::set_ready(&mut status.conditions, Reason::Issued, message, generation, now);
        *status != before
    })
    .await?;
    expires_soon(ctx, seen, current, now).await
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
