//! Taking from a role all that it has in one database: its objects go to the keeper role (or are dropped, where that was
//! asked for), its rights and default privileges go away.
//!
//! One transaction for each database. In it, and never outside of it, the keeper is a member of the role and we are a member
//! of the keeper. If the server refuses to part with something, all stays as it was, but for two things that hold in any
//! case: functions of the role no longer run with its rights, and the keeper is there, so that an administrator can give
//! the rest to it by the SQL that the report names.

mod take;

use super::connect::Session;
use super::failure::{Trouble, failure};
use super::keeper;
use super::proof::Proof;
use super::sql::{Ident, Literal, NotSql};
use crate::channel::frames::{Failure, FailureClass, Keeper, OwnedObjects};
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// How often a conflict with somebody else's change of the same catalog rows is tried again.
const TRIES: u32 = 4;

/// The statements that make functions harmless, as columns and tables of a SELECT that is still to say whose functions.
pub(super) const DISARMING: &str = "format('ALTER ROUTINE %s SECURITY INVOKER;', p.oid::regprocedure) FROM (SELECT * FROM pg_proc WHERE prosecdef) AS p";

/// A role that is to have nothing any more. It is ours by its comment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaver<'a> {
    pub(super) oid: u32,
    pub(super) name: &'a str,
    /// As it was judged; nothing is changed if it is another one by then.
    pub(super) comment: &'a str,
}

/// What is to be done in one database.
#[derive(Clone, Copy)]
pub(super) struct Handover<'a> {
    pub(super) proof: &'a dyn Proof,
    pub(super) leaver: Leaver<'a>,
    /// Who gets the objects; None if it is thought that there are none.
    pub(super) keeper: Option<&'a Keeper>,
    pub(super) owned: OwnedObjects,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Handed {
    /// The role has nothing in this database that we could take from it.
    Over,
    /// There are objects for a keeper, and none was given.
    NeedsKeeper,
    /// The role is another one by now.
    Changed,
    /// The server refused. Somebody has to act, unless it is busy.
    Refused(Failure),
}

/// Does it. `Err` is a lost connection, after which the session is of no use.
pub(super) async fn run(session: &Session, handover: &Handover<'_>) -> Result<Handed, Trouble> {
    let mut tries = 1;
    loop {
        let ended = match once(session, handover).await {
            Err(Trouble::Refused(failure)) => {
                session.text("roll back", "ROLLBACK").await?;
                match failure.sqlstate.as_deref() {
                    Some(code) if code == SqlState::DIVISION_BY_ZERO.code() => Handed::Changed,
                    _ => Handed::Refused(failure),
                }
            }
            ended => ended?,
        };
        match ended {
            Handed::Refused(failure) if may_pass(&failure) && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(rand::random_range(10..150))).await;
            }
            ended => return Ok(ended),
        }
    }
}

/// Whether the same may succeed a moment later. A lock that was waited for in vain is not tried again at once: it is
/// somebody's open or prepared transaction.
fn may_pass(failure: &Failure) -> bool {
    // The keeper was made, or an empty one dropped, by another engine meanwhile.
    let raced = [
        SqlState::DUPLICATE_OBJECT,
        SqlState::UNIQUE_VIOLATION,
        SqlState::UNDEFINED_OBJECT,
    ];
    let code = failure.sqlstate.as_deref().unwrap_or_default();
    let waited = code == SqlState::LOCK_NOT_AVAILABLE.code() || code == SqlState::QUERY_CANCELED.code();
    raced.iter().any(|raced| raced.code() == code)
        || (failure.class == FailureClass::Busy && !waited && !code.is_empty())
}

async fn once(session: &Session, handover: &Handover<'_>) -> Result<Handed, Trouble> {
    let leaver = &handover.leaver;
    let unfit = |error: NotSql| failure(FailureClass::BadTask, format!("role {:?}: {error}", leaver.name));
    let role = Ident::new(leaver.name).map_err(unfit)?;
    begin(session, handover).await?;
    let keeper = match handover.keeper {
        Some(keeper) => Some(keeper::ensure(session, handover.proof, keeper).await?),
        None => None,
    };
    let members = Memberships::new(session, &role, keeper.as_ref());
    session
        .text(&format!("become a member of role {role}"), &members.take)
        .await?;
    let taken = match or_back(session, disarm(session, leaver)).await? {
        // A function that runs with its owner's rights is never given to the keeper.
        Err(refused) => Handed::Refused(refused),
        Ok(()) => match or_back(session, take::all(session, handover, &role, keeper.as_ref())).await? {
            Err(refused) => Handed::Refused(refused),
            Ok(taken) => taken,
        },
    };
    let back = format!("{}; COMMIT", members.give_back);
    session
        .text(&format!("give the membership of role {role} back"), &back)
        .await?;
    Ok(taken)
}

/// Does a part, or goes back to before it if the server refuses it: the transaction goes on in any case.
async fn or_back<T>(
    session: &Session,
    part: impl Future<Output = Result<T, Trouble>>,
) -> Result<Result<T, Failure>, Trouble> {
    session.text("set a savepoint", "SAVEPOINT part").await?;
    match part.await {
        Ok(done) => {
            session.text("release the savepoint", "RELEASE part").await?;
            Ok(Ok(done))
        }
        Err(Trouble::Refused(failure)) => {
            session.text("go back to the savepoint", "ROLLBACK TO part").await?;
            Ok(Err(failure))
        }
        Err(lost) => Err(lost),
    }
}

/// Begins, one at a time for each keeper, and only if the role is still the one that was judged.
async fn begin(session: &Session, handover: &Handover<'_>) -> Result<(), Trouble> {
    let leaver = &handover.leaver;
    let unfit = |error: NotSql| failure(FailureClass::BadTask, format!("role {:?}: {error}", leaver.name));
    let (name, comment) = (
        Literal::new(leaver.name).map_err(unfit)?,
        Literal::new(leaver.comment).map_err(unfit)?,
    );
    // Not the key that the dropping of a group holds meanwhile.
    let lock = handover.keeper.map_or(leaver.name, |keeper| &keeper.name);
    let lock = Literal::new(&format!("handover {lock}")).map_err(unfit)?;
    let sql = format!(
        "BEGIN; SET LOCAL lock_timeout = '2s'; SELECT pg_advisory_xact_lock(hashtextextended({lock}, 0)); \
         SELECT 1 / (EXISTS (SELECT FROM pg_roles r WHERE r.oid = {oid} AND r.rolname = {name} \
         AND shobj_description(r.oid, 'pg_authid') IS NOT DISTINCT FROM {comment}))::int",
        oid = leaver.oid,
    );
    session.text(&format!("begin with role {name}"), &sql).await?;
    Ok(())
}

/// Who must be a member of whom to take things from a role, and how that is undone.
struct Memberships {
    take: String,
    give_back: String,
}

impl Memberships {
    fn new(session: &Session, role: &Ident, keeper: Option<&Ident>) -> Self {
        let options = session.has_grant_options();
        let inherit = if options { " WITH INHERIT TRUE, SET FALSE" } else { "" };
        let become_it = if options { " WITH INHERIT TRUE, SET TRUE" } else { "" };
        match keeper {
            // Through the keeper, so that it may create where the role may.
            Some(keeper) => Self {
                take: format!("GRANT {keeper} TO CURRENT_USER{become_it}; GRANT {role} TO {keeper}{inherit}"),
                give_back: format!("REVOKE {role} FROM {keeper}; REVOKE {keeper} FROM CURRENT_USER"),
            },
            None => Self {
                take: format!("GRANT {role} TO CURRENT_USER{inherit}"),
                give_back: format!("REVOKE {role} FROM CURRENT_USER"),
            },
        }
    }
}

/// Functions that ran with the role's rights run with those of their callers from now on.
async fn disarm(session: &Session, leaver: &Leaver<'_>) -> Result<(), Trouble> {
    let sql = format!("SELECT {DISARMING} WHERE p.proowner = $1");
    run_composed(
        session,
        "take SECURITY DEFINER from the role's functions",
        &sql,
        &[(&leaver.oid, Type::OID)],
    )
    .await
    .map(|_| ())
}

/// Runs statements that the server itself composed and quoted. Gives them.
async fn run_composed(
    session: &Session,
    doing: &str,
    sql: &str,
    parameters: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)],
) -> Result<Vec<String>, Trouble> {
    let rows = session.query(doing, sql, parameters).await?;
    let statements: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
    if !statements.is_empty() {
        session.text(doing, &statements.concat()).await?;
    }
    Ok(statements)
}
