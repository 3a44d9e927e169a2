//! What the status of a sync says. Always about the generation that was looked at: a write that is repeated may find a newer one,
//! which nobody has looked at yet.

use super::look::Found;
use crate::api::SecretSync;
use crate::api::conditions::{self, READY, Reason, ReasonKind};
use crate::cluster::status;
use crate::control::context::Context;
use crate::control::hold::{Error, Hold};
use crate::control::lease::until_then;
use crate::plan::backoff;
use crate::plan::sync::due;
use crate::plan::sync::step::Difference;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use std::time::Duration;

/// What a pass did.
pub struct Done<'a> {
    /// The tenant's interval.
    pub interval: Duration,
    /// Where it lies.
    pub path: &'a str,
    /// Keyed hash of what the tenant has.
    pub hash: &'a str,
    /// Its version there.
    pub version: Option<String>,
    /// What was read.
    pub source: Option<&'a Found>,
    /// Number of the source.
    pub source_number: i64,
    /// The request that is answered by this.
    pub asked: Option<String>,
    /// Whether something was pushed.
    pub pushed: bool,
}

/// The tenant has what the source holds. Returns when to look next.
pub async fn done(ctx: &Context, sync: &SecretSync, done: &Done<'_>) -> Result<Timestamp, super::Trouble> {
    let now = ctx.now();
    let uid = sync.uid().unwrap_or_default();
    let next = due::place_after(now, done.interval, &uid);
    ctx.told_no_more(&uid);
    let generation = sync.metadata.generation;
    status::amend(&ctx.client, sync, |sync| {
        let status = sync.status.get_or_insert_default();
        status.path = Some(done.path.to_owned());
        status.hash = Some(done.hash.to_owned());
        if done.version.is_some() {
            status.destination_version.clone_from(&done.version);
        }
        status.intent = None;
        if done.pushed {
            status.last_push = Some(Time(now));
        }
        if done.asked.is_some() {
            status.answered_push_at.clone_from(&done.asked);
        }
        checked(status, done, (now, next));
        status.last_error = None;
        status.observed_generation = generation;
        let message = "the tenant has what the source holds";
        conditions::set_ready(&mut status.conditions, Reason::Synced, message, generation, now);
        true
    })
    .await?;
    Ok(next)
}

fn checked(status: &mut crate::api::SecretSyncStatus, done: &Done<'_>, (now, next): (Timestamp, Timestamp)) {
    status.last_check = Some(Time(now));
    status.next_push = Some(Time(next));
    status.source_version = done.source.and_then(|found| found.version.clone());
    status.source_number = Some(done.source_number);
    status.failures = None;
    status.last_failure = None;
}

/// The tenant has something else, which is left alone. Returns when to look next.
pub async fn differs(
    ctx: &Context,
    sync: &SecretSync,
    difference: Difference,
    done: &Done<'_>,
) -> Result<Timestamp, super::Trouble> {
    let what = match difference {
        Difference::Taken => "has a secret at that path which this sync did not write",
        Difference::Changed => "has another secret at that path than was pushed: somebody changed it there",
        Difference::Deleted => "has no secret at that path any more: somebody deleted it there",
    };
    let message = format!(
        "the tenant {what}; set spec.drift to Overwrite, or ask for one push with the annotation dsv.dev/push-at"
    );
    let now = ctx.now();
    let next = due::place_after(now, done.interval, &sync.uid().unwrap_or_default());
    let generation = sync.metadata.generation;
    status::amend(&ctx.client, sync, |sync| {
        let status = sync.status.get_or_insert_default();
        status.intent = None;
        checked(status, done, (now, next));
        status.last_error = Some(message.clone());
        status.observed_generation = generation;
        let reason = Reason::DestinationDiffers;
        conditions::set_ready(&mut status.conditions, reason, &message, generation, now);
        true
    })
    .await?;
    ctx.tell(sync, Reason::DestinationDiffers, &message, EventType::Warning)
        .await;
    Ok(next)
}

/// What was pushed is gone from the tenant, or was left there, since its source is gone. Returns when to look next.
pub async fn ended(
    ctx: &Context,
    sync: &SecretSync,
    interval: Duration,
    (hold, is_removed): (&Hold, bool),
) -> Result<Timestamp, super::Trouble> {
    let now = ctx.now();
    let next = due::place_after(now, interval, &sync.uid().unwrap_or_default());
    let generation = sync.metadata.generation;
    status::amend(&ctx.client, sync, |sync| {
        let status = sync.status.get_or_insert_default();
        if is_removed {
            status.path = None;
            status.hash = None;
            status.destination_version = None;
        }
        status.intent = None;
        status.last_check = Some(Time(now));
        status.next_push = Some(Time(next));
        status.source_version = None;
        status.failures = None;
        status.last_failure = None;
        status.last_error = Some(hold.message.clone());
        status.observed_generation = generation;
        conditions::set_ready(&mut status.conditions, hold.reason, &hold.message, generation, now);
        true
    })
    .await?;
    ctx.tell(sync, hold.reason, &hold.message, EventType::Normal).await;
    Ok(next)
}

/// Nothing is done for now, and nothing failed.
pub async fn waits(ctx: &Context, sync: &SecretSync, hold: &Hold) -> Result<Action, Error> {
    let now = ctx.now();
    let generation = sync.metadata.generation;
    status::amend(&ctx.client, sync, |sync| {
        let status = sync.status.get_or_insert_default();
        let same = conditions::find(&status.conditions, READY)
            .is_some_and(|ready| ready.reason == hold.reason.as_str() && ready.message == hold.message);
        conditions::set_ready(&mut status.conditions, hold.reason, &hold.message, generation, now);
        !same
    })
    .await?;
    Ok(Action::await_change())
}

/// An attempt failed; the next one waits longer.
pub async fn failed(ctx: &Context, sync: &SecretSync, hold: &Hold) -> Result<Action, Error> {
    let now = ctx.now();
    let mut failures = 0;
    let generation = sync.metadata.generation;
    status::amend(&ctx.client, sync, |sync| {
        let status = sync.status.get_or_insert_default();
        failures = status.failures.unwrap_or(0) + 1;
        status.failures = Some(failures);
        status.last_failure = Some(Time(now));
        status.last_error = Some(hold.message.clone());
        status.observed_generation = generation;
        conditions::set_ready(&mut status.conditions, hold.reason, &hold.message, generation, now);
        true
    })
    .await?;
    let kind = if hold.reason.kind() == ReasonKind::Refused {
        EventType::Warning
    } else {
        EventType::Normal
    };
    ctx.tell(sync, hold.reason, &hold.message, kind).await;
    let next = backoff::next_attempt(failures, now, &sync.uid().unwrap_or_default());
    Ok(Action::requeue(until_then(now, next)))
}
