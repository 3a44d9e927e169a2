//! A role of the account's name is there already, or it is too late to make one: is it this account?

use super::Issued;
use super::statement::{LIMITS, Texts};
use crate::channel::frames::{Failure, FailureClass};
use crate::postgres::clock;
use crate::postgres::failure::{Trouble, failure};
use crate::postgres::pool::Checkout;
use std::time::Instant;
use tokio_postgres::error::SqlState;

/// Looks under the lock, so a CREATE in flight is over. Changes nothing.
pub(super) async fn adopt(
    session: &Checkout<'_>,
    texts: &Texts,
    until: Instant,
    refused: &Trouble,
) -> Result<Issued, Trouble> {
    let Texts {
        role,
        role_text,
        group_text,
        comment,
        valid_until,
        lock,
        ..
    } = texts;
    let inherits = if session.has_grant_options() {
        "m.inherit_option"
    } else {
        "true"
    };
    let sql = format!(
        "{LIMITS}; SELECT pg_advisory_xact_lock(hashtextextended({lock}, 0)); \
         SELECT r.oid, {clock}, shobj_description(r.oid, 'pg_authid') IS NOT DISTINCT FROM {comment}, \
         r.rolcanlogin, r.rolvaliduntil IS NOT DISTINCT FROM {valid_until}::timestamptz, \
         r.rolinherit AND EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid \
         WHERE g.rolname = {group_text} AND m.member = r.oid AND {inherits}), \
         NOT (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls) \
         FROM pg_roles r WHERE r.rolname = {role_text}",
        clock = clock::SQL,
    );
    let rows = session.text_until(until, &format!("look at role {role}"), &sql).await?;
    // The lock's row comes first.
    let Some(row) = rows.get(1) else {
        return Err(absent(texts, refused).into());
    };
    judge(row, texts)
}

/// The columns: OID, clock, ours, may log in, same expiry, inherits from the group, no attributes.
fn judge(row: &[Option<String>], texts: &Texts) -> Result<Issued, Trouble> {
    let role = &texts.role;
    let column = |index: usize| row.get(index).and_then(Option::as_deref);
    let holds = |index: usize| column(index) == Some("t");
    if !holds(2) {
        let message = format!("role {role} exists, and its comment is not ours; it was not touched");
        return Err(failure(FailureClass::Foreign, message).into());
    }
    let changed: Vec<&str> = [
        (3, "it may not log in"),
        (4, "its VALID UNTIL is another"),
        (5, "it does not inherit from its group role"),
        (6, "it has attributes that we never give"),
    ]
    .into_iter()
    .filter_map(|(index, sentence)| (!holds(index)).then_some(sentence))
    .collect();
    if !changed.is_empty() {
        let what = changed.join(", ");
        let message = format!("account {role} is ours but was changed: {what}; revoke the lease and issue another");
        return Err(failure(FailureClass::Server, message).into());
    }
    match (column(0).and_then(|oid| oid.parse().ok()), clock::read(column(1))) {
        (Some(role_oid), Some(clock)) => Ok(Issued {
            role_oid,
            adopted: true,
            clock,
        }),
        _ => Err(Trouble::Lost(format!(
            "to {} was sent, but the answer cannot be read",
            texts.doing
        ))),
    }
}

fn absent(texts: &Texts, refused: &Trouble) -> Failure {
    let role = &texts.role;
    if refused.is(&SqlState::DIVISION_BY_ZERO) {
        let message = format!("account {role} was not created: the issue deadline had passed in the database's clock");
        return failure(FailureClass::TooLate, message);
    }
    failure(
        FailureClass::Busy,
        format!("role {role} was there and then was not; it is tried again"),
    )
}
