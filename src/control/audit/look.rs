//! Looking: the roles of a server through an engine, then the books at their source.

use crate::api::conditions::Reason;
use crate::api::lease::Phase;
use crate::api::names::CONFIRM_REVOCATION;
use crate::api::{CredentialLease, EnginePool};
use crate::channel::frames::{Done, Task};
use crate::cluster::server_record::Record;
use crate::cluster::{Intention, Parts};
use crate::control::context::Context;
use crate::control::hold::{Error, Hold};
use crate::control::servers;
use crate::control::tasks::{Answer, ask};
use crate::keys::SigningPublicKey;
use crate::plan::audit::{LeaseSeen, RoleSeen, Stage, Strangers, ours};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// How long an engine may take for one page.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was found on one server.
pub(super) struct Look {
    /// Its record, as it was before the look.
    pub(super) record: Record,
    /// The pool whose engine looked.
    pub(super) pool: Arc<EnginePool>,
    pub(super) roles: Vec<RoleSeen>,
    pub(super) strangers: Strangers,
    /// System identifier and timeline; none where the login may not read them.
    pub(super) history: Option<String>,
}

impl Look {
    /// Whether the server writes another history than when its books were in order last.
    pub(super) fn history_changed(&self) -> bool {
        self.history.is_some() && self.record.history.is_some() && self.history != self.record.history
    }

    /// Whether it is another server, not the same one on another timeline.
    pub(super) fn is_elsewhere(&self) -> bool {
        let server = |history: &Option<String>| history.as_ref()?.split('/').next().map(str::to_owned);
        self.history_changed() && server(&self.history) != server(&self.record.history)
    }

    pub(super) fn pool_uid(&self) -> String {
        self.pool.uid().unwrap_or_default()
    }
}

pub(super) enum Looked {
    Seen(Box<Look>),
    Unreached { record: String, hold: Hold },
}

/// The books, read after all roles.
pub(super) struct Books {
    /// Every open lease with a claim.
    pub(super) leases: Vec<LeaseSeen>,
    /// Names of group roles that dynamic secrets have on their books, from the cache.
    pub(super) groups: BTreeSet<String>,
}

/// UIDs of the pools whose engines may reach a server, likeliest first: those that are on the books with it, then those
/// beside its base secret.
pub(super) fn pools(ctx: &Context, record: &Record) -> Vec<String> {
    let server = &record.login.record;
    let mut uids = Vec::new();
    for lease in ctx.stores.leases.state() {
        if let Some(claim) = lease.claim().filter(|claim| *claim.server == **server) {
            uids.push(ctx.pool_uid(&claim.pool));
        }
    }
    for owner in ctx.stores.dynamic_secrets.state() {
        let groups = owner.status.iter().flat_map(|status| &status.groups);
        uids.extend(
            groups
                .filter(|group| group.server == *server)
                .map(|group| group.pool.clone()),
        );
    }
    let beside = |pool: &EnginePool| pool.namespace().as_ref() == Some(&record.namespace);
    uids.extend(
        ctx.stores
            .pools
            .state_filter(beside)
            .iter()
            .filter_map(|pool| pool.uid()),
    );
    let mut seen = BTreeSet::new();
    uids.retain(|uid| seen.insert(uid.clone()));
    uids
}

/// UIDs of leases that are known as issued now.
pub(super) fn issued(ctx: &Context) -> BTreeSet<String> {
    let is_issued = |lease: &CredentialLease| lease.status.as_ref().is_some_and(|status| status.issued_at.is_some());
    let issued = ctx.stores.leases.state_filter(is_issued);
    issued.iter().filter_map(|lease| lease.uid()).collect()
}

/// The confirming values that people wrote on a pool.
pub(super) fn confirmed(pool: &EnginePool) -> Vec<String> {
    let value = pool.annotations().get(CONFIRM_REVOCATION);
    let parts = value.iter().flat_map(|value| value.split(','));
    parts.map(|part| part.trim().to_owned()).collect()
}

/// Reads a server's roles through the first pool that can.
pub(super) async fn at(ctx: &Context, record: Record) -> Looked {
    let name = record.login.record.clone();
    let mut hold = Hold::new(
        Reason::WaitingForEngine,
        "no engine that reaches the server is connected",
    );
    for uid in pools(ctx, &record) {
        let pool = ctx.stores.pools.find(|pool| pool.uid().as_ref() == Some(&uid));
        let Some(pool) = pool else { continue };
        if ctx.hub.takers(&uid) == 0 {
            continue;
        }
        match inventory(ctx, &uid, &record).await {
            Ok((roles, strangers, history)) => {
                ctx.audit.looked_at(&name);
                return Looked::Seen(Box::new(Look {
                    record,
                    pool,
                    roles,
                    strangers,
                    history,
                }));
            }
            Err(refused) => hold = refused,
        }
    }
    Looked::Unreached { record: name, hold }
}

/// All pages, of which our roles are kept. A server that turns into another one between two pages is asked again later.
async fn inventory(
    ctx: &Context,
    pool_uid: &str,
    record: &Record,
) -> Result<(Vec<RoleSeen>, Strangers, Option<String>), Hold> {
    let signers = servers::signers_on(ctx, record);
    let signers: Vec<SigningPublicKey> = signers.iter().filter_map(|key| key.parse().ok()).collect();
    let (mut roles, mut strangers, mut after) = (Vec::new(), Strangers::default(), None);
    let mut history: Option<Option<String>> = None;
    loop {
        let task = Task::Inventory {
            server: record.login.clone(),
            after,
        };
        let page = match ask(ctx, pool_uid, &record.login.record, task, PATIENCE).await {
            Answer::Done(_, Done::Inventory(page)) => page,
            other => return Err(other.hold()),
        };
        let now = servers::history(page.system_identifier.as_deref(), page.timeline);
        if history.as_ref().is_some_and(|before| *before != now) {
            let message = "the server changed while it was looked at; it is looked at again";
            return Err(Hold::new(Reason::DatabaseBusy, message));
        }
        history = Some(now);
        let (found, others) = ours(page.roles, &signers, &ctx.installation.id);
        roles.extend(found);
        strangers.join(others);
        match page.next {
            None => return Ok((roles, strangers, history.flatten())),
            // Only ever forward, whatever an engine answers.
            Some(next) if after.is_none_or(|after| next > after) => after = Some(next),
            Some(_) => {
                let message = "an engine's inventory does not come to an end; update it";
                return Err(Hold::new(Reason::DatabaseError, message));
            }
        }
    }
}

/// Lists all leases at their source. `known` are those that were issued before the roles were read.
pub(super) async fn books(ctx: &Context, known: &BTreeSet<String>) -> Result<Books, Error> {
    let leases = list_leases(ctx, known).await?;
    let owners = ctx.stores.dynamic_secrets.state();
    let groups = owners
        .iter()
        .flat_map(|owner| owner.status.iter().flat_map(|status| &status.groups));
    Ok(Books {
        leases,
        groups: groups.map(|group| group.name.clone()).collect(),
    })
}

/// Every open lease of every namespace, as the API server has them now.
pub(super) async fn list_leases(ctx: &Context, known: &BTreeSet<String>) -> Result<Vec<LeaseSeen>, Error> {
    let mut seen = Vec::with_capacity(known.len());
    let mut texts = HashSet::new();
    let mut leases = Parts::<CredentialLease>::of(Api::all(ctx.client.clone()), ListParams::default());
    while let Some(part) = leases.next().await.to(|| "list all leases".to_owned())? {
        let now = ctx.now();
        seen.extend(
            part.iter()
                .filter_map(|lease| lease_seen(lease, now, known, &mut texts)),
        );
    }
    Ok(seen)
}

/// The text of which one is enough for all.
fn shared(texts: &mut HashSet<Arc<str>>, text: &str) -> Arc<str> {
    if let Some(known) = texts.get(text) {
        return known.clone();
    }
    let text: Arc<str> = text.into();
    texts.insert(text.clone());
    text
}

fn lease_seen(
    lease: &CredentialLease,
    now: Timestamp,
    known: &BTreeSet<String>,
    texts: &mut HashSet<Arc<str>>,
) -> Option<LeaseSeen> {
    let claim = lease.claim()?;
    let uid = lease.uid()?;
    let status = lease.status.as_ref();
    let over = lease.metadata.deletion_timestamp.is_some() || now >= claim.expires_at.0;
    let stage = if over && status.and_then(|s| s.phase) == Some(Phase::Blocked) {
        Stage::Locked
    } else if over {
        Stage::Ending
    } else if status.is_some_and(|s| s.issued_at.is_some()) {
        Stage::Live
    } else {
        Stage::Pending
    };
    let role = crate::api::names::role_name(&claim.user_prefix, &lease.spec.dynamic_secret, &uid)?;
    Some(LeaseSeen {
        known_before: known.contains(&uid),
        name: (lease.namespace().unwrap_or_default(), lease.name_any()),
        server: shared(texts, &claim.server),
        role,
        group: shared(texts, &claim.group.name),
        role_oid: status.and_then(|s| s.role_oid).and_then(|oid| u32::try_from(oid).ok()),
        valid_until: claim.valid_until.0,
        stage,
        uid,
    })
}
