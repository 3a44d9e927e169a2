//! Taking back what was pushed: when its source is gone, when its path moves, when the sync itself goes.

use super::{HASH_PURPOSE, Trouble, look, say, tenants};
use crate::api::conditions::Reason;
use crate::api::names::SYNC_FINALIZER;
use crate::api::secret_sync::{DriftPolicy, RemovalPolicy, SecretSync, SourceKind};
use crate::cluster::{objects, status};
use crate::control::context::Context;
use crate::control::hold::{Error, Hold};
use crate::plan::sync::step::There;
use crate::sync::{PushError, Tenant};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use std::time::Duration;

/// Until the next attempt to take back what a sync that goes has pushed.
const AGAIN: Duration = Duration::from_secs(30);

/// Whether something is left at the tenant.
enum Left {
    Nothing,
    /// It was changed there, so it is not ours any more.
    Changed,
    /// Nobody can tell whose it is.
    Unreadable,
}

impl Left {
    /// Why it was left, if it was.
    fn why(&self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Changed => Some("it was changed there"),
            Self::Unreadable => Some("the login may not read it, so it may be somebody else's by now"),
        }
    }
}

/// Every path at which something of this sync may lie.
fn places(sync: &SecretSync) -> Vec<String> {
    let Some(status) = &sync.status else {
        return Vec::new();
    };
    let mut all: Vec<String> = status.path.iter().cloned().collect();
    all.extend(status.intent.iter().map(|intent| intent.path.clone()));
    all.dedup();
    all
}

async fn take_back(ctx: &Context, sync: &SecretSync, client: &Tenant, path: &str) -> Result<Left, Trouble> {
    let policy = sync.spec.removal();
    if policy == RemovalPolicy::Leave {
        return Ok(Left::Nothing);
    }
    let key = ctx.installation.root.hash_key(HASH_PURPOSE);
    let uid = sync.uid().unwrap_or_default();
    let with_attributes = !sync.spec.attributes.is_empty();
    let there = look::there(client, path, (&key, &uid), with_attributes).await?;
    let status = sync.status.clone().unwrap_or_default();
    let may = sync.spec.source.kind() == SourceKind::DynamicSecret || sync.spec.drift == Some(DriftPolicy::Overwrite);
    match &there {
        There::Unreadable if !may => return Ok(Left::Unreadable),
        There::Absent => return Ok(Left::Nothing),
        There::Marked if policy == RemovalPolicy::SoftDelete => return Ok(Left::Nothing),
        There::Is { hash, .. } => {
            let ours =
                status.hash.as_ref() == Some(hash) || status.intent.as_ref().is_some_and(|intent| intent.hash == *hash);
            if !ours && !may {
                return Ok(Left::Changed);
            }
        }
        There::Marked | There::Unreadable => {}
    }
    ctx.still_leading()?;
    client.delete(path, policy == RemovalPolicy::Delete).await?;
    tracing::info!(sync = sync.name_any(), path, "deleted at the tenant");
    Ok(Left::Nothing)
}

/// The same for several paths. Returns what is left where, and why.
async fn take_back_all(
    ctx: &Context,
    sync: &SecretSync,
    client: &Tenant,
    paths: &[String],
) -> Result<Option<String>, Trouble> {
    let mut left = Vec::new();
    for path in paths {
        if let Some(why) = take_back(ctx, sync, client, path).await?.why() {
            left.push(format!("{path} ({why})"));
        }
    }
    Ok((!left.is_empty()).then(|| left.join(", ")))
}

/// The source is gone: what was pushed follows it, as the policy says. Returns when to look next.
pub async fn source_gone(
    ctx: &Context,
    sync: &SecretSync,
    client: &Tenant,
    interval: Duration,
) -> Result<Timestamp, Trouble> {
    let places = places(sync);
    let source = format!("{:?} {}", sync.spec.source.kind(), sync.spec.source.name);
    if places.is_empty() {
        let message = format!("{source} is not there, or has nothing to be pushed yet");
        return Err(Hold::new(Reason::SourceMissing, message).into());
    }
    let leaves = sync.spec.removal() == RemovalPolicy::Leave;
    let left = take_back_all(ctx, sync, client, &places).await?;
    let message = if let Some(left) = &left {
        format!("{source} is gone; what was pushed stays at the tenant: {left}")
    } else if leaves {
        format!("{source} is gone; the secret at the tenant stays, as spec.deletionPolicy says")
    } else {
        format!("{source} is gone, and so is the secret at the tenant")
    };
    let is_removed = !leaves && left.is_none();
    say::ended(
        ctx,
        sync,
        interval,
        (&Hold::new(Reason::SourceMissing, message), is_removed),
    )
    .await
}

/// The path moved: what lies at the former one is taken back first. Returns the sync as it is then.
pub async fn moved(ctx: &Context, sync: &SecretSync, client: &Tenant, path: &str) -> Result<SecretSync, Trouble> {
    let former: Vec<String> = places(sync).into_iter().filter(|known| known != path).collect();
    if former.is_empty() {
        return Ok(sync.clone());
    }
    if let Some(left) = take_back_all(ctx, sync, client, &former).await? {
        let message = format!("the path moved, and what was pushed before stays at the tenant: {left}");
        ctx.announce(sync, Reason::DestinationDiffers, &message, EventType::Warning)
            .await;
    }
    let written = status::amend(&ctx.client, sync, |sync| {
        let status = sync.status.get_or_insert_default();
        if status.path.as_ref().is_some_and(|known| former.contains(known)) {
            status.path = None;
            status.hash = None;
            status.destination_version = None;
        }
        if status
            .intent
            .as_ref()
            .is_some_and(|intent| former.contains(&intent.path))
        {
            status.intent = None;
        }
        true
    })
    .await?;
    written.ok_or_else(|| Hold::new(Reason::Deleting, "the sync is being deleted").into())
}

/// The sync is being deleted.
pub async fn end(ctx: &Context, sync: &SecretSync) -> Result<Action, Error> {
    if !sync.finalizers().iter().any(|f| f == SYNC_FINALIZER) {
        return Ok(Action::await_change());
    }
    match last_call(ctx, sync).await {
        Ok(()) => {}
        Err(Trouble::Error(error)) => return Err(error),
        Err(Trouble::Hold(hold)) => {
            // Without a login nothing can be taken back, and a namespace that goes takes the login along.
            let message = format!("what was pushed stays at the tenant: {}", hold.message);
            ctx.tell(sync, hold.reason, &message, EventType::Warning).await;
        }
        Err(Trouble::Push(error)) if error.is_silence() || matches!(error, PushError::Patience(_)) => {
            say::waits(ctx, sync, &Hold::from(&error)).await?;
            return Ok(Action::requeue(AGAIN));
        }
        Err(Trouble::Push(error)) => {
            let message = format!("what was pushed stays at the tenant: {error}");
            ctx.tell(sync, Hold::from(&error).reason, &message, EventType::Warning)
                .await;
        }
    }
    objects::remove_finalizer(&ctx.client, sync, SYNC_FINALIZER).await?;
    Ok(Action::await_change())
}

async fn last_call(ctx: &Context, sync: &SecretSync) -> Result<(), Trouble> {
    let places = places(sync);
    if places.is_empty() || sync.spec.removal() == RemovalPolicy::Leave {
        return Ok(());
    }
    let namespace = sync.namespace().unwrap_or_default();
    let tenant = ctx
        .stores
        .dsv_tenants
        .get(&ObjectRef::new(&sync.spec.tenant).within(&namespace));
    let missing = || Hold::new(Reason::TenantMissing, format!("DsvTenant {} is gone", sync.spec.tenant));
    let tenant = tenant.ok_or_else(missing)?;
    if !tenant.spec.is_active() || !sync.spec.is_active() {
        return Err(Hold::new(Reason::Inactive, "sync or tenant is switched off").into());
    }
    let client = tenants::client(ctx, &tenant).await?;
    if let Some(left) = take_back_all(ctx, sync, &client, &places).await? {
        let message = format!("what was pushed stays at the tenant: {left}");
        ctx.announce(sync, Reason::DestinationDiffers, &message, EventType::Warning)
            .await;
    }
    Ok(())
}
