//! Issuing an account: one simple query, one transaction, one round trip.
//!
//! Under the lock on the lease's UID: the deadline is compared with the database's own clock, the role made with its
//! verifier, expiry, membership and signed comment. So a statement that arrives late makes nothing, and a revocation that
//! holds the same lock can tell for ever that none will come.
//!
//! If the role is there already, it is adopted when its comment is ours byte for byte and nobody changed it. Its password
//! is never touched: the lease has one verifier for life.

mod adopt;
mod statement;

use super::clock;
use super::connect::TextRows;
use super::failure::{Trouble, failure};
use super::group::{self, is_duplicate};
use super::pool::{Checkout, Server};
use crate::channel::frames::{Account, DatabaseClock, Done, Failure, FailureClass, Group, Outcome};
use statement::Texts;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;

/// How often a statement that the server rolled back is sent again.
const TRIES: u32 = 5;

/// An account that is there.
struct Issued {
    role_oid: u32,
    adopted: bool,
    clock: DatabaseClock,
}

/// Issues or adopts. See [`super::Servers::issue`].
pub(super) async fn issue(server: &Server, group: &Group, account: &Account, until: Instant) -> Outcome {
    match issue_with_retries(server, group, account, until).await {
        Ok(Issued {
            role_oid,
            adopted,
            clock,
        }) => Outcome::Done {
            done: Done::Issued { role_oid, adopted },
            clock: Some(clock),
        },
        Err(trouble) => trouble.into(),
    }
}

/// What is run for an account, for people who want to see it. `grant_options`: PostgreSQL 16 and later.
pub fn preview(group: &Group, account: &Account, grant_options: bool) -> Result<String, Failure> {
    Ok(Texts::new(group, account)?.create(grant_options))
}

async fn issue_with_retries(
    server: &Server,
    group: &Group,
    account: &Account,
    until: Instant,
) -> Result<Issued, Trouble> {
    let texts = Texts::new(group, account)?;
    let mut regrouped = false;
    for tries in 1.. {
        let trouble = match attempt(server, group, &texts, until).await {
            Ok(issued) => return Ok(issued),
            Err(trouble) => trouble,
        };
        let pause = Duration::from_millis(rand::random_range(5..100) * u64::from(tries));
        if tries == TRIES || Instant::now() + pause >= until {
            return Err(trouble);
        }
        if trouble.is(&SqlState::UNDEFINED_OBJECT) && !regrouped {
            // The group was dropped behind our memory's back.
            regrouped = true;
            group::forget(server, group);
        } else if trouble.is_busy() {
            tokio::time::sleep(pause).await;
        } else {
            return Err(trouble);
        }
    }
    Err(failure(FailureClass::Busy, "tried too often").into())
}

async fn attempt(server: &Server, group: &Group, texts: &Texts, until: Instant) -> Result<Issued, Trouble> {
    group::ensure(server, group, until).await?;
    let session = server.issue_session(until).await?;
    let begun = Instant::now();
    let ended = create_or_adopt(&session, texts, until).await;
    match &ended {
        Ok(Issued { adopted: false, .. }) => session.keep_issued(begun.elapsed()),
        // A refusal was rolled back and leaves the session clean; after a lost answer it is not used again.
        Ok(_) | Err(Trouble::Refused(_)) => session.keep(),
        Err(Trouble::Lost(_)) => {}
    }
    ended
}

async fn create_or_adopt(session: &Checkout<'_>, texts: &Texts, until: Instant) -> Result<Issued, Trouble> {
    let trouble = match create(session, texts, until).await {
        Ok(rows) => return created(&rows, texts),
        Err(trouble) => trouble,
    };
    if is_duplicate(&trouble) || trouble.is(&SqlState::DIVISION_BY_ZERO) {
        // Also when it is too late: an earlier delivery of this task may have made the account in time.
        return adopt::adopt(session, texts, until, &trouble).await;
    }
    match trouble {
        Trouble::Refused(failure) if failure.class == FailureClass::MissingPrivilege => {
            Err(with_remedy(session, texts, failure).into())
        }
        trouble => Err(trouble),
    }
}

/// Has a function make it where there is one: what the login makes by itself is a membership of it from PostgreSQL 16 on.
async fn create(session: &Checkout<'_>, texts: &Texts, until: Instant) -> Result<TextRows, Trouble> {
    if let Some(functions) = session.functions()
        && let Some(sql) = texts.create_by(&functions)
    {
        match session.text_until(until, &texts.doing, &sql).await {
            Err(trouble) if functions.did_not_help(&trouble) => {}
            answered => return answered,
        }
    }
    let sql = texts.create(session.has_grant_options());
    session.text_until(until, &texts.doing, &sql).await
}

fn created(rows: &TextRows, texts: &Texts) -> Result<Issued, Trouble> {
    let column = |index: usize| rows.last().and_then(|row| row.get(index)).and_then(Option::as_deref);
    let role_oid = column(0).and_then(|oid| oid.parse().ok());
    match (role_oid, clock::read(column(1))) {
        (Some(role_oid), Some(clock)) => Ok(Issued {
            role_oid,
            adopted: false,
            clock,
        }),
        _ => Err(Trouble::Lost(format!(
            "to {} was sent, but the answer cannot be read",
            texts.doing
        ))),
    }
}

fn with_remedy(session: &Checkout<'_>, texts: &Texts, mut failure: Failure) -> Failure {
    if let Ok(me) = session.me() {
        let mut sql = format!("ALTER ROLE {me} CREATEROLE;");
        if session.has_grant_options() {
            sql = format!("{sql} GRANT {} TO {me} WITH ADMIN OPTION;", texts.group);
        }
        failure.message = format!("{}; run: {sql}", failure.message);
    }
    failure
}
