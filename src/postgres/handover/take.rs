//! The statements between the savepoint and the end: what makes a role empty in one database.

use super::{Handed, Handover, run_composed};
use crate::channel::frames::OwnedObjects;
use crate::postgres::connect::Session;
use crate::postgres::failure::Trouble;
use crate::postgres::sql::Ident;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// What the role owns in this database, or owns and belongs to no database. Default privileges and user mappings are
/// settings of the role itself: DROP OWNED takes them, REASSIGN does not.
const OWNED: &str = "pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1 AND s.deptype = 'o' \
    AND s.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass) \
    AND s.dbid IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))";
/// Kinds of objects that only somebody with CREATE on their schema can be given. Tables are none of them: REASSIGN moves
/// those in any case.
const NEEDS_CREATE: &str = "('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass, \
    'pg_collation'::regclass, 'pg_conversion'::regclass, 'pg_statistic_ext'::regclass, 'pg_ts_config'::regclass, \
    'pg_ts_dict'::regclass)";

/// Takes all.
pub(super) async fn all(
    session: &Session,
    handover: &Handover<'_>,
    role: &Ident,
    keeper: Option<&Ident>,
) -> Result<Handed, Trouble> {
    if handover.owned == OwnedObjects::Drop {
        let (savepoint, dropping) = ("set a savepoint", format!("drop what role {role} owns"));
        session.text(savepoint, "SAVEPOINT nothing_dropped").await?;
        match session.text(&dropping, &format!("DROP OWNED BY {role}")).await {
            Ok(_) => {}
            // Somebody else's view or foreign key: what others made is never dropped along.
            Err(trouble) if trouble.is(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => {
                session.text(savepoint, "ROLLBACK TO nothing_dropped").await?;
            }
            Err(trouble) => return Err(trouble),
        }
    }
    if owns_something(session, handover).await? {
        let Some(keeper) = keeper else {
            return Ok(Handed::NeedsKeeper);
        };
        reassign(session, handover, role, keeper).await?;
    }
    session
        .text(
            &format!("take the rights of role {role} away"),
            &format!("DROP OWNED BY {role}"),
        )
        .await?;
    Ok(Handed::Over)
}

async fn owns_something(session: &Session, handover: &Handover<'_>) -> Result<bool, Trouble> {
    let sql = format!("SELECT EXISTS (SELECT FROM {OWNED})");
    let rows = session
        .query(
            "look for what the role owns",
            &sql,
            &[(&handover.leaver.oid, Type::OID)],
        )
        .await?;
    Ok(rows.first().is_some_and(|row| row.try_get(0).unwrap_or(true)))
}

async fn reassign(session: &Session, handover: &Handover<'_>, role: &Ident, keeper: &Ident) -> Result<(), Trouble> {
    let lent = lend(session, handover, keeper).await?;
    let dropped = drop_what_cannot_move(session, handover).await?;
    if !dropped.is_empty() {
        let dropped = dropped.join("; ");
        tracing::warn!(
            role = handover.leaver.name,
            database = session.database,
            dropped,
            "objects in schemas where nobody could give the keeper CREATE were dropped"
        );
    }
    session
        .text(
            &format!("give what role {role} owns to {keeper}"),
            &format!("REASSIGN OWNED BY {role} TO {keeper}"),
        )
        .await?;
    if !lent.is_empty() {
        session
            .text("take what was lent to the keeper back", &lent.join("; "))
            .await?;
    }
    Ok(())
}

/// Lends the keeper CREATE where it needs it to be given something and our login may grant it. Gives the statements that
/// take it back.
async fn lend(session: &Session, handover: &Handover<'_>, keeper: &Ident) -> Result<Vec<String>, Trouble> {
    let name = handover.keeper.map(|keeper| keeper.name.as_str()).unwrap_or_default();
    let sql = format!(
        "SELECT DISTINCT 'SCHEMA ' || quote_ident(n.nspname) FROM (SELECT s.classid, s.objid FROM {OWNED} \
         AND s.classid IN {NEEDS_CREATE}) AS o \
         CROSS JOIN LATERAL pg_identify_object(o.classid, o.objid, 0) AS i \
         JOIN pg_namespace n ON n.oid = to_regnamespace(i.schema) \
         WHERE NOT has_schema_privilege($2::name, n.oid, 'CREATE') \
         AND has_schema_privilege(n.oid, 'CREATE WITH GRANT OPTION') \
         UNION ALL SELECT 'DATABASE ' || quote_ident(current_database()) \
         WHERE EXISTS (SELECT FROM {OWNED} AND s.classid IN ('pg_namespace'::regclass, 'pg_publication'::regclass)) \
         AND NOT has_database_privilege($2::name, current_database(), 'CREATE') \
         AND has_database_privilege(current_database(), 'CREATE WITH GRANT OPTION')"
    );
    let rows = session
        .query(
            "see where the keeper may create",
            &sql,
            &[(&handover.leaver.oid, Type::OID), (&name, Type::TEXT)],
        )
        .await?;
    let places: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
    let each = |words: &str, to: &str| -> Vec<String> {
        places
            .iter()
            .map(|place| format!("{words} CREATE ON {place} {to} {keeper}"))
            .collect()
    };
    let grants = each("GRANT", "TO");
    if !grants.is_empty() {
        session.text("lend the keeper CREATE", &grants.join("; ")).await?;
    }
    Ok(each("REVOKE", "FROM"))
}

/// Drops functions and the like that the keeper cannot be given, unless something else depends on them.
async fn drop_what_cannot_move(session: &Session, handover: &Handover<'_>) -> Result<Vec<String>, Trouble> {
    let name = handover.keeper.map(|keeper| keeper.name.as_str()).unwrap_or_default();
    // Routines need no more than their oid; the server's names for other kinds are those of its DROP statement, but one.
    let sql = format!(
        "SELECT format('DROP %s %s;', CASE i.type WHEN 'statistics object' THEN 'statistics' ELSE i.type END, i.identity) \
         FROM (SELECT s.classid, s.objid FROM {OWNED} AND s.classid IN {NEEDS_CREATE}) AS o \
         CROSS JOIN LATERAL pg_identify_object(o.classid, o.objid, 0) AS i \
         WHERE NOT has_schema_privilege($2::name, to_regnamespace(i.schema), 'CREATE')"
    );
    run_composed(
        session,
        "drop what the keeper cannot be given",
        &sql,
        &[(&handover.leaver.oid, Type::OID), (&name, Type::TEXT)],
    )
    .await
}
