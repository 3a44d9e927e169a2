//! Group roles: those that nobody needs are dropped, those in use are checked for their grants.

use super::look::Look;
use super::say::Verdict;
use crate::api::DynamicSecret;
use crate::api::dynamic_secret::GroupRecord;
use crate::api::lease::ClaimedGroup;
use crate::channel::frames::{Done, Group, Task};
use crate::cluster::{Intention, Parts};
use crate::control::context::Context;
use crate::control::dynamic_secret::ask_to_drop;
use crate::control::hold::Error;
use crate::control::servers;
use crate::control::tasks::{Answer, ask};
use crate::plan::audit::OrphanGroup;
use crate::telemetry::metrics::AuditAction;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use std::sync::Arc;
use std::time::Duration;

/// How long an engine may take for one group.
const PATIENCE: Duration = Duration::from_secs(30);

/// Checks the groups of one server.
pub(super) async fn check(ctx: &Context, look: &Look, verdict: &mut Verdict) -> Result<(), Error> {
    drop_orphans(ctx, look, verdict).await?;
    for (owner, record) in on_the_books(ctx, look, verdict) {
        ctx.still_leading()?;
        let claimed = ClaimedGroup {
            name: record.name.clone(),
            grants: record.grants.clone(),
            since: record.since.clone(),
        };
        let group = servers::group(ctx, &owner.uid().unwrap_or_default(), &claimed)?;
        let server = &look.record.login;
        let task = Task::EnsureGroup {
            server: server.clone(),
            group,
        };
        match ask(ctx, &look.pool_uid(), &server.record, task, PATIENCE).await {
            Answer::Done(_, Done::GroupReady) => ctx.servers.group_seen(&server.record, &record.name, ctx.now()),
            other => {
                // The next lease must find out by itself, and say so.
                ctx.servers.group_lost(&server.record, &record.name);
                let hold = other.hold();
                let name = format!("{}/{}", owner.namespace().unwrap_or_default(), owner.name_any());
                verdict
                    .group_faults
                    .push((hold.reason, format!("group role of {name}: {}", hold.message)));
            }
        }
    }
    Ok(())
}

/// The groups in use: seen on the server, and on the books of a dynamic secret that stays.
fn on_the_books(ctx: &Context, look: &Look, verdict: &Verdict) -> Vec<(Arc<DynamicSecret>, GroupRecord)> {
    let server = &look.record.login.record;
    let mut found = Vec::new();
    for owner in ctx.stores.dynamic_secrets.state() {
        if owner.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let groups = owner.status.iter().flat_map(|status| &status.groups);
        let here = groups.filter(|group| group.server == *server && verdict.findings.groups.contains(&group.name));
        found.extend(here.map(|group| (owner.clone(), group.clone())));
    }
    found
}

async fn drop_orphans(ctx: &Context, look: &Look, verdict: &mut Verdict) -> Result<(), Error> {
    if verdict.findings.orphan_groups.is_empty() {
        return Ok(());
    }
    // The cache may not show yet that somebody took one into use.
    let live = dynamic_secrets(ctx).await?;
    for orphan in verdict.findings.orphan_groups.clone() {
        if is_on_the_books(&live, &orphan) {
            continue;
        }
        ctx.still_leading()?;
        let server = &look.record.login;
        tracing::warn!(
            server = server.record,
            group = orphan.name,
            "dropping a group role that nobody needs"
        );
        ctx.servers.group_lost(&server.record, &orphan.name);
        let group = Group {
            name: orphan.name.clone(),
            comment: orphan.comment.clone(),
            signers: servers::signers_on(ctx, &look.record),
            grants: Vec::new(),
        };
        match ask_to_drop(ctx, &look.pool_uid(), &look.record, group).await {
            Answer::Done(_, Done::GroupDropped) => {
                ctx.metrics.audit_acted(AuditAction::DropGroup);
                verdict.dropped.push(orphan.name);
            }
            other => {
                let why = other.hold().message;
                verdict
                    .stuck
                    .push(format!("group role {} is not dropped yet: {why}", orphan.name));
            }
        }
    }
    Ok(())
}

fn is_on_the_books(live: &[DynamicSecret], orphan: &OrphanGroup) -> bool {
    live.iter().any(|owner| {
        let groups = owner.status.iter().flat_map(|status| &status.groups);
        groups.into_iter().any(|group| group.name == orphan.name)
    })
}

/// Every dynamic secret, as the API server has them now.
pub(super) async fn dynamic_secrets(ctx: &Context) -> Result<Vec<DynamicSecret>, Error> {
    let mut all = Vec::new();
    let mut owners = Parts::<DynamicSecret>::of(Api::all(ctx.client.clone()), ListParams::default());
    while let Some(part) = owners.next().await.to(|| "list all dynamic secrets".to_owned())? {
        all.extend(part);
    }
    Ok(all)
}
