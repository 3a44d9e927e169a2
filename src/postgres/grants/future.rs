//! Objects that do not exist yet: what a `*` means tomorrow.
//!
//! Default privileges cover what an owner makes from now on, but only for owners whose rights our login has. For others a
//! `*` is worked out anew each time the group is looked at again, which is every few minutes while accounts are issued.

use super::catalog::NOT_SYSTEM;
use crate::api::grants::{Grant, Part, Privilege};
use crate::postgres::connect::Session;
use crate::postgres::failure::Trouble;
use crate::postgres::group::GroupRole;
use crate::postgres::sql::{Ident, acl_entries};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use tokio_postgres::types::Type;

/// A class of objects in ALTER DEFAULT PRIVILEGES: its word, and its letter in `pg_default_acl`.
type Class = (&'static str, &'static str);
const TABLES: Class = ("TABLES", "r");
const SEQUENCES: Class = ("SEQUENCES", "S");
const ROUTINES: Class = ("ROUTINES", "f");
const SCHEMAS: Class = ("SCHEMAS", "n");

/// The statements that are still needed for all these grants, in the session's database.
pub(super) async fn statements(session: &Session, role: &GroupRole, grants: &[Grant]) -> Result<String, Trouble> {
    let mut sql = String::new();
    for grant in grants.iter().filter(|grant| grant.target.object == Part::Any) {
        let schema = match &grant.target.schema {
            Part::Any => None,
            Part::Name(name) => Some(name.as_str()),
        };
        for (class, words) in classes(grant, session.version) {
            for (owner, lacking) in lacking(session, role, schema, class, &words).await? {
                let place = schema.and_then(|name| Ident::new(name).ok());
                let place = place.map(|name| format!(" IN SCHEMA {name}")).unwrap_or_default();
                let (words, kind, group) = (lacking.join(", "), class.0, &role.name);
                let _ = write!(
                    sql,
                    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner}{place} GRANT {words} ON {kind} TO {group};"
                );
            }
        }
    }
    Ok(sql)
}

/// What a grant on `*` asks of each class.
fn classes(grant: &Grant, version: u32) -> Vec<(Class, Vec<&'static str>)> {
    use Privilege::{All, Delete, Execute, Insert, Maintain, References, Select, Trigger, Truncate, Update};
    let all = grant.privileges.contains(&All);
    let asked = |privilege: &Privilege| {
        grant.privileges.contains(privilege) || (all && (*privilege != Maintain || version >= 170_000))
    };
    let of = |offered: &[Privilege]| -> Vec<&'static str> {
        offered
            .iter()
            .filter(|privilege| asked(privilege))
            .map(|privilege| privilege.word())
            .collect()
    };
    let tables = of(&[Select, Insert, Update, Delete, Truncate, References, Trigger, Maintain]);
    let sequences = if all {
        vec!["SELECT", "UPDATE", "USAGE"]
    } else if asked(&Insert) || asked(&Update) {
        vec!["USAGE"]
    } else {
        Vec::new()
    };
    let routines = of(&[Execute]);
    let inside = !(tables.is_empty() && sequences.is_empty() && routines.is_empty());
    let usage = grant.privileges.contains(&Privilege::Usage);
    let schemas = if grant.target.schema == Part::Any && (inside || usage) {
        vec!["USAGE"]
    } else {
        Vec::new()
    };
    [
        (TABLES, tables),
        (SEQUENCES, sequences),
        (ROUTINES, routines),
        (SCHEMAS, schemas),
    ]
    .into_iter()
    .filter(|(_, words)| !words.is_empty())
    .collect()
}

/// By owner (as SQL), the words that its default privileges do not hold yet.
async fn lacking(
    session: &Session,
    role: &GroupRole,
    schema: Option<&str>,
    class: Class,
    words: &[&'static str],
) -> Result<BTreeMap<String, Vec<String>>, Trouble> {
    let entries = acl_entries("d.defaclacl");
    let sql = format!(
        "SELECT pg_get_userbyid(o.owner)::text, w.word FROM ( \
         SELECT DISTINCT x.owner FROM (SELECT relowner AS owner, relnamespace AS schema FROM pg_class \
         UNION SELECT nspowner, oid FROM pg_namespace) AS x JOIN pg_namespace n ON n.oid = x.schema \
         WHERE {NOT_SYSTEM} AND ($1 IS NULL OR n.nspname = $1) AND pg_has_role(x.owner, 'USAGE')) AS o, \
         unnest($3) AS w(word) WHERE NOT EXISTS (SELECT FROM pg_default_acl d, {entries} a \
         WHERE d.defaclrole = o.owner AND d.defaclobjtype::text = $2 AND a.grantee = $4 AND a.privilege_type = w.word \
         AND d.defaclnamespace = coalesce((SELECT oid FROM pg_namespace WHERE nspname = $1), 0))"
    );
    let rows = session
        .query(
            "look up default privileges",
            &sql,
            &[
                (&schema, Type::TEXT),
                (&class.1, Type::TEXT),
                (&words, Type::TEXT_ARRAY),
                (&role.oid, Type::OID),
            ],
        )
        .await?;
    let mut lacking: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in &rows {
        if let (Ok(owner), Ok(word)) = (row.try_get::<_, String>(0), row.try_get::<_, String>(1))
            && let Ok(owner) = Ident::new(&owner)
        {
            lacking.entry(owner.to_string()).or_default().push(word);
        }
    }
    Ok(lacking)
}
