//! What statuses say. Every function here writes only what changed, and nothing for a state that is only passing.

mod endings;

use super::context::Context;
use super::hold::{Error, Hold};
use crate::api::conditions::{self, READY, Reason, ReasonKind};
use crate::api::lease::{Claim, Phase};
use crate::api::{CredentialLease, DynamicSecret};
use crate::cluster::status;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::events::EventType;

pub use endings::{ABANDONED, Ending, end_is_recorded, ended, let_go, once_over};

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
