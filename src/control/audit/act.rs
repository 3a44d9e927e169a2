//! Acting: revoking accounts without a lease, ending leases whose account is not what was issued, locking again.

use super::look::Look;
use super::say::Verdict;
use crate::api::CredentialLease;
use crate::api::conditions::Reason;
use crate::api::lease::Phase;
use crate::channel::frames::{AccountState, OwnedObjects, Revocation};
use crate::cluster::objects;
use crate::control::context::Context;
use crate::control::hold::{Error, Hold};
use crate::control::report;
use crate::plan::audit::{Because, Broken, Fault, LeaseSeen, Orphan};
use crate::plan::dynamic_secret::Early;
use crate::telemetry::metrics::AuditAction;
use futures::FutureExt;
use futures::future::join_all;
use kube::ResourceExt;
use kube::runtime::events::EventType;

/// Orphans that are revoked side by side; the engine gets them as one task.
const AT_ONCE: usize = 64;

/// Acts on one server's findings, as far as the brake lets.
pub(super) async fn act(ctx: &Context, look: &Look, verdict: &mut Verdict) -> Result<(), Error> {
    let braked = verdict.brake.is_some();
    let orphans: Vec<Orphan> = verdict
        .findings
        .orphans
        .iter()
        .filter(|orphan| !braked || orphan.because == Because::Expired)
        .cloned()
        .collect();
    for some in orphans.chunks(AT_ONCE) {
        ctx.still_leading()?;
        let mut revoking = Vec::new();
        for orphan in some {
            revoking.push(revoke(ctx, look, orphan).boxed());
        }
        let states = join_all(revoking).await;
        for (orphan, state) in some.iter().zip(states) {
            match state {
                Ok(()) => {
                    ctx.metrics.audit_acted(AuditAction::Revoke);
                    verdict.revoked.push(orphan.clone());
                }
                Err(why) => verdict.stuck.push(format!("{} is not revoked yet: {why}", orphan.role)),
            }
        }
    }
    if !braked {
        for broken in verdict.findings.broken.clone() {
            if end_lease(ctx, &broken).await? {
                ctx.metrics.audit_acted(AuditAction::Replace);
                verdict.ended.push(broken);
            }
        }
    }
    for lease in &verdict.findings.unlocked {
        lock_again(ctx, lease).await?;
        ctx.metrics.audit_acted(AuditAction::Lock);
    }
    Ok(())
}

/// Revokes an account without a lease; why not, where it is still there.
async fn revoke(ctx: &Context, look: &Look, orphan: &Orphan) -> Result<(), String> {
    let server = &look.record.login.record;
    tracing::warn!(
        server,
        role = orphan.role,
        because = ?orphan.because,
        "revoking an account without a lease"
    );
    let revocation = Revocation {
        lease_uid: orphan.lease_uid.clone(),
        role: orphan.role.clone(),
        // No lease waits for a proof of absence, so any deadline will do.
        issue_deadline: orphan.claimed_at,
        role_oid: Some(orphan.oid),
        owned_objects: OwnedObjects::Reassign,
    };
    let state = ctx.revocations.revoke(ctx, &look.pool_uid(), server, revocation).await;
    match state {
        Ok(AccountState::Gone { .. }) => Ok(()),
        Ok(AccountState::Blocked { by, sql, .. }) => {
            let free = sql.map(|sql| format!("; to free it run: {sql}")).unwrap_or_default();
            Err(format!("held by {by}{free}"))
        }
        Ok(AccountState::NeedsKeeper) => Err("it owns something in many databases; it goes on".to_owned()),
        Ok(AccountState::Foreign { role }) => Err(format!("role {role} changed under our hands")),
        Ok(AccountState::Failed(failure)) => Err(failure.message),
        Err(hold) => Err(hold.message),
    }
}

/// Ends a live lease whose account is gone or changed. In mode Rotate its dynamic secret issues the next one.
async fn end_lease(ctx: &Context, broken: &Broken) -> Result<bool, Error> {
    ctx.still_leading()?;
    let (namespace, name) = &broken.lease;
    let found: Option<CredentialLease> = objects::read(&ctx.client, namespace, name).await?;
    let same = |lease: &CredentialLease| {
        lease.uid().as_ref() == Some(&broken.lease_uid) && lease.metadata.deletion_timestamp.is_none()
    };
    let Some(lease) = found.filter(same) else {
        return Ok(false);
    };
    let (early, hold) = fault(broken);
    ctx.endings.note(&broken.lease_uid, early);
    report::lease_waits(ctx, &lease, Phase::Revoking, &hold).await?;
    if let Some(owner) = ctx.owner(&lease).await? {
        ctx.announce(&owner, hold.reason, &hold.message, EventType::Warning)
            .await;
    }
    ctx.still_leading()?;
    objects::delete(&ctx.client, &lease).await?;
    Ok(true)
}

fn fault(broken: &Broken) -> (Early, Hold) {
    let role = &broken.role;
    match &broken.fault {
        Fault::Missing => {
            let message = format!(
                "account {role} is gone from the database, dropped by hand or lost with a failover; its lease is ended"
            );
            (Early::AccountMissing, Hold::new(Reason::AccountMissing, message))
        }
        Fault::Altered(changes) => {
            let what: Vec<String> = changes.iter().map(ToString::to_string).collect();
            let message = format!("account {role} was changed by hand: {}; it is revoked", what.join(", "));
            (Early::AccountAltered, Hold::new(Reason::AccountAltered, message))
        }
    }
}

/// A locked account that can log in again: the next attempt to revoke it begins with locking it, and does not wait.
async fn lock_again(ctx: &Context, locked: &LeaseSeen) -> Result<(), Error> {
    let (namespace, name) = &locked.name;
    tracing::warn!(
        lease = name,
        role = locked.role,
        "a locked account was unlocked by hand"
    );
    let found: Option<CredentialLease> = objects::read(&ctx.client, namespace, name).await?;
    if let Some(lease) = found.filter(|lease| lease.uid().as_ref() == Some(&locked.uid)) {
        let message = format!(
            "account {} was locked and can log in again; it is locked once more",
            locked.role
        );
        ctx.announce(&lease, Reason::AccountAltered, &message, EventType::Warning)
            .await;
        ctx.attempts.reset(&locked.uid);
        ctx.wake_lease(namespace, name);
    }
    Ok(())
}
