//! What a group has of what is wanted.

use super::wanted::{Kind, Want};
use crate::postgres::connect::Session;
use crate::postgres::failure::Trouble;
use crate::postgres::group::GroupRole;
use crate::postgres::sql::acl_entries;
use tokio_postgres::types::Type;

/// One wanted privilege beside what is.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) kind: Kind,
    /// The object as SQL.
    pub(super) name: String,
    /// Its owner as SQL.
    pub(super) owner: String,
    pub(super) privilege: &'static str,
    /// Our login may grant it, and the group is not in the object's ACL with it.
    ///
    /// What the group has only through PUBLIC is granted as well: else hardening the database would cut live accounts.
    pub(super) to_grant: bool,
    /// It is required, and the group does not have it.
    pub(super) gap: bool,
}

/// Asks the server, one question per kind of object.
pub(super) async fn compare(session: &Session, role: &GroupRole, wants: Vec<Want>) -> Result<Vec<Standing>, Trouble> {
    let mut standing = Vec::new();
    let mut rest = wants.into_iter().peekable();
    // They come sorted by kind.
    while let Some(kind) = rest.peek().map(|want| want.object.kind) {
        let mut some = Vec::new();
        while let Some(want) = rest.next_if(|want| want.object.kind == kind) {
            some.push(want);
        }
        standing.extend(compare_kind(session, role, kind, some).await?);
    }
    Ok(standing)
}

async fn compare_kind(
    session: &Session,
    role: &GroupRole,
    kind: Kind,
    wants: Vec<Want>,
) -> Result<Vec<Standing>, Trouble> {
    let (has, catalog, acl) = match kind {
        Kind::Database => ("has_database_privilege", "pg_database", "datacl"),
        Kind::Schema => ("has_schema_privilege", "pg_namespace", "nspacl"),
        Kind::Table => ("has_table_privilege", "pg_class", "relacl"),
        Kind::Sequence => ("has_sequence_privilege", "pg_class", "relacl"),
        Kind::Routine => ("has_function_privilege", "pg_proc", "proacl"),
    };
    let entries = acl_entries(&format!("c.{acl}"));
    // The inner join leaves out what was dropped a moment ago.
    let sql = format!(
        "SELECT {has}($3, w.oid, w.word), \
         EXISTS (SELECT FROM {entries} a WHERE a.grantee = $3 AND a.privilege_type = w.word), \
         {has}(w.oid, w.word || ' WITH GRANT OPTION'), w.at::int4 \
         FROM unnest($1, $2) WITH ORDINALITY AS w(oid, word, at) JOIN {catalog} c ON c.oid = w.oid"
    );
    let oids: Vec<u32> = wants.iter().map(|want| want.object.oid).collect();
    let words: Vec<&str> = wants.iter().map(|want| want.privilege).collect();
    let rows = session
        .query(
            "compare the group role's privileges",
            &sql,
            &[
                (&oids, Type::OID_ARRAY),
                (&words, Type::TEXT_ARRAY),
                (&role.oid, Type::OID),
            ],
        )
        .await?;
    let mut standing = Vec::new();
    for row in &rows {
        let flag = |index: usize| row.try_get::<_, Option<bool>>(index).ok().flatten().unwrap_or_default();
        let at = row
            .try_get::<_, i32>(3)
            .ok()
            .and_then(|at| usize::try_from(at - 1).ok());
        let Some(want) = at.and_then(|at| wants.get(at)) else {
            continue;
        };
        standing.push(Standing {
            kind,
            name: want.object.name.clone(),
            owner: want.object.owner.clone(),
            privilege: want.privilege,
            to_grant: !flag(1) && flag(2),
            gap: want.required && !flag(0),
        });
    }
    Ok(standing)
}
