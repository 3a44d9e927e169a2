//! Keeper roles: one for each database and login, which gets what revoked accounts and dropped groups own there.
//!
//! A keeper cannot log in, and nobody is a member of it outside of the transaction that gives it something. Only the operator
//! can sign its comment, so an engine that finds that it needs one asks for it, and the task comes again with it. A role
//! that merely has the name is not used.

use super::connect::Session;
use super::failure::{Trouble, failure};
use super::proof::Proof;
use super::sql::{Ident, Literal, NotSql};
use crate::channel::frames::{FailureClass, Keeper};
use crate::keys::RoleKind;
use tokio_postgres::types::Type;

/// Finds the keeper, or makes it, inside of an open transaction: so it is never seen empty.
pub(super) async fn ensure(session: &Session, proof: &dyn Proof, keeper: &Keeper) -> Result<Ident, Trouble> {
    let unfit = |error: NotSql| failure(FailureClass::BadTask, format!("keeper role {:?}: {error}", keeper.name));
    let name = Ident::new(&keeper.name).map_err(unfit)?;
    let rows = session
        .query(
            "look up the keeper role",
            "SELECT shobj_description(oid, 'pg_authid'), \
             rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls \
             FROM pg_roles WHERE rolname = $1",
            &[(&keeper.name, Type::TEXT)],
        )
        .await?;
    let Some(row) = rows.first() else {
        let comment = Literal::new(&keeper.comment).map_err(unfit)?;
        let sql = format!("CREATE ROLE {name} NOLOGIN; COMMENT ON ROLE {name} IS {comment}");
        session.text(&format!("make keeper role {name}"), &sql).await?;
        return Ok(name);
    };
    let comment: Option<String> = row.try_get(0).ok().flatten();
    let ours = comment.is_some_and(|comment| proof.is_named(&comment, RoleKind::Keeper, &keeper.name));
    if !ours {
        let aside = Ident::new(&format!("{}_not_ours", keeper.name)).map_err(unfit)?;
        let message = format!(
            "role {name} has the name of the keeper role and not our comment, so nothing is given to it; run: \
             ALTER ROLE {name} RENAME TO {aside};"
        );
        return Err(failure(FailureClass::Foreign, message).into());
    }
    if row.try_get(1).unwrap_or(true) {
        let message = format!(
            "keeper role {name} was changed by hand, so nothing is given to it; run: ALTER ROLE {name} NOLOGIN NOSUPERUSER \
             NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS;"
        );
        return Err(failure(FailureClass::Foreign, message).into());
    }
    Ok(name)
}

/// Drops the keepers of ours that have nothing (any more). While a locked account waits for somebody to act, they stay: the
/// SQL that frees it names them.
pub(super) async fn drop_empty(session: &Session, proof: &dyn Proof) -> Result<(), Trouble> {
    let rows = session
        .query(
            "look for empty keeper roles",
            "SELECT r.rolname::text, c.description FROM pg_roles r \
             JOIN pg_shdescription c ON c.objoid = r.oid AND c.classoid = 'pg_authid'::regclass \
             WHERE c.description LIKE 'dsv/1 kind=keeper %' AND NOT EXISTS (SELECT FROM pg_shdepend s \
             WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid) \
             AND NOT EXISTS (SELECT FROM pg_roles l JOIN pg_shdescription d ON d.objoid = l.oid \
             AND d.classoid = 'pg_authid'::regclass WHERE d.description LIKE 'dsv/1 kind=lease %' \
             AND NOT l.rolcanlogin AND l.rolvaliduntil = '-infinity')",
            &[],
        )
        .await?;
    for row in &rows {
        let (Ok(name), Ok(comment)) = (row.try_get::<_, String>(0), row.try_get::<_, String>(1)) else {
            continue;
        };
        if proof.is_named(&comment, RoleKind::Keeper, &name) {
            drop_one(session, &name, &comment).await?;
        }
    }
    Ok(())
}

/// The server itself refuses if it was given something meanwhile.
async fn drop_one(session: &Session, name: &str, comment: &str) -> Result<(), Trouble> {
    let (Ok(role), Ok(text), Ok(comment)) = (Ident::new(name), Literal::new(name), Literal::new(comment)) else {
        return Ok(());
    };
    let sql = format!(
        "SET LOCAL lock_timeout = '1s'; SELECT 1 / (EXISTS (SELECT FROM pg_roles r WHERE r.rolname = {text} \
         AND shobj_description(r.oid, 'pg_authid') IS NOT DISTINCT FROM {comment}))::int; DROP ROLE {role}"
    );
    match session.text("drop an empty keeper role", &sql).await {
        Ok(_) => {
            tracing::info!(role = name, "an empty keeper role was dropped");
            Ok(())
        }
        Err(Trouble::Refused(failure)) => {
            tracing::debug!(role = name, error = failure.message, "a keeper role stays");
            Ok(())
        }
        Err(lost) => Err(lost),
    }
}
