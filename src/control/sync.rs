//! The controller of syncs: reads the source, compares with the tenant, pushes, writes down what it did.
//!
//! An intent is in the status before anything is sent, so that after a crash the tenant is read and compared first. A tenant
//! that is down, slow or busy holds up its own syncs only ([`lanes`]).

pub mod lanes;
mod look;
mod remove;
mod say;
pub mod tenants;

use super::context::Context;
use super::hold::{Error, Hold};
use super::lease::until_then;
use crate::api::conditions::Reason;
use crate::api::names::{PUSH_AT, SYNC_FINALIZER};
use crate::api::secret_sync::{DriftPolicy, PushIntent, RemovalPolicy, SecretSync};
use crate::api::{DsvTenant, SecretSyncStatus};
use crate::cluster::{numbers, numbers::Numbered, objects, status};
use crate::plan::sync::content::{self, Content};
use crate::plan::sync::due;
use crate::plan::sync::step::{self, Step, There};
use crate::sync::{PushError, Tenant};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use lanes::Entry;
use look::Source;
use std::sync::Arc;
use std::time::Duration;

/// Who waits for a place in its tenant's lane is woken when one is free; this is for the case that nobody was.
const WAITING: Duration = Duration::from_secs(15);
/// Purpose of the key of hashes.
const HASH_PURPOSE: &str = "dsv.dev hash of pushed secrets";

/// Why a pass does not get to its end.
enum Trouble {
    /// Somebody has to do something, or wait.
    Hold(Hold),
    /// The tenant.
    Push(PushError),
    /// The API server, or leadership.
    Error(Error),
}

impl<E: Into<Error>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl From<Hold> for Trouble {
    fn from(hold: Hold) -> Self {
        Self::Hold(hold)
    }
}

impl From<PushError> for Trouble {
    fn from(error: PushError) -> Self {
        Self::Push(error)
    }
}

/// What becomes of a failure at a tenant.
impl From<&PushError> for Hold {
    fn from(error: &PushError) -> Self {
        let reason = match error {
            PushError::Settings(_) => Reason::InvalidSpec,
            PushError::ProxyLogin => Reason::CredentialsInvalid,
            PushError::Destination(_) => Reason::DestinationRefused,
            PushError::Unreachable(_) | PushError::Foreign(_) => Reason::TenantUnreachable,
            PushError::Patience(_) | PushError::Failed(_) => Reason::TenantBusy,
            PushError::Login | PushError::Forbidden(_) | PushError::Refused(..) => Reason::TenantRefused,
        };
        Self::new(reason, error.to_string())
    }
}

/// One pass over one sync.
pub async fn reconcile(sync: Arc<SecretSync>, ctx: Arc<Context>) -> Result<Action, Error> {
    ctx.still_leading()?;
    if sync.metadata.deletion_timestamp.is_some() {
        return remove::end(&ctx, &sync).await;
    }
    if let Err(hold) = ctx.serves(&sync.namespace().unwrap_or_default()) {
        return say::waits(&ctx, &sync, &hold).await;
    }
    let removes = sync.spec.removal() != RemovalPolicy::Leave;
    if removes && !sync.finalizers().iter().any(|f| f == SYNC_FINALIZER) {
        objects::add_finalizer(&ctx.client, sync.as_ref(), SYNC_FINALIZER).await?;
        return Ok(Action::await_change());
    }
    if number(&ctx, &sync).await? {
        return Ok(Action::await_change());
    }
    let namespace = sync.namespace().unwrap_or_default();
    let tenant = ctx
        .stores
        .dsv_tenants
        .get(&ObjectRef::<DsvTenant>::new(&sync.spec.tenant).within(&namespace));
    let (tenant, interval) = match usable(&ctx, &sync, tenant) {
        Ok(found) => found,
        Err(hold) => return say::waits(&ctx, &sync, &hold).await,
    };
    let uid = sync.uid().unwrap_or_default();
    let nudged = ctx.nudges.take(&uid);
    let now = ctx.now();
    let then = due_at(&ctx, &sync, (interval, nudged), now);
    if then > now {
        return Ok(Action::requeue(until_then(now, then)));
    }
    let entry = ctx
        .lanes
        .enter(&tenant, ObjectRef::from_obj(sync.as_ref()), now, &ctx.wakes);
    if nudged && !matches!(entry, Entry::Go(_)) {
        ctx.nudges.nudge(&uid);
    }
    match entry {
        Entry::Wait => Ok(Action::requeue(WAITING)),
        Entry::Closed(until, why) => {
            say::waits(&ctx, &sync, &why).await?;
            Ok(Action::requeue(until_then(now, until)))
        }
        Entry::Go(permit) => {
            let done = pass(&ctx, &sync, (&tenant, interval), nudged).await;
            drop(permit);
            done
        }
    }
}

/// Gives a sync its number. Returns whether the status was written, which brings the next pass.
async fn number(ctx: &Context, sync: &SecretSync) -> Result<bool, Error> {
    if sync.status.as_ref().is_some_and(|status| status.number.is_some()) {
        return Ok(false);
    }
    let (namespace, uid) = (sync.namespace().unwrap_or_default(), sync.uid().unwrap_or_default());
    let number = ctx
        .lanes
        .number(ctx, &namespace, (Numbered::Sync, &uid, &sync.name_any()))
        .await?;
    status::amend(&ctx.client, sync, |sync| {
        let status = sync.status.get_or_insert_default();
        status.number.replace(number) != Some(number)
    })
    .await?;
    Ok(true)
}

fn usable(
    ctx: &Context,
    sync: &SecretSync,
    tenant: Option<Arc<DsvTenant>>,
) -> Result<(Arc<DsvTenant>, Duration), Hold> {
    let inactive = |message: &str| Hold::new(Reason::Inactive, message);
    if !sync.spec.is_active() {
        return Err(inactive("spec.active is false, so nothing is pushed"));
    }
    let missing = || {
        let message = format!(
            "there is no DsvTenant {} in this namespace; create it",
            sync.spec.tenant
        );
        Hold::new(Reason::TenantMissing, message)
    };
    let tenant = tenant
        .filter(|tenant| tenant.metadata.deletion_timestamp.is_none())
        .ok_or_else(missing)?;
    if !tenant.spec.is_active() {
        return Err(inactive(
            "the tenant's spec.active is false, so nothing is pushed to it",
        ));
    }
    let interval = tenants::interval(ctx, &tenant.spec)?;
    Ok((tenant, interval))
}

fn due_at(ctx: &Context, sync: &SecretSync, (interval, nudged): (Duration, bool), now: Timestamp) -> Timestamp {
    let none = SecretSyncStatus::default();
    let status = sync.status.as_ref().unwrap_or(&none);
    let uid = sync.uid().unwrap_or_default();
    let seen = due::Seen {
        uid: &uid,
        interval,
        last_check: status.last_check.as_ref().map(|time| time.0),
        failures: status.failures.unwrap_or(0),
        last_failure: status.last_failure.as_ref().map(|time| time.0),
        is_changed: nudged || status.observed_generation != sync.metadata.generation,
        is_asked: asked(sync).is_some(),
        is_unfinished: status.intent.is_some(),
        is_rotated: look::is_rotated(ctx, sync, now),
    };
    let then = due::next(&seen, now);
    match look::credential_end(ctx, sync) {
        Some(end) if end > now => then.min(end),
        _ => then,
    }
}

/// A push that somebody asked for and that was not answered.
fn asked(sync: &SecretSync) -> Option<&String> {
    let wanted = sync.annotations().get(PUSH_AT).filter(|text| !text.is_empty())?;
    let answered = sync.status.as_ref().and_then(|status| status.answered_push_at.as_ref());
    (answered != Some(wanted)).then_some(wanted)
}

/// What the tenant has is brought in step with the source, on objects that are read now.
async fn pass(
    ctx: &Context,
    seen: &SecretSync,
    (tenant, interval): (&DsvTenant, Duration),
    nudged: bool,
) -> Result<Action, Error> {
    let (namespace, name) = (seen.namespace().unwrap_or_default(), seen.name_any());
    let live = objects::read::<SecretSync>(&ctx.client, &namespace, &name).await?;
    let same = |live: &SecretSync| live.uid() == seen.uid() && live.metadata.deletion_timestamp.is_none();
    let Some(mut sync) = live.filter(same) else {
        return Ok(Action::await_change());
    };
    // The cache may be older than the last push.
    let now = ctx.now();
    let then = due_at(ctx, &sync, (interval, nudged), now);
    if then > now {
        return Ok(Action::requeue(until_then(now, then)));
    }
    let uid = tenant.uid().unwrap_or_default();
    match attempt(ctx, &mut sync, tenant, interval).await {
        Ok(next) => {
            if ctx.lanes.answered(&uid, &ctx.wakes) {
                // What failed meanwhile goes on when the tenant is ready again.
                let _ = ctx.wakes.dsv_tenants.send(ObjectRef::from_obj(tenant));
            }
            Ok(Action::requeue(until_then(ctx.now(), next)))
        }
        Err(Trouble::Hold(hold)) => say::failed(ctx, &sync, &hold).await,
        Err(Trouble::Push(error)) => {
            if ctx.lanes.failed(&uid, &error, ctx.now()) {
                let reference = ObjectRef::from_obj(tenant);
                let _ = ctx.wakes.dsv_tenants.send(reference);
            }
            say::failed(ctx, &sync, &Hold::from(&error)).await
        }
        Err(Trouble::Error(error)) => Err(error),
    }
}

/// Returns when to look next. `sync` is left as it was written last, so what follows is written in one go.
async fn attempt(
    ctx: &Context,
    sync: &mut SecretSync,
    tenant: &DsvTenant,
    interval: Duration,
) -> Result<Timestamp, Trouble> {
    let client = tenants::client(ctx, tenant).await?;
    let source = look::source(ctx, sync).await?;
    let Source::There(found) = source else {
        return remove::source_gone(ctx, sync, &client, interval).await;
    };
    let content = content::compose(&sync.spec, &found.fields);
    let content = content.map_err(|error| Hold::new(Reason::InvalidSpec, error.to_string()))?;
    let generation = sync.metadata.generation;
    *sync = remove::moved(ctx, sync, &client, &content.path).await?;
    let key = ctx.installation.root.hash_key(HASH_PURPOSE);
    let uid = sync.uid().unwrap_or_default();
    let hash = content::hash(&key, &uid, &content);
    let there = look::there(&client, &content.path, (&key, &uid), !content.attributes.is_empty()).await?;
    let status = sync.status.clone().unwrap_or_default();
    let decision = step::next(&step::Seen {
        wanted: &hash,
        there: &there,
        last: status
            .hash
            .as_deref()
            .filter(|_| status.path.as_deref() == Some(&content.path)),
        intent: status.intent.as_ref().filter(|intent| intent.path == content.path),
        is_asked: asked(sync).is_some(),
        overwrites: sync.spec.drift == Some(DriftPolicy::Overwrite),
    });
    let mut done = say::Done {
        interval,
        path: &content.path,
        hash: &hash,
        version: there.version().map(str::to_owned),
        source: Some(&found),
        source_number: source_number(ctx, sync, &found).await?,
        asked: asked(sync).cloned(),
        pushed: true,
    };
    match decision {
        Step::Differs(difference) => return say::differs(ctx, sync, difference, &done).await,
        Step::Keep => {
            done.pushed = false;
            return say::done(ctx, sync, &done).await;
        }
        Step::Finished => return say::done(ctx, sync, &done).await,
        Step::Create | Step::Update | Step::Blind | Step::Revive => {}
    }
    *sync = begin(ctx, sync, &there, (&content, &hash)).await?;
    if sync.metadata.generation != generation {
        // It asks for something else since it was read. The intent stands, so the next pass looks at once.
        return Ok(ctx.now());
    }
    failpoint!("sync.begun", sync.name_any());
    ctx.still_leading()?;
    done.version = Some(push(&client, decision, &content).await?);
    tracing::info!(sync = sync.name_any(), path = content.path, "pushed");
    failpoint!("sync.pushed", sync.name_any());
    say::done(ctx, sync, &done).await
}

/// Writes down what is about to be pushed. Returns the sync as written.
async fn begin(
    ctx: &Context,
    sync: &SecretSync,
    there: &There,
    (content, hash): (&Content, &str),
) -> Result<SecretSync, Trouble> {
    ctx.still_leading()?;
    let intent = PushIntent {
        path: content.path.clone(),
        hash: hash.to_owned(),
        before: there.version().map(str::to_owned),
        since: Time(ctx.now()),
    };
    let written = status::amend(&ctx.client, sync, |sync| {
        sync.status.get_or_insert_default().intent = Some(intent.clone());
        true
    })
    .await?;
    // Nothing is pushed for a sync that is gone.
    let written = written.filter(|sync| sync.metadata.deletion_timestamp.is_none());
    written.ok_or_else(|| Hold::new(Reason::Deleting, "the sync is being deleted").into())
}

async fn push(client: &Tenant, step: Step, content: &Content) -> Result<String, PushError> {
    match step {
        Step::Create => client.create(content).await,
        Step::Update => client.update(content).await,
        Step::Revive => {
            client.restore(&content.path).await?;
            client.update(content).await
        }
        _ => client.write(content).await,
    }
}

async fn source_number(ctx: &Context, sync: &SecretSync, found: &look::Found) -> Result<i64, Error> {
    if let Some(known) = sync.status.as_ref().and_then(|status| status.source_number) {
        return Ok(known);
    }
    let namespace = sync.namespace().unwrap_or_default();
    let name = numbers::source_name(&sync.spec.source);
    ctx.lanes
        .number(ctx, &namespace, (Numbered::Source, &found.uid, &name))
        .await
}
