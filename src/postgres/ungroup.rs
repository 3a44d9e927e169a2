//! Removing a group role that nobody is a member of any more.
//!
//! In every database where it has something, its rights are taken away, and what it *owns* (possible only where members could
//! become the group: before PostgreSQL 16, or by hand) goes to the keeper role of that database. Then it is dropped.

use super::connect::Session;
use super::failure::{Trouble, failure};
use super::group;
use super::handover::{self, Handed, Handover, Leaver};
use super::keeper;
use super::pool::{Checkout, Server};
use super::proof::Proof;
use super::revoke::{Keepers, holdings};
use super::sql::{Ident, Literal, NotSql};
use crate::channel::frames::{Done, FailureClass, Group, Keeper, Outcome, OwnedObjects};
use crate::keys::RoleKind;
use std::time::{Duration, Instant};
use tokio_postgres::types::Type;

/// How long a task waits for a session.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often a conflict with somebody else's change of privileges is tried again.
const TRIES: u32 = 3;

/// Drops the group. See [`super::Servers::drop_group`].
pub(super) async fn drop_group(server: &Server, proof: &dyn Proof, group: &Group, keepers: &[Keeper]) -> Outcome {
    group::forget(server, group);
    let mut tries = 1;
    loop {
        match attempt(server, proof, group, keepers).await {
            Ok(done) => return Outcome::Done { done, clock: None },
            Err(trouble) if trouble.code().is_some() && trouble.is_busy() && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(rand::random_range(10..200))).await;
            }
            Err(trouble) => return trouble.into(),
        }
    }
}

async fn attempt(server: &Server, proof: &dyn Proof, group: &Group, keepers: &[Keeper]) -> Result<Done, Trouble> {
    let unfit = |error: NotSql| failure(FailureClass::BadTask, format!("group role {:?}: {error}", group.name));
    let role = Ident::new(&group.name).map_err(unfit)?;
    let lock = Literal::new(&group.name).map_err(unfit)?;
    let session = server.session(Instant::now() + PATIENCE).await?;
    // Held until the end: an issue takes the same lock shared, so nobody becomes a member in between.
    let begin = format!(
        "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '60s'; \
         SELECT pg_advisory_xact_lock(hashtextextended({lock}, 0))"
    );
    session.text("lock the group role", &begin).await?;
    let mut keepers = Keepers::new(keepers);
    if let Some(found) = look_up(&session, proof, group).await? {
        let empty = Emptying {
            server,
            proof,
            group,
            found: &found,
        };
        empty.everywhere(&session, &mut keepers).await?;
        if !keepers.wanted.is_empty() {
            return Ok(Done::GroupNeedsKeepers {
                databases: keepers.wanted.into_iter().collect(),
            });
        }
        session
            .text(&format!("drop group role {role}"), &format!("DROP ROLE {role}"))
            .await?;
    }
    session.text("commit the removal of the group role", "COMMIT").await?;
    if keepers.used {
        keeper::drop_empty(&session, proof).await?;
    }
    session.keep();
    Ok(Done::GroupDropped)
}

/// A group role that is ours and has no members.
struct Found {
    oid: u32,
    comment: String,
}

async fn look_up(session: &Session, proof: &dyn Proof, group: &Group) -> Result<Option<Found>, Trouble> {
    let inherits = if session.has_grant_options() {
        "(m.inherit_option OR m.set_option)"
    } else {
        "true"
    };
    // Being the administrator of a role, as its creator is from 16 on, makes nobody its user.
    let sql = format!(
        "SELECT r.oid, shobj_description(r.oid, 'pg_authid'), (SELECT count(*) FROM pg_auth_members m \
         JOIN pg_roles u ON u.oid = m.member WHERE m.roleid = r.oid AND {inherits} AND u.rolname <> current_user) \
         FROM pg_roles r WHERE r.rolname = $1"
    );
    let rows = session
        .query("look up the group role", &sql, &[(&group.name, Type::TEXT)])
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let name = &group.name;
    let comment: Option<String> = row.try_get(1).ok().flatten();
    let is_ours = |comment: &String| *comment == group.comment || proof.is_named(comment, RoleKind::Group, name);
    let Some(comment) = comment.filter(is_ours) else {
        let message = format!("role {name} has a comment that is not ours; it was not touched");
        return Err(failure(FailureClass::Foreign, message).into());
    };
    let members: i64 = row.try_get(2).unwrap_or(i64::MAX);
    if members > 0 {
        let message = format!("group role {name} still has {members} member(s); revoke their leases first");
        return Err(failure(FailureClass::Busy, message).into());
    }
    Ok(row.try_get(0).ok().map(|oid| Found { oid, comment }))
}

struct Emptying<'a> {
    server: &'a Server,
    proof: &'a dyn Proof,
    group: &'a Group,
    found: &'a Found,
}

impl Emptying<'_> {
    /// Takes away what the group has, database by database. Where a keeper is missing it is asked for, and the others go on.
    async fn everywhere(&self, session: &Checkout<'_>, keepers: &mut Keepers<'_>) -> Result<(), Trouble> {
        for holding in holdings(session, self.found.oid).await? {
            let keeper = keepers.of(&holding.database).filter(|_| holding.owns);
            if holding.owns && keeper.is_none() {
                keepers.want(&holding.database);
                continue;
            }
            keepers.used |= keeper.is_some();
            let there = match self.server.open(&holding.database).await {
                Ok(there) => there,
                // Dropped meanwhile, with all that was in it.
                Err(failure) if failure.class == FailureClass::ObjectMissing => continue,
                Err(failure) => return Err(failure.into()),
            };
            self.in_one(&there, keeper, keepers).await?;
        }
        Ok(())
    }

    async fn in_one(&self, there: &Session, keeper: Option<&Keeper>, keepers: &mut Keepers<'_>) -> Result<(), Trouble> {
        let handover = Handover {
            proof: self.proof,
            leaver: Leaver {
                oid: self.found.oid,
                name: &self.group.name,
                comment: &self.found.comment,
            },
            keeper,
            owned: OwnedObjects::Reassign,
        };
        let (name, database) = (&self.group.name, &there.database);
        match handover::run(there, &handover).await? {
            Handed::Over => Ok(()),
            Handed::NeedsKeeper => {
                keepers.want(database);
                Ok(())
            }
            Handed::Changed => {
                let message = format!("group role {name} changed while it was emptied; it is tried again");
                Err(failure(FailureClass::Busy, message).into())
            }
            Handed::Refused(mut failure) => {
                failure.message = format!("in database {database}: {}", failure.message);
                Err(failure.into())
            }
        }
    }
}
