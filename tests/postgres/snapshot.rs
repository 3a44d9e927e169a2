//! The judge of revocations: what the catalogs of a server say about roles, before an account lived and after.

use crate::world::World;
use std::collections::BTreeSet;

/// Everything in the catalogs of a test's databases that names a role.
pub type Snapshot = BTreeSet<String>;

/// What each database says for itself. Every row is one line of text.
const HERE: [&str; 7] = [
    "SELECT 'default privileges of ' || defaclrole::regrole || ' ' || defaclobjtype::text || ' ' || defaclacl::text FROM pg_default_acl",
    "SELECT 'relation ' || c.oid::regclass || ' of ' || c.relowner::regrole || ' ' || coalesce(c.relacl::text, '') FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^(pg_|information_schema)'",
    "SELECT 'schema ' || nspname || ' of ' || nspowner::regrole || ' ' || coalesce(nspacl::text, '') FROM pg_namespace \
     WHERE nspname !~ '^(pg_temp|pg_toast)'",
    "SELECT 'routine ' || p.oid::regprocedure || ' of ' || p.proowner::regrole || ' definer ' || p.prosecdef FROM pg_proc p \
     JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname !~ '^(pg_|information_schema)'",
    "SELECT 'large object ' || oid || ' of ' || lomowner::regrole FROM pg_largeobject_metadata",
    "SELECT 'type ' || t.oid::regtype || ' of ' || t.typowner::regrole FROM pg_type t \
     JOIN pg_namespace n ON n.oid = t.typnamespace WHERE n.nspname !~ '^(pg_|information_schema)'",
    "SELECT 'dependency ' || pg_describe_object(s.classid, s.objid, s.objsubid) || ' ' || s.deptype::text || ' ' \
     || s.refobjid::regrole FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass \
     AND s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
];

/// The whole picture of these databases and of all roles whose name holds this text or begins as ours do.
pub async fn take(world: &World, databases: &[&str]) -> Snapshot {
    let mut seen = Snapshot::new();
    for database in databases {
        let client = world.server.connect(database).await.unwrap();
        for sql in HERE {
            for row in client.query(sql, &[]).await.unwrap() {
                let line: Option<String> = row.get(0);
                seen.insert(format!("{database}: {}", line.unwrap()));
            }
        }
    }
    let root = world.root().await;
    let databases: Vec<String> = databases.iter().map(ToString::to_string).collect();
    let sql = "SELECT 'database ' || datname || ' of ' || datdba::regrole || ' ' || coalesce(datacl::text, '') FROM pg_database \
               WHERE datname = ANY ($1)";
    for row in root.query(sql, &[&databases]).await.unwrap() {
        seen.insert(row.get(0));
    }
    let mine = [&world.issuer.user, &world.database];
    let sql = "SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE '%' || $1 || '%' OR rolname LIKE '%' || $2 || '%' \
               UNION ALL SELECT 'membership of ' || member::regrole || ' in ' || roleid::regrole || ' by ' || grantor::regrole \
               FROM pg_auth_members WHERE grantor::regrole::text LIKE '%' || $1 || '%' \
               OR member::regrole::text LIKE '%' || $1 || '%' \
               UNION ALL SELECT 'setting of ' || setrole FROM pg_db_role_setting \
               WHERE setrole <> 0 AND NOT EXISTS (SELECT FROM pg_roles WHERE oid = setrole) \
               UNION ALL SELECT 'dangling dependency ' || s.refobjid || ' ' || s.classid::regclass FROM pg_shdepend s \
               WHERE s.refclassid = 'pg_authid'::regclass AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = s.refobjid)";
    for row in root.query(sql, &[mine[0], mine[1]]).await.unwrap() {
        seen.insert(row.get(0));
    }
    seen
}

/// What is in the second and was not in the first, and the reverse.
pub fn diff(before: &Snapshot, after: &Snapshot) -> (Vec<String>, Vec<String>) {
    let come = after.difference(before).cloned().collect();
    let gone = before.difference(after).cloned().collect();
    (come, gone)
}
