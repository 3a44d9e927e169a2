//! Removing server records that nothing needs: no open lease, no group role, and no role of ours on the server in an
//! inventory that was made after.
//!
//! A record that goes too early is not lost: whoever needs it makes it again from the base secret. But until then a
//! revocation would wait, so what is on its way into the books is waited for, and everything is read again before the end.

use super::groups;
use super::look::{self, Books, Look};
use crate::cluster::server_record;
use crate::control::context::Context;
use crate::control::hold::Error;
use crate::keys::RoleKind;
use crate::telemetry::metrics::AuditAction;
use std::collections::BTreeSet;

/// Removes the records of servers that were just found empty.
pub(super) async fn remove_unneeded(ctx: &Context, looks: &[Look], books: &Books) -> Result<(), Error> {
    if !looks.iter().any(|look| is_empty(look, books)) {
        return Ok(());
    }
    // Whoever prepares a lease holds this for reading, from the record until the lease is written.
    let Ok(_nobody_prepares) = ctx.keeping.try_write() else {
        return Ok(());
    };
    let leases = look::list_leases(ctx, &BTreeSet::new()).await?;
    let owners = groups::dynamic_secrets(ctx).await?;
    let mut needed: BTreeSet<String> = leases.into_iter().map(|lease| lease.server).collect();
    for owner in &owners {
        let groups = owner.status.iter().flat_map(|status| &status.groups);
        needed.extend(groups.map(|group| group.server.clone()));
    }
    for look in looks {
        let server = &look.record.login.record;
        if !is_empty(look, books) || needed.contains(server) {
            continue;
        }
        ctx.still_leading()?;
        match server_record::remove(&ctx.client, &ctx.settings.home, &look.record).await {
            // Its login was refreshed in between: it is looked at again.
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
            Ok(()) => {
                tracing::info!(server, "removed a server record that nothing needs any more");
                ctx.metrics.audit_acted(AuditAction::RemoveRecord);
                ctx.audit.forget(server);
            }
        }
    }
    Ok(())
}

fn is_empty(look: &Look, books: &Books) -> bool {
    let server = &look.record.login.record;
    // Keepers stay: what they own is somebody's data, and none of it is an account.
    look.roles.iter().all(|role| role.said.kind == RoleKind::Keeper)
        && look.strangers.unverified.is_empty()
        && books.leases.iter().all(|lease| lease.server != *server)
}
