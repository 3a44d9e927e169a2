//! What people are told: a condition on the pool whose engines looked, Events, and counts.

use super::look::Look;
use crate::api::EnginePool;
use crate::api::conditions::{self, AUDITED, Reason, ReasonKind};
use crate::api::names::CONFIRM_REVOCATION;
use crate::cluster::status;
use crate::control::context::Context;
use crate::control::hold::Error;
use crate::plan::audit::{Brake, Broken, Fault, Findings, Orphan};
use crate::telemetry::metrics::AuditFinding;
use kube::ResourceExt;
use kube::runtime::events::EventType;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Names that are told of each kind; the rest is a number.
const NAMED: usize = 5;
const IN_ORDER: &str = "the roles in the databases are those on the books";

/// Findings of one server, and what was done about them.
pub(super) struct Verdict {
    pub(super) findings: Findings,
    pub(super) brake: Option<Brake>,
    pub(super) revoked: Vec<Orphan>,
    pub(super) ended: Vec<Broken>,
    pub(super) dropped: Vec<String>,
    /// What could not be taken away, as sentences.
    pub(super) stuck: Vec<String>,
    /// Groups that do not carry what they should, as sentences.
    pub(super) group_faults: Vec<(Reason, String)>,
    unverified: Vec<String>,
}

/// What is said of one server.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) record: String,
    pool_uid: String,
    address: String,
    /// Reason and sentence each; none: in order.
    facts: Vec<(Reason, String)>,
    counts: BTreeMap<AuditFinding, usize>,
}

impl Verdict {
    pub(super) fn new(look: &Look, findings: Findings, brake: Option<Brake>) -> Self {
        Self {
            findings,
            brake,
            revoked: Vec::new(),
            ended: Vec::new(),
            dropped: Vec::new(),
            stuck: Vec::new(),
            group_faults: Vec::new(),
            unverified: look.strangers.unverified.clone(),
        }
    }

    /// Nothing waits to be done.
    pub(super) fn is_settled(&self) -> bool {
        self.brake.is_none() && self.stuck.is_empty()
    }

    /// Something was changed, or could not be: the server is looked at again soon.
    pub(super) fn acted(&self) -> bool {
        let changed = !self.revoked.is_empty() || !self.ended.is_empty() || !self.dropped.is_empty();
        changed || !self.stuck.is_empty()
    }

    /// In words.
    pub(super) fn said(&self, look: &Look) -> Said {
        let login = &look.record.login;
        Said {
            record: login.record.clone(),
            pool_uid: look.pool_uid(),
            address: format!("{}:{}", login.host, login.port),
            facts: self.facts(),
            counts: self.counts(),
        }
    }

    /// Gravest first.
    fn facts(&self) -> Vec<(Reason, String)> {
        let mut facts = Vec::new();
        if let Some(Brake { count, of, value, .. }) = &self.brake {
            facts.push((
                Reason::ConfirmationNeeded,
                format!(
                    "{count} of {of} accounts would be ended before their time, which is more than is done without being \
                     asked; check that this is the right server and that the books are whole, then annotate this pool: \
                     {CONFIRM_REVOCATION}={value}"
                ),
            ));
        }
        let held = if self.brake.is_some() {
            &self.findings.broken
        } else {
            &self.ended
        };
        let names = |fault: fn(&Fault) -> bool| -> Vec<&str> {
            let with = held.iter().filter(|broken| fault(&broken.fault));
            with.map(|broken| broken.role.as_str()).collect()
        };
        let missing = names(|fault| *fault == Fault::Missing);
        let altered = names(|fault| *fault != Fault::Missing);
        told(
            &mut facts,
            Reason::AccountMissing,
            "gone though their leases live",
            &missing,
        );
        told(&mut facts, Reason::AccountAltered, "changed by hand", &altered);
        let unlocked: Vec<&str> = self.findings.unlocked.iter().map(|lease| lease.role.as_str()).collect();
        told(&mut facts, Reason::AccountAltered, "unlocked by hand", &unlocked);
        let stuck = self.stuck.iter().take(NAMED);
        facts.extend(stuck.map(|sentence| (Reason::OrphanAccount, sentence.clone())));
        let revoked: Vec<&str> = self.revoked.iter().map(|orphan| orphan.role.as_str()).collect();
        told(
            &mut facts,
            Reason::OrphanAccount,
            "without a lease, now revoked",
            &revoked,
        );
        let unknown: Vec<&str> = self.findings.unknown.iter().map(|one| one.role.as_str()).collect();
        let what = "without a lease, left to the end that they carry";
        told(&mut facts, Reason::UnknownAccount, what, &unknown);
        let unverified: Vec<&str> = self.unverified.iter().map(String::as_str).collect();
        let what = "named as this installation's, but signed by a key that it does not have, so not touched";
        told(&mut facts, Reason::ForeignRole, what, &unverified);
        let copies: Vec<&str> = self.findings.copies.iter().map(String::as_str).collect();
        let what = "with the comment of another role of ours, or renamed, so not touched";
        told(&mut facts, Reason::ForeignRole, what, &copies);
        for (group, members) in self.findings.joined.iter().take(NAMED) {
            let message = format!("group role {group} was granted to {} by hand", members.join(", "));
            facts.push((Reason::GroupAltered, message));
        }
        facts.extend(self.group_faults.iter().take(NAMED).cloned());
        facts
    }

    fn counts(&self) -> BTreeMap<AuditFinding, usize> {
        let missing = |broken: &&Broken| broken.fault == Fault::Missing;
        let broken = &self.findings.broken;
        BTreeMap::from([
            (AuditFinding::Orphan, self.findings.orphans.len()),
            (AuditFinding::Unknown, self.findings.unknown.len()),
            (AuditFinding::Missing, broken.iter().filter(missing).count()),
            (AuditFinding::Altered, broken.iter().filter(|one| !missing(one)).count()),
            (AuditFinding::Unlocked, self.findings.unlocked.len()),
            (
                AuditFinding::Group,
                self.findings.orphan_groups.len() + self.findings.joined.len() + self.group_faults.len(),
            ),
            (
                AuditFinding::Unverified,
                self.unverified.len() + self.findings.copies.len(),
            ),
            (AuditFinding::Braked, self.brake.as_ref().map_or(0, |brake| brake.count)),
        ])
    }
}

fn told(facts: &mut Vec<(Reason, String)>, reason: Reason, what: &str, roles: &[&str]) {
    if roles.is_empty() {
        return;
    }
    let mut named: Vec<&str> = roles.iter().take(NAMED).copied().collect();
    let more = format!("{} more", roles.len().saturating_sub(NAMED));
    if roles.len() > NAMED {
        named.push(&more);
    }
    facts.push((reason, format!("accounts {what}: {}", named.join(", "))));
}

/// Writes the condition of every pool that has something to say, and all counts. Writes nothing that is there already. Of a
/// pool that is `busy` but not looked at yet nothing is known, so what it says stays.
pub(super) async fn all(ctx: &Context, busy: &BTreeSet<String>) -> Result<(), Error> {
    let everything = ctx.audit.everything_said();
    for &finding in AuditFinding::EVERY {
        let counts = everything.iter().filter_map(|said| said.counts.get(&finding));
        ctx.metrics.audit_found(finding, counts.sum());
    }
    ctx.metrics.audit_unreached(ctx.audit.unreached_count());
    for pool in ctx.stores.pools.state() {
        let uid = pool.uid();
        let of_pool: Vec<&Said> = everything
            .iter()
            .filter(|said| Some(&said.pool_uid) == uid.as_ref())
            .collect();
        let had = pool
            .status
            .iter()
            .any(|status| conditions::find(&status.conditions, AUDITED).is_some());
        let idle = had && uid.as_ref().is_some_and(|uid| !busy.contains(uid));
        if (!of_pool.is_empty() || idle) && pool.metadata.deletion_timestamp.is_none() {
            write(ctx, &pool, &of_pool).await?;
        }
    }
    Ok(())
}

async fn write(ctx: &Context, pool: &Arc<EnginePool>, said: &[&Said]) -> Result<(), Error> {
    let (state, reason, message) = summary(ctx, said);
    let now = ctx.now();
    let mut news = false;
    ctx.still_leading()?;
    status::amend(&ctx.client, pool.as_ref(), |pool| {
        let generation = pool.metadata.generation;
        let conditions = &mut pool.status.get_or_insert_default().conditions;
        let old = conditions::find(conditions, AUDITED);
        news = old.is_none_or(|old| old.reason != reason.as_str() || old.message != message || old.status != state);
        conditions::set(conditions, AUDITED, state, reason, &message, generation, now);
        news
    })
    .await?;
    if news && reason.kind() != ReasonKind::Good {
        ctx.announce(pool.as_ref(), reason, &message, EventType::Warning).await;
    }
    Ok(())
}

/// Status, reason and message of the condition.
fn summary(ctx: &Context, said: &[&Said]) -> (&'static str, Reason, String) {
    let mut facts = Vec::new();
    let mut stands = None;
    for one in said {
        let of_server = one
            .facts
            .iter()
            .map(|(reason, text)| (*reason, format!("{}: {text}", one.address)));
        facts.extend(of_server);
        if let Some(hold) = ctx.audit.standstill(&one.record) {
            stands = Some((hold.reason, format!("{}: {}", one.address, hold.message)));
        }
    }
    // The gravest is first within a server; among servers the one that waits for a person is.
    facts.sort_by_key(|(reason, _)| match reason {
        Reason::ConfirmationNeeded => 0,
        Reason::AccountMissing | Reason::AccountAltered | Reason::OrphanAccount => 1,
        Reason::UnknownAccount => 3,
        _ => 2,
    });
    let texts: Vec<&str> = facts.iter().map(|(_, text)| text.as_str()).collect();
    match (facts.first(), stands) {
        (Some((reason, _)), _) => ("False", *reason, shortened(&texts.join("; "))),
        (None, Some((reason, message))) => {
            let message = format!("no inventory could be made lately: {message}");
            ("Unknown", reason, shortened(&message))
        }
        (None, None) => ("True", Reason::Consistent, IN_ORDER.to_owned()),
    }
}

/// What a condition can hold; compared with what is there, so it must be cut here already.
fn shortened(text: &str) -> String {
    text.chars().take(1024).collect()
}
