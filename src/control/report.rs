//! What statuses say. Every function here writes only what changed, and nothing for a state that is only passing.

use super::context::Context;
use super::hold::{Error, Hold};
use crate::api::conditions::{self, READY, Reason, ReasonKind};
use crate::api::dynamic_secret::{LeaseRecord, Mode};
use crate::api::lease::{Claim, Phase};
use crate::api::names::ROTATE_AT;
use crate::api::{CredentialLease, DynamicSecret};
use crate::cluster::status;
use crate::plan::dynamic_secret::Early;
use crate::plan::lease::End;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::events::EventType;

/// Leases that the history keeps.
const HISTORY: usize = 5;

/// Whether the dynamic secret's status has this lease's end. Without the dynamic secret there is nobody to tell.
pub async fn end_is_recorded(ctx: &Context, lease: &CredentialLease) -> Result<bool, Error> {
    let Some(owner) = ctx.owner(lease).await? else {
        return Ok(true);
    };
    let name = lease.name_any();
    let recorded = owner
        .status
        .iter()
        .flat_map(|status| &status.history)
        .any(|record| record.lease == name);
    Ok(recorded || ctx.recorded(&lease.uid().unwrap_or_default()))
}

/// An account that came about.
pub struct Issued<'a> {
    /// Its name.
    pub role: &'a str,
    /// OID and engine, where they are known.
    pub account: Option<&'a (u32, String)>,
    /// Version of the Secret as delivered.
    pub secret_version: Option<String>,
}

/// Writes the lease's status: issued, and where.
pub async fn issued(
    ctx: &Context,
    lease: &CredentialLease,
    claim: &Claim,
    issued: &Issued<'_>,
) -> Result<Option<CredentialLease>, Error> {
    let now = ctx.now();
    ctx.told_no_more(&lease.uid().unwrap_or_default());
    let written = status::amend(&ctx.client, lease, |lease| {
        // What is marked as deleted is taken back: it must not count as delivered any more.
        let going = lease.metadata.deletion_timestamp.is_some();
        let status = lease.status.get_or_insert_default();
        if going || status.issued_at.is_some() {
            return false;
        }
        status.phase = Some(Phase::Issued);
        status.username = Some(issued.role.to_owned());
        status.issued_at = Some(Time(now));
        status.expires_at = Some(claim.expires_at.clone());
        status.issued_by = issued.account.map(|(_, engine)| engine.clone());
        status.role_oid = issued.account.map(|(oid, _)| i64::from(*oid));
        status.secret_version.clone_from(&issued.secret_version);
        conditions::set_ready(
            &mut status.conditions,
            Reason::Issued,
            "the account is issued and valid",
            None,
            now,
        );
        true
    })
    .await?;
    Ok(written)
}

/// Writes why a lease does not go on, and tells it once as an Event.
pub async fn lease_waits(ctx: &Context, lease: &CredentialLease, phase: Phase, hold: &Hold) -> Result<(), Error> {
    let now = ctx.now();
    tracing::info!(
        lease = lease.name_any(),
        ?phase,
        reason = hold.reason.as_str(),
        message = hold.message,
        "lease waits"
    );
    let role = lease.claim().and_then(|claim| {
        crate::api::names::role_name(
            &claim.user_prefix,
            &lease.spec.dynamic_secret,
            &lease.uid().unwrap_or_default(),
        )
    });
    status::amend(&ctx.client, lease, |lease| {
        let status = lease.status.get_or_insert_default();
        let same = status.phase == Some(phase)
            && conditions::find(&status.conditions, READY)
                .is_some_and(|c| c.reason == hold.reason.as_str() && c.message == hold.message);
        status.phase = Some(phase);
        if status.username.is_none() {
            status.username.clone_from(&role);
        }
        conditions::set_ready(&mut status.conditions, hold.reason, &hold.message, None, now);
        !same
    })
    .await?;
    match hold.reason {
        // Taking back as agreed is no news.
        Reason::Revoking => {}
        Reason::OwnerEnded => ctx.tell(lease, hold.reason, &hold.message, EventType::Normal).await,
        _ => ctx.tell(lease, hold.reason, &hold.message, EventType::Warning).await,
    }
    Ok(())
}

/// A lease did not come about: counts on its dynamic secret, which waits and makes the next one.
pub async fn failed(ctx: &Context, lease: &CredentialLease, hold: &Hold) -> Result<(), Error> {
    let Some(owner) = ctx.owner(lease).await? else {
        return Ok(());
    };
    if lease.claim().is_some_and(|claim| claim.serial == 0) {
        // The object goes: whoever watches it is told by its last condition, and the Event stays for all others.
        return lease_waits(ctx, lease, Phase::Pending, hold).await;
    }
    match count_failure(ctx, &owner, hold).await {
        Err(Error::Cluster(error)) if error.is_not_served() => Ok(()),
        other => other,
    }
}

/// Whether a failure adds to those before it. A credential that came too late shows that what was refused before is mended:
/// counted on, a busy minute after a long fault would cost a pause of five.
fn in_a_row(last: Option<&str>, now: Reason) -> bool {
    now != Reason::NotDelivered || last == Some(now.as_str())
}

/// Counts a failed attempt, with its reason.
pub async fn count_failure(ctx: &Context, owner: &DynamicSecret, hold: &Hold) -> Result<(), Error> {
    let now = ctx.now();
    status::amend(&ctx.client, owner, |owner| {
        let generation = owner.metadata.generation;
        let status = owner.status.get_or_insert_default();
        let last = conditions::find(&status.conditions, READY).map(|ready| ready.reason.as_str());
        let before = if status.failed_generation == generation && in_a_row(last, hold.reason) {
            status.failures.unwrap_or(0)
        } else {
            0
        };
        status.failures = Some(before + 1);
        status.last_failure = Some(Time(now));
        status.failed_generation = generation;
        status.observed_generation = generation;
        conditions::set_ready(&mut status.conditions, hold.reason, &hold.message, generation, now);
        true
    })
    .await?;
    ctx.tell(owner, hold.reason, &hold.message, EventType::Warning).await;
    Ok(())
}

/// Writes only the condition of a dynamic secret.
pub async fn owner_waits(ctx: &Context, owner: &DynamicSecret, hold: &Hold) -> Result<(), Error> {
    let now = ctx.now();
    status::amend(&ctx.client, owner, |owner| {
        let generation = owner.metadata.generation;
        let status = owner.status.get_or_insert_default();
        let same = conditions::find(&status.conditions, READY)
            .is_some_and(|c| c.reason == hold.reason.as_str() && c.message == hold.message)
            && status.observed_generation == generation;
        status.observed_generation = generation;
        conditions::set_ready(&mut status.conditions, hold.reason, &hold.message, generation, now);
        !same
    })
    .await?;
    match hold.reason.kind() {
        ReasonKind::Good => {}
        ReasonKind::Waiting => ctx.tell(owner, hold.reason, &hold.message, EventType::Normal).await,
        ReasonKind::Refused => ctx.tell(owner, hold.reason, &hold.message, EventType::Warning).await,
    }
    Ok(())
}

/// The end of a lease that was let go of, in the history.
pub const ABANDONED: &str = "Abandoned";

/// Writes a lease's end into its dynamic secret, before the lease goes; with whether it was let go of.
pub async fn ended(
    ctx: &Context,
    lease: &CredentialLease,
    claim: &Claim,
    role: &str,
    (why, abandoned): (Option<End>, bool),
) -> Result<(), Error> {
    let uid = lease.uid().unwrap_or_default();
    let Some(owner) = ctx.owner(lease).await? else {
        return Ok(());
    };
    let now = ctx.now();
    let (mut why, early) = name_end(ctx, &owner, lease, claim, why);
    if abandoned {
        why = ABANDONED;
    }
    let asked = lease.annotations().get(ROTATE_AT).cloned();
    let record = LeaseRecord {
        lease: lease.name_any(),
        serial: claim.serial,
        username: Some(role.to_owned()),
        issued_at: lease.status.as_ref().and_then(|s| s.issued_at.clone()),
        ended_at: Time(now),
        why: why.to_owned(),
    };
    let written = status::amend(&ctx.client, &owner, |owner| {
        let (mode, generation) = (owner.spec.mode(), owner.metadata.generation);
        let going = owner.metadata.deletion_timestamp.is_some();
        let status = owner.status.get_or_insert_default();
        if status.history.iter().any(|old| old.lease == record.lease) {
            return false;
        }
        status.history.insert(0, record.clone());
        status.history.truncate(HISTORY);
        status.last_serial = Some(status.last_serial.unwrap_or(0).max(claim.serial));
        if record.issued_at.is_some() && claim.serial > 0 {
            let newest = claim.serial >= status.delivered_serial.unwrap_or(0);
            if newest && asked.is_some() {
                status.answered_rotate_at.clone_from(&asked);
            }
            status.delivered_serial = Some(status.delivered_serial.unwrap_or(0).max(claim.serial));
            // What is being deleted says so until it is gone.
            if newest && mode == Mode::Once && !going {
                let (reason, message) = if abandoned { let_go() } else { once_over(early) };
                conditions::set_ready(&mut status.conditions, reason, message, generation, now);
            }
        }
        true
    })
    .await;
    match written {
        // The cache still has it, but its definition is gone: nobody is left to be told.
        Err(error) if error.is_not_served() => {}
        other => drop(other?),
    }
    ctx.note_recorded(&uid);
    Ok(())
}

/// What a dynamic secret in mode Once says after its lease was let go of.
pub fn let_go() -> (Reason, &'static str) {
    (
        Reason::Abandoned,
        "the credential ended, and nobody knows whether its account is gone: it was let go of by an annotation on the pool",
    )
}

/// What a dynamic secret in mode Once says after its credential ended.
pub fn once_over(early: Option<Early>) -> (Reason, &'static str) {
    match early {
        None => (
            Reason::Expired,
            "the credential has ended as agreed; for another one set the annotation dsv.dev/rotate-at",
        ),
        Some(Early::TargetDeleted) => (
            Reason::TargetDeleted,
            "the Secret was deleted, so the account was revoked; for another one set the annotation dsv.dev/rotate-at",
        ),
        Some(Early::TargetEdited) => (
            Reason::TargetEdited,
            "the Secret's data was edited, so the account was revoked; for another one set the annotation dsv.dev/rotate-at",
        ),
        Some(Early::TargetReleased) => (
            Reason::TargetReleased,
            "our label was taken off the Secret, so the account was revoked and the Secret left alone",
        ),
        Some(Early::AccountMissing) => (
            Reason::AccountMissing,
            "the account was gone from the database, so its lease was ended; for another one set the annotation dsv.dev/rotate-at",
        ),
        Some(Early::AccountAltered) => (
            Reason::AccountAltered,
            "the account was changed by hand, so it was revoked; for another one set the annotation dsv.dev/rotate-at",
        ),
        // Leases that are bound were asked for, so there is no mode Once to tell of it.
        Some(Early::Rotated | Early::OwnerDeleted | Early::OwnerEnded) => {
            (Reason::Revoking, "the credential was taken back")
        }
    }
}

fn name_end(
    ctx: &Context,
    owner: &DynamicSecret,
    lease: &CredentialLease,
    claim: &Claim,
    why: Option<End>,
) -> (&'static str, Option<Early>) {
    let uid = lease.uid().unwrap_or_default();
    let delivered = lease.status.as_ref().is_some_and(|s| s.issued_at.is_some());
    // One that was ended early may be proven gone only after its time: then it still did not end by itself.
    let early = lease
        .metadata
        .deletion_timestamp
        .as_ref()
        .is_some_and(|at| at.0 < claim.expires_at.0);
    if why == Some(End::Expired) && delivered && !early {
        return ("Expired", None);
    }
    if !delivered {
        return ("NotDelivered", None);
    }
    let early = ctx.endings.of(&uid).or_else(|| {
        // Another leader ended it: what it knew is gone, but a newer delivered serial tells.
        let newer = owner.status.as_ref().and_then(|s| s.delivered_serial).unwrap_or(0) > claim.serial;
        (newer && claim.serial > 0).then_some(Early::Rotated)
    });
    // Said before the lease was deleted, by whichever leader.
    let status = lease.status.iter().flat_map(|status| &status.conditions);
    let owner_ended = status.into_iter().any(|c| c.reason == Reason::OwnerEnded.as_str());
    let early = early.or_else(|| owner_ended.then_some(Early::OwnerEnded));
    let name = match early {
        None => "Deleted",
        Some(Early::Rotated) => "Rotated",
        Some(Early::OwnerDeleted) => "OwnerDeleted",
        Some(Early::TargetDeleted) => "TargetDeleted",
        Some(Early::TargetEdited) => "TargetEdited",
        Some(Early::TargetReleased) => "TargetReleased",
        Some(Early::AccountMissing) => "AccountMissing",
        Some(Early::AccountAltered) => "AccountAltered",
        Some(Early::OwnerEnded) => "OwnerEnded",
    };
    (name, early)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_that_came_too_late_does_not_wait_for_what_failed_before_it() {
        assert!(!in_a_row(Some(Reason::LoginRefused.as_str()), Reason::NotDelivered));
        assert!(in_a_row(Some(Reason::NotDelivered.as_str()), Reason::NotDelivered));
        assert!(in_a_row(Some(Reason::NotDelivered.as_str()), Reason::LoginRefused));
        assert!(in_a_row(Some(Reason::LoginRefused.as_str()), Reason::LoginRefused));
    }
}
