//! Removing a group role that nobody is a member of any more.
//!
//! Its rights are taken away in every database where it has some, then it is dropped. What it *owns* (possible only where
//! members could become the group: before PostgreSQL 16, or by hand) is named and left alone; only default privileges,
//! which are settings and not data, go with it.

use super::connect::Session;
use super::failure::{Trouble, failure};
use super::group;
use super::pool::{Checkout, Server};
use super::proof::Proof;
use super::sql::{Ident, Literal, NotSql};
use crate::channel::frames::{Done, Failure, FailureClass, Group, Outcome};
use std::time::{Duration, Instant};
use tokio_postgres::types::Type;

/// How long a task waits for a session.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often a conflict with somebody else's change of privileges is tried again.
const TRIES: u32 = 3;

/// Drops the group. See [`super::Servers::drop_group`].
pub(super) async fn drop_group(server: &Server, proof: &dyn Proof, group: &Group) -> Outcome {
    group::forget(server, group);
    let mut tries = 1;
    loop {
        match attempt(server, proof, group).await {
            Ok(()) => {
                return Outcome::Done {
                    done: Done::GroupDropped,
                    clock: None,
                };
            }
            Err(trouble) if trouble.code().is_some() && trouble.is_busy() && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(rand::random_range(10..200))).await;
            }
            Err(trouble) => return trouble.into(),
        }
    }
}

async fn attempt(server: &Server, proof: &dyn Proof, group: &Group) -> Result<(), Trouble> {
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
    if let Some(found) = look_up(&session, proof, group).await? {
        clean(server, &session, &found, &role).await?;
        session
            .text(&format!("drop group role {role}"), &format!("DROP ROLE {role}"))
            .await?;
    }
    session.text("commit the removal of the group role", "COMMIT").await?;
    session.keep();
    Ok(())
}

/// A group role that is ours and has no members.
struct Found {
    oid: u32,
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
    let ours = comment.is_some_and(|comment| comment == group.comment || proof.is_group(&comment, group));
    if !ours {
        let message = format!("role {name} has a comment that is not ours; it was not touched");
        return Err(failure(FailureClass::Foreign, message).into());
    }
    let members: i64 = row.try_get(2).unwrap_or(i64::MAX);
    if members > 0 {
        let message = format!("group role {name} still has {members} member(s); revoke their leases first");
        return Err(failure(FailureClass::Busy, message).into());
    }
    Ok(row.try_get(0).ok().map(|oid| Found { oid }))
}

/// Takes away what the group has, database by database. The session's own database comes last, in its open transaction.
async fn clean(server: &Server, session: &Checkout<'_>, found: &Found, role: &Ident) -> Result<(), Trouble> {
    let rows = session
        .query(
            "list the databases where the group role has rights",
            "SELECT DISTINCT d.datname::text FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid \
             WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1 AND d.datname <> current_database()",
            &[(&found.oid, Type::OID)],
        )
        .await?;
    for database in rows.iter().filter_map(|row| row.try_get::<_, String>(0).ok()) {
        let there = server.open(&database).await?;
        there.text("begin to clean a database", "BEGIN").await?;
        clean_here(&there, found, role).await?;
        there.text("commit the cleaning of a database", "COMMIT").await?;
    }
    // Also removes rights on databases themselves, which belong to no database.
    clean_here(session, found, role).await
}

async fn clean_here(session: &Session, found: &Found, role: &Ident) -> Result<(), Trouble> {
    let rows = session
        .query(
            "look for what the group role owns",
            "SELECT pg_describe_object(s.classid, s.objid, s.objsubid), pg_has_role(current_user, $1, 'USAGE') \
             FROM (SELECT) AS one LEFT JOIN pg_shdepend s ON s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1 \
             AND s.deptype = 'o' AND s.classid <> 'pg_default_acl'::regclass \
             AND s.dbid IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))",
            &[(&found.oid, Type::OID)],
        )
        .await?;
    let owned: Vec<String> = rows
        .iter()
        .filter_map(|row| row.try_get::<_, Option<String>>(0).ok().flatten())
        .collect();
    if !owned.is_empty() {
        return Err(owns(session, role, &owned).into());
    }
    // DROP OWNED is refused to those who are not members. A membership that we have already is not ours to take back.
    let member = rows.first().is_some_and(|row| row.try_get(1).unwrap_or_default());
    let sql = if member {
        format!("DROP OWNED BY {role}")
    } else {
        format!("GRANT {role} TO CURRENT_USER; DROP OWNED BY {role}; REVOKE {role} FROM CURRENT_USER")
    };
    session
        .text(&format!("take the rights of group role {role} away"), &sql)
        .await?;
    Ok(())
}

fn owns(session: &Session, role: &Ident, owned: &[String]) -> Failure {
    let database = &session.database;
    let named: Vec<&str> = owned.iter().take(5).map(String::as_str).collect();
    failure(
        FailureClass::Server,
        format!(
            "group role {role} owns {} object(s) in database {database} ({}), which are kept; give them to another role: \
             REASSIGN OWNED BY {role} TO ...;",
            owned.len(),
            named.join(", ")
        ),
    )
}
