//! What there is in a database: schemas, tables, sequences, routines, read from the catalogs.
//!
//! The system's own schemas are never in it: a group that reads `pg_catalog.pg_authid` could read every verifier.

use super::wanted::Kind;
use crate::channel::frames::FailureClass;
use crate::postgres::connect::Session;
use crate::postgres::failure::{Trouble, failure};
use crate::postgres::sql::Ident;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// Something that privileges are granted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) kind: Kind,
    pub(super) oid: u32,
    /// As SQL, qualified and quoted; a routine with its argument types.
    pub(super) name: String,
    /// Its owner, as SQL.
    pub(super) owner: String,
    /// OID of its schema; 0 for a database or a schema.
    pub(super) schema: u32,
    /// It belongs to an extension, so it is not the application's.
    pub(super) extension: bool,
}

/// Of a schema `n`.
pub(super) const NOT_SYSTEM: &str = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

pub(super) async fn database(session: &Session) -> Result<Object, Trouble> {
    let sql = "SELECT oid, 0::oid, NULL::text, datname::text, NULL::text, pg_get_userbyid(datdba)::text, false \
               FROM pg_database WHERE datname = current_database()";
    let rows = session.query("look up the database", sql, &[]).await?;
    let found = rows.first().and_then(|row| object(Kind::Database, row));
    found.ok_or_else(|| failure(FailureClass::Server, "the database does not list itself in pg_database").into())
}

/// The schemas of that name, or all.
pub(super) async fn schemas(session: &Session, schema: Option<&str>) -> Result<Vec<Object>, Trouble> {
    let sql = format!(
        "SELECT n.oid, 0::oid, NULL::text, n.nspname::text, NULL::text, pg_get_userbyid(n.nspowner)::text, \
         EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e') \
         FROM pg_namespace n WHERE {NOT_SYSTEM} AND ($1 IS NULL OR n.nspname = $1)"
    );
    let rows = session
        .query("list the schemas", &sql, &[(&schema, Type::TEXT)])
        .await?;
    Ok(rows.iter().filter_map(|row| object(Kind::Schema, row)).collect())
}

/// Tables, views, materialized views, foreign tables ([`Kind::Table`]) and sequences.
pub(super) async fn relations(
    session: &Session,
    schema: Option<&str>,
    name: Option<&str>,
) -> Result<Vec<Object>, Trouble> {
    let sql = format!(
        "SELECT c.oid, n.oid, n.nspname::text, c.relname::text, NULL::text, pg_get_userbyid(c.relowner)::text, \
         EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'), \
         c.relkind = 'S' \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {NOT_SYSTEM} \
         AND ($1 IS NULL OR n.nspname = $1) AND ($2 IS NULL OR c.relname = $2)"
    );
    let rows = session
        .query("list the tables", &sql, &[(&schema, Type::TEXT), (&name, Type::TEXT)])
        .await?;
    let kind = |row: &Row| match row.try_get::<_, bool>(7) {
        Ok(true) => Kind::Sequence,
        _ => Kind::Table,
    };
    Ok(rows.iter().filter_map(|row| object(kind(row), row)).collect())
}

/// Functions, procedures and aggregates, every overload.
pub(super) async fn routines(
    session: &Session,
    schema: Option<&str>,
    name: Option<&str>,
) -> Result<Vec<Object>, Trouble> {
    // regprocedure writes name and argument types quoted and, with our search_path, qualified.
    let sql = format!(
        "SELECT p.oid, n.oid, n.nspname::text, p.proname::text, p.oid::regprocedure::text, \
         pg_get_userbyid(p.proowner)::text, \
         EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e') \
         FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
         WHERE {NOT_SYSTEM} AND ($1 IS NULL OR n.nspname = $1) AND ($2 IS NULL OR p.proname = $2)"
    );
    let rows = session
        .query("list the routines", &sql, &[(&schema, Type::TEXT), (&name, Type::TEXT)])
        .await?;
    Ok(rows.iter().filter_map(|row| object(Kind::Routine, row)).collect())
}

/// Sequences that feed a column of these tables, as serial columns and defaults do. Identity columns need no privilege.
pub(super) async fn feeding_sequences(session: &Session, tables: &[u32]) -> Result<Vec<Object>, Trouble> {
    let sql = "SELECT DISTINCT c.oid, n.oid, n.nspname::text, c.relname::text, NULL::text, \
               pg_get_userbyid(c.relowner)::text, false \
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind = 'S' AND c.oid IN ( \
               SELECT d.objid FROM pg_depend d WHERE d.classid = 'pg_class'::regclass \
               AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY($1) AND d.deptype = 'a' \
               UNION SELECT d.refobjid FROM pg_attrdef a JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass \
               AND d.objid = a.oid AND d.refclassid = 'pg_class'::regclass WHERE a.adrelid = ANY($1))";
    let tables = tables.to_vec();
    let rows = session
        .query("list the tables' sequences", sql, &[(&tables, Type::OID_ARRAY)])
        .await?;
    Ok(rows.iter().filter_map(|row| object(Kind::Sequence, row)).collect())
}

/// Reads: oid, schema's oid, schema, name, name as SQL if the server wrote it, owner, extension.
fn object(kind: Kind, row: &Row) -> Option<Object> {
    let text = |index: usize| row.try_get::<_, Option<String>>(index).ok().flatten();
    let name = match (text(2), text(4)) {
        (_, Some(written)) => written,
        (Some(schema), None) => format!("{}.{}", Ident::new(&schema).ok()?, Ident::new(&text(3)?).ok()?),
        (None, None) => Ident::new(&text(3)?).ok()?.to_string(),
    };
    Some(Object {
        kind,
        oid: row.try_get(0).ok()?,
        name,
        owner: Ident::new(&text(5)?).ok()?.to_string(),
        schema: row.try_get(1).ok()?,
        extension: row.try_get(6).ok()?,
    })
}
