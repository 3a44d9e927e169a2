//! The sweep of credential Secrets: one whose lease is closed or gone is deleted, so that no Secret outlives its account,
//! not even one that a backup brought back. It sees only Secrets with the lease label, and believes only live reads.

use super::context::Context;
use super::credential_cache::SeenCredential;
use super::hold::Error;
use crate::api::CredentialLease;
use crate::api::names::{LEASE_LABEL, credential};
use crate::cluster::{credential_secret, objects};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use std::sync::Arc;
use std::time::Duration;

/// Between two sweeps.
pub const EVERY: Duration = Duration::from_mins(1);

/// Looks at every credential Secret once.
pub async fn sweep(ctx: &Context) -> Result<usize, Error> {
    let mut deleted = 0;
    for secret in ctx.stores.credentials.state() {
        if !suspicious(ctx, &secret) {
            continue;
        }
        match delete_if_closed(ctx, &secret).await {
            Ok(true) => deleted += 1,
            Ok(false) => {}
            Err(error @ Error::NotLeading(_)) => return Err(error),
            // Labels and annotations are anybody's: a Secret that cannot be judged must not save the others.
            Err(error) => tracing::warn!(
                secret = format!("{}/{}", secret.namespace, secret.name),
                error = &error as &dyn std::error::Error,
                "a credential Secret could not be judged"
            ),
        }
    }
    Ok(deleted)
}

/// Whether the caches cannot account for the Secret. Costs no request.
fn suspicious(ctx: &Context, secret: &SeenCredential) -> bool {
    let Some(uid) = secret.lease_uid.as_deref() else {
        return false;
    };
    if !secret.managed || secret.deleted {
        return false;
    }
    let lease = cached_lease(ctx, secret);
    lease.is_none_or(|lease| lease.metadata.uid.as_deref() != Some(uid))
}

fn cached_lease(ctx: &Context, secret: &SeenCredential) -> Option<Arc<CredentialLease>> {
    let lease = ObjectRef::new(secret.lease.as_deref()?).within(&secret.namespace);
    ctx.stores.leases.get(&lease)
}

/// The annotation becomes part of a request's path, and anybody may write it.
fn is_object_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    name.chars().all(plain) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

async fn delete_if_closed(ctx: &Context, secret: &SeenCredential) -> Result<bool, Error> {
    let (namespace, name) = (&*secret.namespace, &*secret.name);
    // Live: Secret first, then lease. A Secret that was replaced meanwhile fails the precondition below.
    let Some(live) = credential_secret::look(&ctx.client, namespace, name).await? else {
        return Ok(false);
    };
    let uid = live.labels().get(LEASE_LABEL).cloned();
    let lease_name = live.annotations().get(credential::LEASE).cloned().unwrap_or_default();
    if uid.is_none() || !is_object_name(&lease_name) {
        return Ok(false);
    }
    let lease: Option<CredentialLease> = objects::read(&ctx.client, namespace, &lease_name).await?;
    if lease.is_some_and(|lease| lease.uid() == uid) {
        return Ok(false);
    }
    ctx.still_leading()?;
    match credential_secret::delete(&ctx.client, namespace, name, &live.metadata).await {
        Err(error) if error.is_conflict() || error.is_refused() => Ok(false),
        Err(error) => Err(error.into()),
        Ok(_) => {
            tracing::warn!(
                secret = format!("{namespace}/{name}"),
                lease = lease_name,
                "deleted a Secret whose lease is gone"
            );
            Ok(true)
        }
    }
}
