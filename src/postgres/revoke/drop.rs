//! The statements that take roles away: all of a batch in one transaction, or each alone if one of them resists.

use super::look::{self, Case, Reach};
use crate::channel::frames::{DatabaseClock, Failure, FailureClass, MAX_REVOKE_BATCH, Revocation};
use crate::postgres::clock;
use crate::postgres::connect::{Session, TextRows};
use crate::postgres::failure::{Trouble, failure};
use crate::postgres::functions::Functions;
use crate::postgres::sql::{Ident, Literal, NotSql, text_array};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// Longest wait for a lock and for one statement, inside the server.
const LIMITS: &str = "SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '10s'";
/// Into how many parts a batch is divided that one account of it spoils. Each part that has it may wait for a lock, so there
/// are few levels: 256 accounts, 16, one.
const PARTS: usize = 16;
/// How often one account is tried that the server rolled back as busy.
const TRIES: u32 = 3;

/// What came of one account's transaction.
#[derive(Debug, Clone)]
pub(super) enum Settled {
    /// Committed; the role was seen to be absent (for [`lock_out`]: locked).
    Absent(Absence),
    /// The role is another one by now; look again.
    Changed,
    /// Something holds the role.
    Resists(Failure),
    /// Refused for another reason.
    Failed(Failure),
}

/// Seen under the lock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Absence {
    pub(super) clock: DatabaseClock,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Drop,
    LockOut,
}

/// Drops the roles of these accounts and sees that they are absent.
pub(super) async fn settle(
    session: &Session,
    accounts: &[Revocation],
    cases: Vec<Case>,
) -> Result<Vec<(Case, Settled)>, Trouble> {
    together(session, accounts, cases, Way::Drop).await
}

/// Takes login, password and validity from the roles of these accounts. Needs no lock that an open transaction may hold.
pub(super) async fn lock_out(
    session: &Session,
    accounts: &[Revocation],
    cases: Vec<Case>,
) -> Result<Vec<(Case, Settled)>, Trouble> {
    together(session, accounts, cases, Way::LockOut).await
}

async fn together(
    session: &Session,
    accounts: &[Revocation],
    mut cases: Vec<Case>,
    way: Way,
) -> Result<Vec<(Case, Settled)>, Trouble> {
    if cases.len() > 1 {
        let mut tried = run(session, accounts, &cases, way, session.functions()).await;
        if let Err(Trouble::Refused(failure)) = &tried
            && session.learns_of_functions(failure).await?
        {
            tried = run(session, accounts, &cases, way, session.functions()).await;
        }
        match tried {
            Ok(seen) => return Ok(seen.sort_out(accounts, cases)),
            // One account spoils the transaction of all; smaller parts show which.
            Err(Trouble::Refused(_)) => {}
            Err(lost) => return Err(lost),
        }
    }
    let mut settled = Vec::new();
    let size = cases.len().div_ceil(PARTS);
    while !cases.is_empty() {
        let rest = cases.split_off(size.min(cases.len()));
        let part = std::mem::replace(&mut cases, rest);
        if let [case] = part.as_slice() {
            let one = alone(session, accounts, case, way).await?;
            settled.extend(part.into_iter().map(|case| (case, one.clone())));
        } else {
            settled.extend(Box::pin(together(session, accounts, part, way)).await?);
        }
    }
    Ok(settled)
}

async fn alone(session: &Session, accounts: &[Revocation], case: &Case, way: Way) -> Result<Settled, Trouble> {
    let (mut tries, mut looked) = (1, false);
    let mut functions = session.functions();
    loop {
        let failure = match run(session, accounts, std::slice::from_ref(case), way, functions.clone()).await {
            Ok(seen) => {
                let sorted = seen.sort_out(accounts, vec![case.clone()]).pop();
                return Ok(sorted.map_or(Settled::Changed, |(_, settled)| settled));
            }
            Err(Trouble::Refused(failure)) => failure,
            Err(lost) => return Err(lost),
        };
        if functions
            .as_ref()
            .is_some_and(|functions| functions.are_of_no_use(&failure))
        {
            // What we may do by ourselves is done, and otherwise the server says what is missing.
            functions = None;
            continue;
        }
        if !std::mem::replace(&mut looked, true) && session.learns_of_functions(&failure).await? {
            functions = session.functions();
            continue;
        }
        let code = failure.sqlstate.as_deref().unwrap_or_default();
        if code == SqlState::DIVISION_BY_ZERO.code() {
            return Ok(Settled::Changed);
        }
        let holds = [
            SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::OBJECT_IN_USE,
        ];
        if holds.iter().any(|state| state.code() == code) {
            return Ok(Settled::Resists(failure));
        }
        if failure.class != FailureClass::Busy || tries == TRIES {
            return Ok(Settled::Failed(with_remedy(session, case, failure)));
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(rand::random_range(5..100))).await;
    }
}

/// The last part of the transaction's answer.
struct Seen {
    clock: DatabaseClock,
    /// OID and name of the roles that look like those accounts and are still there.
    remaining: Vec<(u32, String)>,
    way: Way,
}

impl Seen {
    fn sort_out(self, accounts: &[Revocation], cases: Vec<Case>) -> Vec<(Case, Settled)> {
        let absence = Absence { clock: self.clock };
        let sort = |case: Case| {
            let settled = if self.way == Way::Drop && self.is_there(accounts, &case) {
                // Created while we waited for the lock.
                Settled::Changed
            } else {
                Settled::Absent(absence)
            };
            (case, settled)
        };
        cases.into_iter().map(sort).collect()
    }

    fn is_there(&self, accounts: &[Revocation], case: &Case) -> bool {
        let Some(asked) = accounts.get(case.at) else {
            return false;
        };
        let suffix = crate::postgres::names::suffix(&asked.lease_uid).unwrap_or_default();
        let ours = |oid: &u32| case.roles.iter().any(|role| role.oid == *oid);
        let known = |oid: &u32| case.foreign.contains(oid);
        self.remaining
            .iter()
            .any(|(oid, name)| ours(oid) || (name.ends_with(&suffix) && !known(oid)))
    }
}

async fn run(
    session: &Session,
    accounts: &[Revocation],
    cases: &[Case],
    way: Way,
    functions: Option<Arc<Functions>>,
) -> Result<Seen, Trouble> {
    let sql = text(accounts, cases, way, functions.as_deref()).map_err(|error| {
        let message = format!("an account cannot be written as SQL: {error}; was it renamed by hand?");
        failure(FailureClass::BadTask, message)
    })?;
    let doing = match way {
        Way::Drop => "drop the accounts",
        Way::LockOut => "lock the accounts",
    };
    let rows = session.text(doing, &sql).await?;
    read(&rows, way).ok_or_else(|| Trouble::Lost(format!("to {doing} was sent, but the answer cannot be read")))
}

/// Limits, locks, check, change, and a last look, as one implicit transaction.
fn text(accounts: &[Revocation], cases: &[Case], way: Way, functions: Option<&Functions>) -> Result<String, NotSql> {
    let asked = cases.iter().filter_map(|case| accounts.get(case.at));
    let mut locks = Vec::new();
    for one in asked.clone() {
        locks.push(Literal::new(&one.lease_uid)?);
    }
    let mut checks = Vec::new();
    let mut idents = Vec::new();
    for role in cases.iter().flat_map(|case| &case.roles) {
        let (name, comment) = (Literal::new(&role.name)?, Literal::new(&role.comment)?);
        checks.push(format!("({}::oid, {name}, {comment})", role.oid));
        idents.push(Ident::new(&role.name)?.to_string());
    }
    // Sorted, so that two batches never wait for each other; ORDER BY inside, since unnest alone promises no order.
    let mut sql = format!(
        "{LIMITS}; SELECT 'locked', pg_advisory_xact_lock(key) FROM \
         (SELECT DISTINCT hashtextextended(uid, 0) AS key FROM unnest({}) AS uid ORDER BY key) AS keys; ",
        text_array(&locks)
    );
    if !checks.is_empty() {
        // Null-safe: a role without a comment is not ours.
        let _ = write!(
            sql,
            "SELECT 'checked', 1 / (NOT EXISTS (SELECT FROM (VALUES {}) AS judged(oid, name, comment) \
             LEFT JOIN pg_roles r ON r.oid = judged.oid \
             WHERE r.rolname IS DISTINCT FROM judged.name \
             OR shobj_description(judged.oid, 'pg_authid') IS DISTINCT FROM judged.comment))::int; ",
            checks.join(", ")
        );
        let roles = cases.iter().flat_map(|case| &case.roles);
        match (way, functions) {
            (Way::Drop, Some(functions)) => {
                let _ = write!(sql, "{}; ", functions.drop_accounts(roles)?);
            }
            (Way::Drop, None) => {
                // The time of a statement is limited, so there are several.
                for some in idents.chunks(MAX_REVOKE_BATCH) {
                    let _ = write!(sql, "DROP ROLE {}; ", some.join(", "));
                }
            }
            (Way::LockOut, _) => {
                if let Some(functions) = functions {
                    let _ = write!(sql, "{}; ", functions.administer(roles)?);
                }
                for ident in &idents {
                    let _ = write!(
                        sql,
                        "ALTER ROLE {ident} NOLOGIN PASSWORD NULL VALID UNTIL '-infinity'; "
                    );
                }
            }
        }
    }
    sql.push_str(&look::sql("'remaining', r.oid, r.rolname", Reach::Every, asked));
    let _ = write!(sql, "; SELECT 'clock', {}", clock::SQL);
    Ok(sql)
}

fn read(rows: &TextRows, way: Way) -> Option<Seen> {
    let mut remaining = Vec::new();
    let mut now = None;
    for row in rows {
        let column = |index: usize| row.get(index).and_then(Option::as_deref);
        match column(0) {
            Some("remaining") => remaining.push((column(1)?.parse().ok()?, column(2)?.to_owned())),
            Some("clock") => now = clock::read(column(1)),
            _ => {}
        }
    }
    Some(Seen {
        clock: now?,
        remaining,
        way,
    })
}

/// Takes a blocked account out of its groups, as far as we may: what it left behind, such as a function that runs as its
/// owner, then has none of the granted rights any more.
pub(super) async fn leave_groups(session: &Session, case: &Case) -> Result<(), Trouble> {
    leave_by_function(session, case).await?;
    let oids: Vec<u32> = case.roles.iter().map(|role| role.oid).collect();
    let rows = session
        .query(
            "list the account's groups",
            "SELECT g.rolname::text, u.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid \
             JOIN pg_roles u ON u.oid = m.member WHERE m.member = ANY ($1)",
            &[(&oids, Type::OID_ARRAY)],
        )
        .await?;
    for row in &rows {
        let (Ok(group), Ok(role)) = (row.try_get::<_, String>(0), row.try_get::<_, String>(1)) else {
            continue;
        };
        let (Ok(group), Ok(role)) = (Ident::new(&group), Ident::new(&role)) else {
            continue;
        };
        match session
            .text(
                "take the account out of a group",
                &format!("REVOKE {group} FROM {role}"),
            )
            .await
        {
            Ok(_) => {}
            Err(Trouble::Refused(failure)) => {
                tracing::info!(error = failure.message, "a blocked account keeps a group");
            }
            Err(lost) => return Err(lost),
        }
    }
    Ok(())
}

/// The same for the groups that a function put it into, whose memberships are not ours to revoke.
async fn leave_by_function(session: &Session, case: &Case) -> Result<(), Trouble> {
    let functions = session.functions().filter(|_| !case.roles.is_empty());
    let Some(sql) = functions.and_then(|functions| functions.leave_groups(case.roles.iter()).ok()) else {
        return Ok(());
    };
    match session
        .text("take the account out of the groups it was made in", &sql)
        .await
    {
        Ok(_) => Ok(()),
        Err(Trouble::Refused(failure)) => {
            tracing::info!(
                error = failure.message,
                "a blocked account keeps the groups it was made in"
            );
            Ok(())
        }
        Err(lost) => Err(lost),
    }
}

fn with_remedy(session: &Session, case: &Case, mut failure: Failure) -> Failure {
    if failure.class == FailureClass::MissingPrivilege
        && let (Ok(me), Some(role)) = (session.me(), case.roles.first())
        && let Ok(role) = Ident::new(&role.name)
    {
        let mut sql = format!("ALTER ROLE {me} CREATEROLE;");
        let mut or = "";
        if session.has_grant_options() {
            sql = format!("{sql} GRANT {role} TO {me} WITH ADMIN OPTION;");
            if session.functions().is_none() {
                or = "if functions made this account, install them again (kubectl dsv preflight --install), or ";
            }
        }
        failure.message = format!("{}; {or}run: {sql}", failure.message);
    }
    failure
}
