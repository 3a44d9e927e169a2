//! Leases that end with a Pod, Job or ServiceAccount: looks at each of those every few seconds, and ends the leases of those
//! that have ended. The deletion of the lease is the whole effect; all else follows from it as from any other.

use super::context::Context;
use super::hold::{Error, Hold};
use super::{report, watches};
use crate::api::CredentialLease;
use crate::api::conditions::Reason;
use crate::api::lease::{BoundTo, Phase};
use crate::cluster::{objects, owner};
use crate::plan::bound::{Look, Owner, judge, pause};
use crate::plan::dynamic_secret::Early;
use futures::StreamExt;
use kube::ResourceExt;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Looks at a time.
const AT_ONCE: usize = 8;
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is looked at: namespace and object.
type Key = (String, BoundTo);

/// Looks for ever.
pub async fn follow(ctx: Arc<Context>) {
    ctx.stores.filled.with(&[watches::LEASES]).await;
    loop {
        let owners = owners(&ctx);
        let count = owners.len();
        futures::stream::iter(owners)
            .for_each_concurrent(AT_ONCE, |(key, leases)| round(&ctx, key, leases))
            .await;
        tokio::time::sleep(Duration::try_from(pause(count)).unwrap_or_default()).await;
    }
}

/// Everything that open leases are bound to, each once. Costs no request.
fn owners(ctx: &Context) -> HashMap<Key, Vec<Arc<CredentialLease>>> {
    let mut owners: HashMap<Key, Vec<Arc<CredentialLease>>> = HashMap::new();
    let bound = |lease: &CredentialLease| lease.spec.bound_to.is_some() && lease.metadata.deletion_timestamp.is_none();
    for lease in ctx.stores.leases.state_filter(bound) {
        if let Some(bound) = lease.spec.bound_to.clone() {
            let key = (lease.namespace().unwrap_or_default(), bound);
            owners.entry(key).or_default().push(lease);
        }
    }
    owners
}

async fn round(ctx: &Context, (namespace, bound): Key, leases: Vec<Arc<CredentialLease>>) {
    match look(ctx, &namespace, &bound).await {
        Owner::Alive => {}
        Owner::Unknown(why) => tracing::debug!(namespace, %bound, why, "whether it lives is not known"),
        Owner::Ended(how) => {
            for lease in leases {
                if let Err(error) = end(ctx, &lease, &bound, how).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        lease = lease.name_any(),
                        error,
                        "a lease whose owner has ended is ended later"
                    );
                }
            }
        }
    }
}

async fn look(ctx: &Context, namespace: &str, bound: &BoundTo) -> Owner {
    let look = tokio::time::timeout(PATIENCE, owner::look(&ctx.client, namespace, bound)).await;
    let late = |_| Look::Unknown("the API server did not answer in time".to_owned());
    judge(bound, &look.unwrap_or_else(late))
}

/// First said, so that any leader can tell why, then deleted.
async fn end(ctx: &Context, lease: &CredentialLease, bound: &BoundTo, how: &str) -> Result<(), Error> {
    ctx.still_leading()?;
    let message = format!("{bound}, which the lease is bound to, {how}; the lease ends");
    let phase = if lease.claim().is_some() {
        Phase::Revoking
    } else {
        Phase::Refused
    };
    tracing::info!(lease = lease.name_any(), %bound, how, "ending a lease with its owner");
    ctx.endings.note(&lease.uid().unwrap_or_default(), Early::OwnerEnded);
    report::lease_waits(ctx, lease, phase, &Hold::new(Reason::OwnerEnded, message.as_str())).await?;
    ctx.still_leading()?;
    objects::delete(&ctx.client, lease).await?;
    Ok(())
}

/// Nothing is issued for what has ended, or may have.
pub async fn admit(ctx: &Context, lease: &CredentialLease) -> Result<(), Hold> {
    let Some(bound) = &lease.spec.bound_to else {
        return Ok(());
    };
    match look(ctx, &lease.namespace().unwrap_or_default(), bound).await {
        Owner::Alive => Ok(()),
        Owner::Ended(how) => {
            let message = format!("{bound}, which the lease is bound to, {how}; nothing is issued");
            Err(Hold::new(Reason::OwnerEnded, message))
        }
        Owner::Unknown(why) => {
            let message = format!("whether {bound} lives cannot be told: {why}; nothing is issued until it can");
            Err(Hold::new(Reason::OwnerUnknown, message))
        }
    }
}
