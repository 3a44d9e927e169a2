//! Removing server records that nothing needs: no open lease, no group role, and no role of ours on the server in an
//! inventory that was made after; or no pool any more whose engines could make one.
//!
//! A record that goes too early is not lost: whoever needs it makes it again from the base secret. But until then a
//! revocation would wait, so what is on its way into the books is waited for, and everything is read again before the end.

use super::look::{self, Books, Look};
use super::{AGAIN, groups};
use crate::api::EnginePool;
use crate::cluster::Intention;
use crate::cluster::server_record::{self, Record};
use crate::control::context::Context;
use crate::control::hold::Error;
use crate::keys::RoleKind;
use crate::telemetry::metrics::AuditAction;
use kube::Api;
use kube::api::ListParams;
use std::collections::BTreeSet;
use std::time::Instant;

/// Removes the records of servers that were just found empty.
pub(super) async fn remove_unneeded(ctx: &Context, looks: &[Look], books: &Books) -> Result<(), Error> {
    if !looks.iter().any(|look| is_empty(look, books)) {
        return Ok(());
    }
    // Whoever prepares a lease holds this for reading, from the record until the lease is written.
    let Ok(_nobody_prepares) = ctx.keeping.try_write() else {
        return Ok(());
    };
    let needed = needed(ctx).await?;
    for look in looks {
        if is_empty(look, books) && !needed.contains(&look.record.login.record) {
            remove(ctx, &look.record).await?;
        }
    }
    Ok(())
}

/// Removes records that no engine will ever be asked about: nothing is on the books with them, and no pool is left in the
/// namespace of their base secret. It would be a password that is kept for nothing, and an uninstall would wait for it. A
/// pool that comes later makes the record again, and a new record is audited. Gives the names of those that it removed.
pub(super) async fn remove_unreachable(ctx: &Context, records: &[Record]) -> Result<BTreeSet<String>, Error> {
    let mut removed = BTreeSet::new();
    if records.is_empty() {
        return Ok(removed);
    }
    let now = ctx.now();
    let nobody_prepares = ctx.keeping.try_write();
    // The account of a lease that vanished without proof may lie there: until it has ended by itself the login is kept.
    let (ripe, later): (Vec<&Record>, Vec<&Record>) = records
        .iter()
        .partition(|record| nobody_prepares.is_ok() && !ctx.audit.misses_a_lease(&record.login.record, now));
    for record in later {
        let at = now.saturating_add(AGAIN).unwrap_or(now);
        ctx.audit.want_at(&record.login.record, at);
    }
    if ripe.is_empty() {
        return Ok(removed);
    }
    let needed = needed(ctx).await?;
    for record in ripe {
        let name = &record.login.record;
        let unneeded = !needed.contains(name) && !has_pool(ctx, &record.namespace).await?;
        if unneeded && remove(ctx, record).await? {
            removed.insert(name.clone());
        }
    }
    Ok(removed)
}

/// Records that a lease or a group role is on the books with, at their source.
async fn needed(ctx: &Context) -> Result<BTreeSet<String>, Error> {
    let leases = look::list_leases(ctx, &BTreeSet::new()).await?;
    let mut needed: BTreeSet<String> = leases.into_iter().map(|lease| lease.server.to_string()).collect();
    for owner in &groups::dynamic_secrets(ctx).await? {
        let groups = owner.status.iter().flat_map(|status| &status.groups);
        needed.extend(groups.map(|group| group.server.clone()));
    }
    Ok(needed)
}

async fn has_pool(ctx: &Context, namespace: &str) -> Result<bool, Error> {
    let pools: Api<EnginePool> = Api::namespaced(ctx.client.clone(), namespace);
    let found = pools.list_metadata(&ListParams::default().limit(1)).await;
    match found.to(|| format!("list the pools in {namespace}")) {
        Ok(found) => Ok(!found.items.is_empty()),
        // Without the definition nobody knows.
        Err(error) if error.is_not_found() => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// False where its login was refreshed in between: it is looked at again.
async fn remove(ctx: &Context, record: &Record) -> Result<bool, Error> {
    let server = &record.login.record;
    ctx.still_leading()?;
    ctx.recent_records.forget(server, Instant::now());
    let removed = server_record::remove(&ctx.client, &ctx.settings.home, record).await;
    // Again: whoever asked in between saw it, and nobody may make a lease from that.
    ctx.recent_records.forget(server, Instant::now());
    match removed {
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error.into()),
        Ok(()) => {
            tracing::info!(server, "removed a server record that nothing needs any more");
            ctx.metrics.audit_acted(AuditAction::RemoveRecord);
            ctx.audit.forget(server);
            Ok(true)
        }
    }
}

fn is_empty(look: &Look, books: &Books) -> bool {
    let server = &look.record.login.record;
    // Keepers stay: what they own is somebody's data, and none of it is an account.
    look.roles.iter().all(|role| role.said.kind == RoleKind::Keeper)
        && look.strangers.unverified.is_empty()
        && books.leases.iter().all(|lease| *lease.server != **server)
}
