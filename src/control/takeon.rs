//! Taking on a lease that somebody asked for: the same checks as for our own, then finalizer and claim, both as writes of
//! exactly the version that was seen. Nothing is issued before both are written.

use super::admission;
use super::bound;
use super::context::Context;
use super::hold::{Error, Halt, Hold};
use super::lease::until_then;
use super::making;
use super::occupied::Waiter;
use super::prepare;
use super::report;
use crate::api::conditions::{Reason, ReasonKind};
use crate::api::dynamic_secret::Mode;
use crate::api::lease::{Claim, Phase};
use crate::api::names::LEASE_FINALIZER;
use crate::api::ttl::Span;
use crate::api::{CredentialLease, DynamicSecret};
use crate::cluster::{objects, status};
use crate::plan::backoff;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use std::time::Duration;

/// What came of it.
pub enum TakenOn {
    /// The lease as it is written now. Its account follows in the same pass: queued behind all others that were asked for
    /// at the same time, it could miss the deadline that its claim has just set.
    Now(Box<CredentialLease>),
    /// It goes on later.
    Later(Action),
}

/// Takes the lease on, or says why not.
pub async fn take_on(ctx: &Context, lease: &CredentialLease) -> Result<TakenOn, Error> {
    if lease.claim().is_some() {
        // Ours, but somebody took the finalizer off: it goes back on before anything else.
        ctx.still_leading()?;
        return match objects::add_finalizer(&ctx.client, lease, LEASE_FINALIZER).await {
            // Somebody wrote in between: the next view shows what.
            Err(error) if !error.is_conflict() => Err(error.into()),
            _ => Ok(TakenOn::Later(Action::await_change())),
        };
    }
    match try_take_on(ctx, lease).await {
        Ok(taken) => {
            // What is counted from now on are attempts to take it back.
            ctx.attempts.reset(&lease.uid().unwrap_or_default());
            let later = || TakenOn::Later(Action::await_change());
            Ok(taken.map_or_else(later, |lease| TakenOn::Now(Box::new(lease))))
        }
        Err(Halt::Error(error)) => Err(error),
        Err(Halt::Hold(hold)) => {
            let occupied = matches!(hold.reason, Reason::TargetNotOurs | Reason::TargetShared);
            if let Some(target) = lease.spec.target.as_ref().filter(|_| occupied) {
                ctx.await_place(Waiter::of_lease(lease, target.name.clone()));
            }
            report::lease_waits(ctx, lease, phase(hold.reason), &hold).await?;
            let count = ctx.attempts.count(&lease.uid().unwrap_or_default());
            let pause = Duration::try_from(backoff::pause(count)).unwrap_or_default();
            Ok(TakenOn::Later(Action::requeue(pause.max(Duration::from_secs(1)))))
        }
    }
}

/// Refused is what somebody has to mend; all else goes on by itself, but for what the lease was bound to: that does not come back.
fn phase(reason: Reason) -> Phase {
    match reason.kind() {
        ReasonKind::Refused => Phase::Refused,
        _ if reason == Reason::OwnerEnded => Phase::Refused,
        ReasonKind::Waiting | ReasonKind::Good => Phase::Pending,
    }
}

/// None where somebody else wrote a claim in between.
async fn try_take_on(ctx: &Context, lease: &CredentialLease) -> Result<Option<CredentialLease>, Halt> {
    let owner = owner(ctx, lease).await?;
    if owner.spec.mode() != Mode::OnDemand {
        let message = format!(
            "DynamicSecret {} is not in mode OnDemand; set spec.issuance.mode or ask another one",
            owner.name_any()
        );
        return Err(Hold::new(Reason::NotOnDemand, message).into());
    }
    if owner.spec.suspend == Some(true) {
        return Err(Hold::new(
            Reason::Suspended,
            "the DynamicSecret is suspended; it goes on when spec.suspend is taken off",
        )
        .into());
    }
    bound::admit(ctx, lease).await?;
    let ttl = lease.spec.ttl.as_ref().and_then(Span::length);
    let target = lease.spec.target.as_ref().map(|target| target.name.clone());
    let place = async {
        match &target {
            // Serial 0 matches no other lease's Secret, so only an absent one passes.
            Some(target) => making::check_target(ctx, &owner, target, 0).await,
            None => Ok(()),
        }
    };
    // At once, since each waits for the API server; what `prepare` finds is told first.
    let (prepared, place) = tokio::join!(prepare::prepare_read(ctx, owner.clone(), ttl), place);
    let prepared = prepared?;
    place?;
    let mut taken = None;
    admission::within_limits(ctx, &prepared, lease.metadata.uid.as_deref(), async || {
        let claim = prepare::claim(ctx, &prepared, 0, target)?;
        ctx.still_leading()?;
        let held = hold_on(ctx, lease, &prepared.owner, &claim).await?;
        taken = write_claim(ctx, &held, claim).await?;
        Ok(lease.name_any())
    })
    .await?;
    Ok(taken)
}

async fn owner(ctx: &Context, lease: &CredentialLease) -> Result<DynamicSecret, Halt> {
    let namespace = lease.namespace().unwrap_or_default();
    let found: Option<DynamicSecret> = objects::read(&ctx.client, &namespace, &lease.spec.dynamic_secret).await?;
    found.ok_or_else(|| {
        let message = format!(
            "DynamicSecret {namespace}/{} does not exist; create it or correct spec.dynamicSecret",
            lease.spec.dynamic_secret
        );
        Hold::new(Reason::DynamicSecretMissing, message).into()
    })
}

/// Finalizer, labels and owner, on exactly the version that was seen.
async fn hold_on(
    ctx: &Context,
    lease: &CredentialLease,
    owner: &DynamicSecret,
    claim: &Claim,
) -> Result<CredentialLease, Error> {
    let mut held = lease.clone();
    if !held.finalizers().iter().any(|f| f == LEASE_FINALIZER) {
        held.finalizers_mut().push(LEASE_FINALIZER.to_owned());
    }
    held.labels_mut().extend(prepare::labels(claim));
    let reference = owner.controller_owner_ref(&());
    if held.owner_references().is_empty() {
        held.owner_references_mut().extend(reference);
    }
    let namespace = lease.namespace().unwrap_or_default();
    Ok(objects::replace(&ctx.client, &namespace, &held).await?)
}

async fn write_claim(ctx: &Context, held: &CredentialLease, claim: Claim) -> Result<Option<CredentialLease>, Error> {
    let mut verifier = None;
    if claim.target.is_some() {
        let (password, made) = ctx.password_stock.take().await;
        ctx.passwords.keep(made.as_str(), password);
        verifier = Some(made.as_str().to_owned());
    }
    let written = status::amend(&ctx.client, held, |lease| {
        let status = lease.status.get_or_insert_default();
        if status.claim.is_some() {
            return false;
        }
        status.claim = Some(Box::new(claim.clone()));
        status.verifier.clone_from(&verifier);
        status.phase = Some(Phase::Pending);
        status.expires_at = Some(claim.expires_at.clone());
        true
    })
    .await?;
    if let Some(lease) = &written {
        let left = until_then(ctx.now(), claim.expires_at.0);
        tracing::info!(lease = lease.name_any(), seconds = left.as_secs(), "taken on");
    }
    Ok(written)
}
