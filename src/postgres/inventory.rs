//! The roles of a server whose comment looks like ours, with what of them is visible to the issuing login.
//!
//! Nothing is judged here: who signed a comment, and whether an account should live, is the operator's to say. Not visible
//! are verifiers, since only superusers read `pg_authid`: a password that was changed by hand shows in no inventory.
//!
//! Pages follow each other by OID. A role that exists all the time is in one of them; one that comes or goes between two
//! pages may be missing, so the reader must not conclude anything from the absence of a young role.

use super::clock;
use super::connect::Session;
use super::failure::{Trouble, failure};
use super::history;
use super::pool::Server;
use crate::channel::frames::{DatabaseClock, Failure, FailureClass, InventoryPage, InventoryRole, MAX_FRAME};
use jiff::Timestamp;
use std::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// Roles that one query reads. About as many fit into a frame.
const ROLES: usize = 120;
/// Most bytes of all roles of a page; the rest of the frame is for what is around them.
const MOST: usize = MAX_FRAME - 4096;
/// Of each list of names this many are told: one too many is enough to know.
const NAMES: usize = 4;

/// Reads one page. See [`super::Servers::inventory`].
pub(super) async fn page(
    server: &Server,
    after: Option<u32>,
    until: Instant,
) -> Result<(InventoryPage, DatabaseClock), Failure> {
    let session = server.session(until).await?;
    let read = tokio::time::timeout_at(until.into(), read(&session, after)).await;
    let read = read.unwrap_or_else(|_| Err(Trouble::Lost("the inventory did not come in time".to_owned())))?;
    session.keep();
    Ok(read)
}

async fn read(session: &Session, after: Option<u32>) -> Result<(InventoryPage, DatabaseClock), Trouble> {
    let (system_identifier, timeline) = history::read(session).await?;
    let rows = session
        .query(
            "list the roles with our kind of comment",
            &sql(session.has_grant_options()),
            &[(&after.unwrap_or(0), Type::OID)],
        )
        .await?;
    let full = rows.len() > ROLES;
    let mut roles = Vec::new();
    for row in rows.iter().take(ROLES) {
        let role = role(row).map_err(|error| {
            let message = format!("the inventory cannot be read: {error}");
            failure(FailureClass::Server, message)
        })?;
        roles.push(role);
    }
    let (roles, cut) = fit(roles);
    let next = (full || cut).then(|| roles.last().map(|role| role.oid)).flatten();
    let page = InventoryPage {
        roles,
        next,
        system_identifier,
        timeline,
    };
    Ok((page, clock::ask(session).await?))
}

/// One more than a page is asked for, which tells whether there is another one.
fn sql(grant_options: bool) -> String {
    // Being the administrator of a role, as its creator is from 16 on, makes nobody its user. Whoever may make roles
    // administers them anyway, and has what it made granted to itself under createrole_self_grant.
    let (all_inherited, uses) = if grant_options {
        (
            "NOT EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid AND NOT m.inherit_option)",
            "(m.inherit_option OR m.set_option)",
        )
    } else {
        ("true", "true")
    };
    format!(
        "SELECT r.oid, r.rolname::text, left(c.description, 1100), r.rolcanlogin, \
         CASE WHEN isfinite(r.rolvaliduntil) AND r.rolvaliduntil < '9999-01-01' \
         THEN (extract(epoch FROM r.rolvaliduntil) * 1000000)::bigint END, \
         r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls, \
         r.rolinherit AND {all_inherited}, \
         ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid \
         WHERE m.member = r.oid GROUP BY g.rolname ORDER BY g.rolname LIMIT {NAMES}), \
         ARRAY(SELECT u.rolname::text FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member \
         WHERE m.roleid = r.oid AND {uses} AND u.rolname <> current_user AND NOT u.rolsuper AND NOT u.rolcreaterole \
         AND coalesce(shobj_description(u.oid, 'pg_authid'), '') NOT LIKE 'dsv/1 %' \
         GROUP BY u.rolname ORDER BY u.rolname LIMIT {NAMES}) \
         FROM pg_shdescription c JOIN pg_roles r ON r.oid = c.objoid \
         WHERE c.classoid = 'pg_authid'::regclass AND c.description LIKE 'dsv/1 %' AND r.oid > $1 \
         ORDER BY r.oid LIMIT {}",
        ROLES + 1
    )
}

fn role(row: &Row) -> Result<InventoryRole, tokio_postgres::Error> {
    let valid_until: Option<i64> = row.try_get(4)?;
    Ok(InventoryRole {
        oid: row.try_get(0)?,
        name: row.try_get(1)?,
        comment: row.try_get(2)?,
        can_log_in: row.try_get(3)?,
        valid_until: valid_until.and_then(|at| Timestamp::from_microsecond(at).ok()),
        privileged: row.try_get(5)?,
        inherits: row.try_get(6)?,
        member_of: row.try_get(7)?,
        members: row.try_get(8)?,
    })
}

/// As many as fit into a frame, at least one; whether some were left out.
fn fit(mut roles: Vec<InventoryRole>) -> (Vec<InventoryRole>, bool) {
    let mut total = 0;
    let fitting = roles.iter().take_while(|role| {
        // With the comma. An entry always serializes: it is made of texts, numbers and times.
        total += serde_json::to_string(role).map_or(0, |json| json.len() + 1);
        total <= MOST
    });
    let count = fitting.count().max(1);
    let cut = count < roles.len();
    roles.truncate(count);
    (roles, cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::frames::{Done, Outcome, ToOperator};

    fn longest(oid: u32) -> InventoryRole {
        let name = "\u{1}".repeat(63);
        InventoryRole {
            oid,
            name: name.clone(),
            comment: "\u{1}".repeat(1100),
            can_log_in: true,
            valid_until: Some(Timestamp::UNIX_EPOCH),
            privileged: true,
            inherits: true,
            member_of: vec![name.clone(); NAMES],
            members: vec![name; NAMES],
        }
    }

    #[test]
    fn a_page_of_the_longest_roles_fits_a_frame_and_leads_on() {
        let (roles, cut) = fit((0..120).map(longest).collect());
        assert!(cut && !roles.is_empty());
        let page = InventoryPage {
            next: roles.last().map(|role| role.oid),
            roles,
            system_identifier: Some(u64::MAX.to_string()),
            timeline: Some(i64::MAX),
        };
        let outcome = Outcome::Done {
            done: Done::Inventory(page),
            clock: None,
        };
        let frame = serde_json::to_string(&ToOperator::Outcome { id: u64::MAX, outcome }).unwrap();
        assert!(frame.len() <= MAX_FRAME, "{} bytes", frame.len());
    }

    #[test]
    fn what_fits_is_left_whole() {
        let roles: Vec<_> = (0..3).map(longest).collect();
        assert_eq!(fit(roles.clone()), (roles, false));
        assert_eq!(fit(Vec::new()), (Vec::new(), false));
    }
}
