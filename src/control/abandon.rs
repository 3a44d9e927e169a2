//! The escape hatch at work: who said so, what is let go of, and everything that tells of it afterwards.

use super::context::Context;
use super::hold::{Error, Hold};
use crate::api::conditions::Reason;
use crate::api::dynamic_secret::GroupRecord;
use crate::api::lease::Claim;
use crate::api::names::ABANDON;
use crate::api::{CredentialLease, DynamicSecret, EnginePool};
use crate::cluster::objects;
use crate::plan::abandon::{self, SHORTEST_REASON, Wish};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;

/// What comes of asking whether something may be let go of.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody said so.
    Keep,
    /// Not before then.
    NotYet(Timestamp),
    /// It is done with: it was told on pool and owner, logged and counted.
    LetGo,
}

/// Whether this lease, which is due and could not be proven gone just now, is let go of.
pub async fn lease(
    ctx: &Context,
    lease: &CredentialLease,
    claim: &Claim,
    role: &str,
    last: &Hold,
) -> Result<Verdict, Error> {
    let uid = lease.uid().unwrap_or_default();
    let deleted = lease.metadata.deletion_timestamp.as_ref().map(|at| at.0);
    let ripe = abandon::ripe_at(deleted, Some(claim.expires_at.0).filter(|end| *end <= ctx.now()));
    // The pool that was claimed, or the one that was made anew in its place.
    let place = (claim.pool.namespace.as_str(), claim.pool.name.as_str());
    let Some(word) = spoken(ctx, place, &uid, ripe).await? else {
        return Ok(Verdict::Keep);
    };
    let Some(word) = word.ripe() else {
        return Ok(Verdict::NotYet(ripe));
    };
    let (namespace, name) = (lease.namespace().unwrap_or_default(), lease.name_any());
    let live: Option<CredentialLease> = objects::read(&ctx.client, &namespace, &name).await?;
    if live.and_then(|live| live.uid()).as_ref() != Some(&uid) {
        // An old view: it is off the books already, and was told of.
        return Ok(Verdict::LetGo);
    }
    let name = format!("{namespace}/{name}");
    let what = format!("account {role} of lease {name} ({uid})");
    word.tell(ctx, &what, &claim.server, last).await;
    let note = word.note(&what, &claim.server, last);
    ctx.tell(lease, Reason::Abandoned, &note, EventType::Warning).await;
    if let Some(owner) = ctx.owner(lease).await? {
        ctx.tell(&owner, Reason::Abandoned, &note, EventType::Warning).await;
    }
    Ok(Verdict::LetGo)
}

/// Whether this group role of a deleted dynamic secret, which could not be dropped just now, is let go of.
pub async fn group(ctx: &Context, owner: &DynamicSecret, record: &GroupRecord, last: &Hold) -> Result<Verdict, Error> {
    let Some(deleted) = owner.metadata.deletion_timestamp.as_ref().map(|at| at.0) else {
        return Ok(Verdict::Keep);
    };
    let uid = owner.uid().unwrap_or_default();
    let ripe = abandon::ripe_at(Some(deleted), None);
    let (namespace, name) = pool_of(ctx, owner, record);
    let Some(word) = spoken(ctx, (&namespace, &name), &uid, ripe).await? else {
        return Ok(Verdict::Keep);
    };
    let Some(word) = word.ripe() else {
        return Ok(Verdict::NotYet(ripe));
    };
    let of = format!("{}/{}", owner.namespace().unwrap_or_default(), owner.name_any());
    let what = format!("group role {} of DynamicSecret {of} ({uid})", record.name);
    word.tell(ctx, &what, &record.server, last).await;
    let note = word.note(&what, &record.server, last);
    ctx.tell(owner, Reason::Abandoned, &note, EventType::Warning).await;
    Ok(Verdict::LetGo)
}

/// Namespace and name of the pool that a group was made with; of the one in the spec where that is gone. While the pool on
/// the books exists, only its word counts: a spec that names another pool is the asker's own.
fn pool_of(ctx: &Context, owner: &DynamicSecret, record: &GroupRecord) -> (String, String) {
    let booked = ctx.stores.pools.find(|pool| pool.uid().as_ref() == Some(&record.pool));
    if let Some(pool) = booked {
        return (pool.namespace().unwrap_or_default(), pool.name_any());
    }
    let named = &owner.spec.pool;
    let namespace = named.namespace.clone().or_else(|| owner.namespace());
    (namespace.unwrap_or_default(), named.name.clone())
}

/// Somebody's word on a pool.
struct Word {
    pool: EnginePool,
    reason: String,
    /// Who wrote it and when, as far as the object tells.
    written: String,
    is_ripe: bool,
}

/// What the pool says about the UID, read fresh; none where it says nothing that counts.
async fn spoken(
    ctx: &Context,
    (namespace, name): (&str, &str),
    uid: &str,
    ripe: Timestamp,
) -> Result<Option<Word>, Error> {
    let cached = ctx.stores.pools.get(&ObjectRef::new(name).within(namespace));
    // Nearly always there is no word, and that costs no request. A pool that changed wakes what it names.
    if cached.is_none_or(|pool| abandon::wish(pool.annotations(), uid) == Wish::None) {
        return Ok(None);
    }
    let Some(pool) = objects::read::<EnginePool>(&ctx.client, namespace, name).await? else {
        return Ok(None);
    };
    let reason = match abandon::wish(pool.annotations(), uid) {
        Wish::LetGo(reason) => reason.to_owned(),
        Wish::Unreasoned => {
            let note = format!(
                "annotation {ABANDON}{uid} is not heeded: its value must say why, in {SHORTEST_REASON} characters or more"
            );
            ctx.tell(&pool, Reason::InvalidSpec, &note, EventType::Warning).await;
            return Ok(None);
        }
        Wish::None => return Ok(None),
    };
    ctx.still_leading()?;
    Ok(Some(Word {
        written: written(&pool, uid),
        reason,
        pool,
        is_ripe: ctx.now() >= ripe,
    }))
}

/// The API server notes which program wrote an annotation, and when; only its audit log knows the person.
fn written(pool: &EnginePool, uid: &str) -> String {
    let field = format!("f:{ABANDON}{uid}");
    let wrote = |fields: &serde_json::Value| {
        let annotations = fields
            .get("f:metadata")
            .and_then(|metadata| metadata.get("f:annotations"));
        annotations.is_some_and(|annotations| annotations.get(&field).is_some())
    };
    let entry = pool
        .managed_fields()
        .iter()
        .find(|entry| entry.fields_v1.as_ref().is_some_and(|fields| wrote(&fields.0)));
    let Some(entry) = entry else {
        return "by an unknown program".to_owned();
    };
    let program = entry.manager.as_deref().unwrap_or("an unknown program");
    let at = entry
        .time
        .as_ref()
        .map_or_else(|| "an unknown time".to_owned(), |at| at.0.to_string());
    format!("by {program} at {at}")
}

impl Word {
    fn ripe(self) -> Option<Self> {
        self.is_ripe.then_some(self)
    }

    fn note(&self, what: &str, server: &str, last: &Hold) -> String {
        format!(
            "{what} was let go of without proof that it is gone from {server}; annotation written {}, reason: {}; the last \
             attempt said: {}",
            self.written, self.reason, last.message
        )
    }

    /// On the pool, in the log and in the metric. The log line is the one to keep.
    async fn tell(&self, ctx: &Context, what: &str, server: &str, last: &Hold) {
        let pool = format!("{}/{}", self.pool.namespace().unwrap_or_default(), self.pool.name_any());
        tracing::warn!(
            audit = "abandoned",
            what,
            server,
            pool,
            reason = self.reason,
            written = self.written,
            last = last.message,
            "let go of without proof"
        );
        ctx.metrics.abandoned();
        let note = self.note(what, server, last);
        ctx.announce(&self.pool, Reason::Abandoned, &note, EventType::Warning)
            .await;
    }
}
