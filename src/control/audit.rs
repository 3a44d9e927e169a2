//! The audit: compares what lies in the databases with what is on the books, and mends the difference.
//!
//! It runs at the start of a leadership, when an engine connects, when a server comes back or turns out to write another
//! history, when a lease vanishes without proof, and every few minutes. One round reads the roles of each server that
//! has a record, then once all leases (from the source, not from the cache), and then asks `plan::audit`. While nothing is
//! wrong it writes nothing.

mod act;
mod groups;
mod look;
mod memory;
mod records;
mod say;

pub use memory::{AuditMemory, Wanted};

use super::context::Context;
use super::hold::Error;
use super::watches::{DYNAMIC_SECRETS, ENGINES, LEASES, POOLS};
use crate::cluster::server_record::{self, Record};
use crate::plan::audit::{self as plan, Findings, Observed};
use crate::telemetry::metrics::{Controller, ReconcileOutcome};
use futures::{FutureExt, StreamExt};
use jiff::SignedDuration;
use look::{Books, Look, Looked};
use say::Verdict;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long the first request of a round waits for others: engines reconnect together, leases vanish together.
const COLLECT: Duration = Duration::from_secs(1);
/// Between two rounds, unless the interval is shorter.
const REST: Duration = Duration::from_secs(5);
/// How long one round may take.
const ROUND: Duration = Duration::from_mins(5);
/// Servers that are looked at side by side.
const AT_ONCE: usize = 4;
/// After a round that changed something, this long until the next look at the server.
const AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// Audits until the leadership is over.
pub async fn run(ctx: Arc<Context>) {
    // Without a definition there is no cache, and no role may be called unknown for lack of one.
    let needed = [LEASES, DYNAMIC_SECRETS, POOLS, ENGINES];
    ctx.stores.filled.with(&needed).await;
    let every = ctx.settings.audit_every;
    ctx.audit.want_all();
    loop {
        let until = ctx.audit.next_due(ctx.now()).map_or(every, |due| due.min(every));
        let asked = tokio::time::timeout(until, ctx.audit.asked()).await;
        tokio::time::sleep(COLLECT.min(every)).await;
        let due = ctx.audit.take_due(ctx.now());
        let wanted = match (asked, due) {
            (Ok(()), due) => ctx.audit.take().and(due),
            (Err(_), due) if !due.is_empty() => ctx.audit.take().and(due),
            (Err(_), _) => Wanted::All,
        };
        let mut rest = REST.min(every);
        let outcome = match tokio::time::timeout(ROUND, round(&ctx, &wanted)).await {
            Ok(Ok(Round::Looked)) => ReconcileOutcome::Settled,
            Ok(Ok(Round::NothingThere)) => {
                rest = Duration::ZERO;
                ReconcileOutcome::Settled
            }
            Ok(Err(Error::NotLeading(_))) => return std::future::pending().await,
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "an audit was interrupted; it is repeated"
                );
                ctx.audit.want_again(wanted);
                ReconcileOutcome::Failed
            }
            Err(_) => {
                tracing::warn!("an audit took too long; it is repeated");
                ctx.audit.want_again(wanted);
                ReconcileOutcome::TimedOut
            }
        };
        ctx.metrics.reconciled(Controller::Inventory, outcome);
        tokio::time::sleep(rest).await;
    }
}

/// What a round came to.
enum Round {
    /// Servers were looked at, or tried to.
    Looked,
    /// No server was wanted.
    NothingThere,
}

/// One round over the servers that are wanted.
async fn round(ctx: &Context, wanted: &Wanted) -> Result<Round, Error> {
    ctx.still_leading()?;
    let mut records = server_record::all(&ctx.client, &ctx.settings.home).await?;
    ctx.audit
        .keep_only(&records.iter().map(|record| record.login.record.as_str()).collect());
    // Pools that have a server, whether or not it could be looked at.
    let mut busy = BTreeSet::new();
    let unreachable = records.extract_if(.., |record| look::pools(ctx, record).is_empty());
    let unreachable: Vec<Record> = unreachable.collect();
    let removed = records::remove_unreachable(ctx, &unreachable).await?;
    let kept = unreachable.into_iter();
    records.extend(kept.filter(|record| !removed.contains(&record.login.record)));
    records.retain(|record| {
        let pools = look::pools(ctx, record);
        busy.extend(pools.iter().cloned());
        wanted.includes(&record.login.record, &pools)
    });
    if records.is_empty() {
        say::all(ctx, &busy).await?;
        return Ok(Round::NothingThere);
    }
    let known = look::issued(ctx);
    let mut looking = Vec::new();
    for record in records {
        looking.push(look::at(ctx, record).boxed());
    }
    let looked: Vec<Looked> = futures::stream::iter(looking).buffer_unordered(AT_ONCE).collect().await;
    let mut looks = Vec::new();
    for one in looked {
        match one {
            Looked::Seen(look) => looks.push(*look),
            Looked::Unreached { record, hold } => ctx.audit.unreached(&record, hold),
        }
    }
    if !looks.is_empty() {
        // After all roles were read, and from the source: whatever account was seen has its lease in here.
        let books = look::books(ctx, &known).await?;
        for look in &looks {
            judge(ctx, look, &books).await?;
        }
        records::remove_unneeded(ctx, &looks, &books).await?;
    }
    say::all(ctx, &busy).await?;
    Ok(Round::Looked)
}

/// Judges one server, acts, and remembers what is to be said.
async fn judge(ctx: &Context, look: &Look, books: &Books) -> Result<(), Error> {
    let server = &look.record.login.record;
    let now = ctx.now();
    let database = ctx.servers.database_time(server).unwrap_or(now);
    let (lost, released) = ctx.audit.gone(now);
    let changed = look.history_changed();
    let findings = plan::judge(&Observed {
        server,
        roles: &look.roles,
        leases: &books.leases,
        groups: &books.groups,
        lost: &lost,
        released: &released,
        history_changed: changed,
        now: database,
    });
    if changed {
        tracing::warn!(
            server,
            was = look.record.history,
            is = look.history,
            "the server writes another history: failover, restore, or another server"
        );
    }
    let confirmed = look::confirmed(&look.pool);
    let confirmed: Vec<&str> = confirmed.iter().map(String::as_str).collect();
    let before = ctx.audit.braked(server);
    let brake = plan::brake(&findings, look.is_elsewhere(), before.as_ref(), &confirmed);
    ctx.audit.set_brake(server, brake.clone(), has_early(&findings));
    let mut verdict = Verdict::new(look, findings, brake);
    act::act(ctx, look, &mut verdict).await?;
    groups::check(ctx, look, &mut verdict).await?;
    if verdict.is_settled() && look.history.is_some() && look.history != look.record.history {
        note_history(ctx, look).await?;
    }
    if let Some(end) = verdict.findings.next_end() {
        let left = end.duration_since(database) + SignedDuration::from_secs(1);
        ctx.audit.want_at(server, now.saturating_add(left).unwrap_or(now));
    }
    if verdict.acted() {
        ctx.audit.want_at(server, now.saturating_add(AGAIN).unwrap_or(now));
    }
    ctx.audit.say(verdict.said(look));
    Ok(())
}

/// Whether anything is to end before its time.
fn has_early(findings: &Findings) -> bool {
    !findings.broken.is_empty() || !findings.orphans.is_empty()
}

/// The books of this history are in order: from here on another one is news.
async fn note_history(ctx: &Context, look: &Look) -> Result<(), Error> {
    ctx.still_leading()?;
    let Some(history) = &look.history else { return Ok(()) };
    match server_record::note_history(&ctx.client, &ctx.settings.home, &look.record, history).await {
        // Somebody wrote the record in between, or it is gone: the next round tells.
        Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
        other => Ok(other?),
    }
}
