//! Base secrets and the servers behind them: read fresh, checked by an engine before first use, kept as records.

use super::context::Context;
use super::hold::{Error, Halt, Hold};
use super::memory::BaseIdentity;
use super::silence;
use super::tasks::{Answer, ask};
use crate::api::base_secret;
use crate::api::conditions::Reason;
use crate::api::grants::Grant;
use crate::api::lease::{Claim, ClaimedGroup};
use crate::api::names::keeper_name;
use crate::channel::frames::{Done, GrantText, Group, Keeper, MAX_KEEPERS, ProbeReport, ServerLogin, Task};
use crate::cluster::server_record::Record;
use crate::cluster::{objects, server_record};
use crate::keys::{RoleComment, RoleKind};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use std::time::{Duration, Instant};

/// How long an engine may take to look at a server or to make a group.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a group counts as checked. Engines check it themselves too; this only spares a round trip.
const GROUP_CHECKED: SignedDuration = SignedDuration::from_mins(10);

/// How often an engine is asked again at once with the keepers that it wanted. Each time it takes things out of as many
/// databases as one task has keepers; what is left then waits as everything that is tried again.
pub const KEEPER_ROUNDS: usize = 8;

/// A base secret as read just now.
pub struct Base {
    /// The Secret.
    pub secret: Secret,
    /// What it says, with its record's name.
    pub login: ServerLogin,
}

/// Reads a base secret fresh.
pub async fn read_base(ctx: &Context, namespace: &str, name: &str) -> Result<Base, Halt> {
    ctx.serves(namespace)?;
    let Some(secret) = objects::read::<Secret>(&ctx.client, namespace, name).await? else {
        return Err(Hold::new(
            Reason::BaseSecretMissing,
            format!("base secret {namespace}/{name} does not exist; create it with label dsv.dev/type=postgresql and keys host, port, username, password"),
        )
        .into());
    };
    let mut login =
        base_secret::read(&secret).map_err(|invalid| Hold::new(Reason::BaseSecretInvalid, invalid.to_string()))?;
    login.record = server_record::name(namespace, &login);
    let identity = BaseIdentity {
        version: secret.resource_version().unwrap_or_default(),
        record: login.record.clone(),
        database: login.database.clone(),
    };
    ctx.bases.keep(namespace, name, identity);
    Ok(Base { secret, login })
}

/// Where a base secret leads; reads it only where its version changed since the last time. None where it cannot be told.
pub async fn identity(ctx: &Context, namespace: &str, name: &str) -> Result<Option<BaseIdentity>, Error> {
    let Some(meta) = ctx.stores.bases.get(&ObjectRef::new(name).within(namespace)) else {
        return Ok(None);
    };
    let version = meta.metadata.resource_version.clone().unwrap_or_default();
    if let Some(known) = ctx.bases.of(namespace, name, &version) {
        return Ok(Some(known));
    }
    match read_base(ctx, namespace, name).await {
        Ok(base) => Ok(ctx
            .bases
            .of(namespace, name, &base.secret.resource_version().unwrap_or_default())),
        Err(Halt::Hold(_)) => Ok(None),
        Err(Halt::Error(error)) => Err(error),
    }
}

/// Has an engine look at the server, unless this version of the base secret was looked at before.
pub async fn checked(ctx: &Context, pool_uid: &str, base: &Base) -> Result<(), Halt> {
    let version = base.secret.resource_version().unwrap_or_default();
    let facts = ctx.servers.of(&base.login.record);
    let known = facts
        .probe
        .filter(|(at, report)| *at == version && report.missing.is_empty());
    if known.is_some() && facts.offset.is_some() {
        return Ok(());
    }
    let report = probe(ctx, pool_uid, base).await?;
    ready(&report, &base.secret.name_any()).map_err(Halt::Hold)?;
    if ctx.servers.of(&base.login.record).offset.is_none() {
        let hold = "no engine has reported the database's clock yet; the ttl is counted by it";
        return Err(Hold::new(Reason::WaitingForClock, hold).into());
    }
    Ok(())
}

/// Has an engine look at the server.
pub async fn probe(ctx: &Context, pool_uid: &str, base: &Base) -> Result<ProbeReport, Halt> {
    let task = Task::Probe {
        server: base.login.clone(),
    };
    match ask(ctx, pool_uid, &base.login.record, task, PATIENCE).await {
        Answer::Done(_, Done::Probe(report)) => {
            let version = base.secret.resource_version().unwrap_or_default();
            ctx.servers.probed(&base.login.record, &version, report.clone());
            if let Some(history) = history(report.system_identifier.as_deref(), report.timeline) {
                ctx.audit.history_heard(&base.login.record, &history);
            }
            Ok(report)
        }
        other => Err(other.hold().into()),
    }
}

/// Keeps the login as a server record. A new one is audited: accounts of ours may be on that server from earlier times.
pub async fn keep_record(ctx: &Context, base: &Base) -> Result<(), Error> {
    let (home, signers, name) = (&ctx.settings.home, ctx.installation.signers(), &base.login.record);
    let known = match ctx.recent_records.of(name, Instant::now()) {
        Some(known) => Some(known),
        None => read_record(ctx, name).await?,
    };
    let has_all = |known: &Record| signers.iter().all(|key| known.signers.contains(key));
    if known.is_some_and(|known| known.login == base.login && has_all(&known)) {
        return Ok(());
    }
    let made = server_record::keep(&ctx.client, home, &base.secret, &base.login, &signers).await;
    ctx.recent_records.forget(name, Instant::now());
    if made? {
        ctx.audit.want_record(name);
    }
    Ok(())
}

/// The login of a server record; see [`recent`].
pub async fn login(ctx: &Context, name: &str) -> Result<Option<ServerLogin>, Error> {
    Ok(recent(ctx, name).await?.map(|record| record.login))
}

/// As [`record`], also as it was read a moment ago: enough for who needs its login and keys.
pub async fn recent(ctx: &Context, name: &str) -> Result<Option<Record>, Error> {
    match ctx.recent_records.of(name, Instant::now()) {
        Some(known) => Ok(Some(known)),
        None => record(ctx, name).await,
    }
}

async fn read_record(ctx: &Context, name: &str) -> Result<Option<Record>, Error> {
    let asked = Instant::now();
    let found = server_record::read(&ctx.client, &ctx.settings.home, name).await?;
    match &found {
        Some(record) => ctx.recent_records.note(record, asked),
        None => ctx.recent_records.forget(name, Instant::now()),
    }
    Ok(found)
}

/// A server record. One that is gone is made again, if a base secret still leads to the same login.
pub async fn record(ctx: &Context, record: &str) -> Result<Option<Record>, Error> {
    if let Some(found) = read_record(ctx, record).await? {
        return Ok(Some(found));
    }
    for base in ctx.stores.bases.state() {
        let (namespace, name) = (base.namespace().unwrap_or_default(), base.name_any());
        let leads = identity(ctx, &namespace, &name).await?;
        if leads.is_none_or(|leads| leads.record != record) {
            continue;
        }
        match read_base(ctx, &namespace, &name).await {
            Ok(base) if base.login.record == record => {
                ctx.still_leading()?;
                tracing::warn!(
                    record,
                    namespace,
                    name,
                    "a server record was gone; it is made again from its base secret"
                );
                keep_record(ctx, &base).await?;
                return read_record(ctx, record).await;
            }
            Ok(_) | Err(Halt::Hold(_)) => {}
            Err(Halt::Error(error)) => return Err(error),
        }
    }
    Ok(None)
}

/// Names a server's history: system identifier and timeline, where both are known.
pub fn history(system_identifier: Option<&str>, timeline: Option<i64>) -> Option<String> {
    Some(format!("{}/{}", system_identifier?, timeline?))
}

/// Whether accounts can be issued on the server that was looked at.
pub fn ready(report: &ProbeReport, base: &str) -> Result<(), Hold> {
    if report.missing.is_empty() {
        return Ok(());
    }
    let sql = report.missing.join("; ");
    Err(Hold::new(
        Reason::MissingPrivilege,
        format!("the login in base secret {base} lacks privileges; run: {sql}"),
    ))
}

/// A group as engines understand it, with its signed comment. The same in every call: signatures are deterministic.
pub fn group(ctx: &Context, owner_uid: &str, claimed: &ClaimedGroup) -> Result<Group, Error> {
    let comment = RoleComment {
        kind: RoleKind::Group,
        installation: ctx.installation.id.clone(),
        subject: owner_uid.to_owned(),
        role: claimed.name.clone(),
        claimed_at: claimed.since.0,
        expires_at: None,
    };
    let grants = claimed.grants.iter().map(|pair| GrantText {
        what: pair.what.clone(),
        target: pair.target.clone(),
    });
    Ok(Group {
        name: claimed.name.clone(),
        comment: comment.sign(&ctx.installation.signing())?,
        signers: signers(ctx),
        grants: grants.collect(),
    })
}

/// The group of a claim.
pub fn claimed_group(ctx: &Context, claim: &Claim) -> Result<Group, Error> {
    group(ctx, &claim.dynamic_secret_uid, &claim.group)
}

/// Has an engine make or check the group, unless one did a while ago.
pub async fn ensure_group(ctx: &Context, pool_uid: &str, login: &ServerLogin, group: Group) -> Result<(), Halt> {
    // Also where the group is known: a lease that nobody can issue would have to be proven gone, one more with each attempt.
    if let Some(hold) = silence::hold(ctx, pool_uid, &login.record) {
        return Err(hold.into());
    }
    let name = group.name.clone();
    let now = ctx.now();
    let checked = ctx.servers.of(&login.record).groups.get(&name).copied();
    if checked.is_some_and(|at| now.duration_since(at) < GROUP_CHECKED) {
        return Ok(());
    }
    let task = Task::EnsureGroup {
        server: login.clone(),
        group,
    };
    match ask(ctx, pool_uid, &login.record, task, PATIENCE).await {
        Answer::Done(_, Done::GroupReady) => {
            ctx.servers.group_seen(&login.record, &name, now);
            Ok(())
        }
        other => Err(other.hold().into()),
    }
}

/// The keepers of these databases of one server, signed. Only whoever has the signing key can make them, and only an engine
/// finds out for which databases they are needed.
pub fn keepers(ctx: &Context, record: &str, databases: &[String]) -> Result<Vec<Keeper>, Hold> {
    let mut keepers = Vec::new();
    for database in databases.iter().take(MAX_KEEPERS) {
        let name = keeper_name(&ctx.installation.id, record, database);
        let comment = RoleComment {
            kind: RoleKind::Keeper,
            installation: ctx.installation.id.clone(),
            subject: record.to_owned(),
            role: name.clone(),
            claimed_at: ctx.now(),
            expires_at: None,
        };
        let comment = comment.sign(&ctx.installation.signing()).map_err(|error| {
            let message = format!("the comment of keeper role {name} could not be signed: {error}");
            Hold::new(Reason::ClusterError, message)
        })?;
        let database = database.clone();
        keepers.push(Keeper {
            database,
            name,
            comment,
        });
    }
    Ok(keepers)
}

/// Public halves of the keys that may have signed role comments.
pub fn signers(ctx: &Context) -> Vec<String> {
    ctx.installation.signers().iter().map(ToString::to_string).collect()
}

/// The same for one server: what its record knows counts as well, as after a restored backup.
pub fn signers_on(ctx: &Context, record: &Record) -> Vec<String> {
    let all = server_record::union(&ctx.installation.signers(), &record.signers);
    all.iter().map(ToString::to_string).collect()
}

/// Grants in the form that custom resources carry.
pub fn pairs(grants: &[Grant]) -> Vec<crate::api::permissions::GrantPermissions> {
    grants.iter().map(Into::into).collect()
}
