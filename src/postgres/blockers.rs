//! What keeps a locked and emptied role from being dropped, in words and as the SQL that would free it.
//!
//! By then all was taken from it that this login could take. What is left needs somebody else: whoever prepared a transaction,
//! holds a lock, lets us into a database, or owns what the role has rights on.

use super::connect::Session;
use super::failure::Trouble;
use super::handover::DISARMING;
use super::pool::{Checkout, Server};
use super::revoke::{Keepers, Places, Refusals, Role};
use super::sql::{Ident, acl_entries, remark};
use crate::channel::frames::{AccountState, Failure, FailureClass};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// Most databases that are visited and named.
const DATABASES: usize = 3;
/// Most objects named for each, and most statements given for each.
const OBJECTS: i64 = 5;

/// An account that could not be dropped.
pub(super) struct Blocked<'a> {
    pub(super) server: &'a Server,
    pub(super) session: &'a Checkout<'a>,
    pub(super) roles: &'a [Role],
    /// Why it could not be emptied, by database.
    pub(super) refusals: &'a Refusals,
    pub(super) keepers: &'a Keepers<'a>,
    /// What the server said to DROP ROLE.
    pub(super) refused: &'a Failure,
}

/// Sentences and statements.
#[derive(Default)]
struct Told {
    by: Vec<String>,
    sql: Vec<String>,
}

impl Told {
    fn tell(&mut self, by: String, database: &str, sql: &[String]) {
        self.by.push(by);
        if !sql.is_empty() {
            self.sql.push(format!(
                "{} {}",
                remark(&format!("in database {database}")),
                sql.join(" ")
            ));
        }
    }
}

impl Blocked<'_> {
    /// What holds it.
    pub(super) async fn state(&self, places: &mut Places) -> Result<AccountState, Trouble> {
        let mut told = Told::default();
        for (gid, database) in self.prepared().await? {
            let sql = format!("ROLLBACK PREPARED '{}';", gid.replace('\'', "''"));
            told.tell(
                format!("prepared transaction {gid} in database {database}"),
                &database,
                &[sql],
            );
        }
        let left = self.left().await?;
        let databases: BTreeSet<&String> = left.keys().chain(self.refusals.0.keys()).collect();
        for database in databases.iter().take(DATABASES) {
            let count = left.get(*database).copied().unwrap_or_default();
            self.database(places, database, count, &mut told).await;
        }
        if databases.len() > DATABASES {
            told.by.push(format!(
                "and more in {} further database(s)",
                databases.len() - DATABASES
            ));
        }
        if told.by.is_empty() {
            told.by.push(self.refused.message.clone());
        }
        Ok(AccountState::Blocked {
            locked: true,
            by: told.by.join("; "),
            sql: (!told.sql.is_empty()).then(|| told.sql.join(" ")),
        })
    }

    fn oids(&self) -> Vec<u32> {
        self.roles.iter().map(|role| role.oid).collect()
    }

    async fn prepared(&self) -> Result<Vec<(String, String)>, Trouble> {
        let owners: Vec<&str> = self.roles.iter().map(|role| role.name.as_str()).collect();
        let rows = self
            .session
            .query(
                "list prepared transactions",
                "SELECT gid, database::text FROM pg_prepared_xacts WHERE owner = ANY ($1) ORDER BY prepared",
                &[(&owners, Type::TEXT_ARRAY)],
            )
            .await?;
        let read = |row: &tokio_postgres::Row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?));
        Ok(rows.iter().filter_map(read).collect())
    }

    /// How much depends on the roles in each database. What belongs to none counts as the one that we are in.
    async fn left(&self) -> Result<BTreeMap<String, i64>, Trouble> {
        let rows = self
            .session
            .query(
                "list what depends on the account",
                "SELECT coalesce(d.datname, current_database())::text, count(*) FROM pg_shdepend s \
                 LEFT JOIN pg_database d ON d.oid = s.dbid \
                 WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = ANY ($1) GROUP BY 1",
                &[(&self.oids(), Type::OID_ARRAY)],
            )
            .await?;
        let read = |row: &tokio_postgres::Row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?));
        Ok(rows.iter().filter_map(read).collect())
    }

    async fn database(&self, places: &mut Places, database: &str, count: i64, told: &mut Told) {
        let refusal = self.refusals.0.get(database);
        let because = refusal.map_or_else(String::new, |refusal| format!(" ({})", refusal.message));
        let place = match places.at(self.server, database).await {
            Ok(place) => place,
            Err(failure) => {
                let by = format!(
                    "{count} object(s) or right(s) of it in database {database}: {}",
                    failure.message
                );
                told.tell(by, &self.server.login.database, &self.way_in(database, &failure));
                return;
            }
        };
        if refusal.is_some_and(|refusal| refusal.sqlstate.as_deref() == Some(SqlState::LOCK_NOT_AVAILABLE.code())) {
            let holders = self.holders(place).await;
            let (who, sql): (Vec<String>, Vec<String>) = holders.into_iter().unzip();
            let who = if who.is_empty() {
                String::new()
            } else {
                format!(": {}", who.join(", "))
            };
            told.tell(
                format!("locks on its objects in database {database}{who}{because}"),
                database,
                &sql,
            );
            return;
        }
        let objects = self.objects(place).await;
        let objects = if objects.is_empty() {
            String::new()
        } else {
            format!(": {}", objects.join(", "))
        };
        let by = format!("{count} object(s) or right(s) of it in database {database}{objects}{because}");
        let sql = self.cure(place, refusal).await;
        told.tell(by, database, &sql);
    }

    /// What lets our login into a database.
    fn way_in(&self, database: &str, failure: &Failure) -> Vec<String> {
        let (Ok(database), Ok(me)) = (Ident::new(database), self.session.me()) else {
            return Vec::new();
        };
        match failure.sqlstate.as_deref() {
            Some("55000") => vec![format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true;")],
            _ if failure.class == FailureClass::MissingPrivilege => {
                vec![format!("GRANT CONNECT ON DATABASE {database} TO {me};")]
            }
            _ => Vec::new(),
        }
    }

    /// What a superuser, or the owner of what the role has rights on, can run.
    async fn cure(&self, place: &Session, refusal: Option<&Failure>) -> Vec<String> {
        // Without a keeper that is ours, its place has to be made free first.
        if let Some(refusal) = refusal
            && refusal.class == FailureClass::Foreign
            && let Some((_, sql)) = refusal.message.split_once("run: ")
        {
            return vec![sql.to_owned()];
        }
        let mut sql = self.grants_of_others(place).await;
        let disarming = format!("SELECT {DISARMING} WHERE p.proowner = ANY ($1) LIMIT {OBJECTS}");
        sql.extend(self.texts(place, "name the functions", &disarming).await);
        for role in self.roles {
            let Ok(name) = Ident::new(&role.name) else { continue };
            let keeper = self
                .keepers
                .of(&place.database)
                .and_then(|keeper| Ident::new(&keeper.name).ok());
            if let (Some(_), Some(keeper)) = (refusal, keeper) {
                sql.push(format!("REASSIGN OWNED BY {name} TO {keeper};"));
            }
            sql.push(format!("DROP OWNED BY {name};"));
        }
        sql
    }

    /// DROP OWNED takes only what the owner of an object has granted. What somebody else passed on must be taken by him.
    async fn grants_of_others(&self, place: &Session) -> Vec<String> {
        let entries = acl_entries("o.acl");
        let sql = format!(
            "SELECT DISTINCT format('SET ROLE %I; REVOKE ALL ON %s %s FROM %I CASCADE; RESET ROLE;', g.rolname, o.kind, o.name, u.rolname) \
             FROM (SELECT 'TABLE' AS kind, c.oid::regclass::text AS name, c.relowner AS owner, c.relacl AS acl FROM pg_class c \
             WHERE c.relkind <> 'S' \
             UNION ALL SELECT 'SEQUENCE', c.oid::regclass::text, c.relowner, c.relacl FROM pg_class c WHERE c.relkind = 'S' \
             UNION ALL SELECT 'SCHEMA', n.oid::regnamespace::text, n.nspowner, n.nspacl FROM pg_namespace n \
             UNION ALL SELECT 'ROUTINE', p.oid::regprocedure::text, p.proowner, p.proacl FROM pg_proc p WHERE p.prokind <> 'a' \
             UNION ALL SELECT 'DATABASE', quote_ident(d.datname), d.datdba, d.datacl FROM pg_database d) AS o \
             CROSS JOIN LATERAL {entries} AS a \
             JOIN pg_roles g ON g.oid = a.grantor JOIN pg_roles u ON u.oid = a.grantee \
             WHERE a.grantee = ANY ($1) AND a.grantor <> o.owner AND a.grantor <> a.grantee LIMIT {OBJECTS}"
        );
        self.texts(place, "name the rights that others granted", &sql).await
    }

    /// Sessions and prepared transactions that hold locks on tables of the roles.
    async fn holders(&self, place: &Session) -> Vec<(String, String)> {
        let sql = format!(
            "SELECT DISTINCT CASE WHEN l.pid IS NULL THEN 'prepared transaction ' || p.gid ELSE 'session ' || l.pid END, \
             CASE WHEN l.pid IS NULL THEN format('ROLLBACK PREPARED %L;', p.gid) \
             ELSE format('SELECT pg_terminate_backend(%s);', l.pid) END \
             FROM pg_locks l LEFT JOIN pg_locks t ON l.pid IS NULL AND t.pid IS NULL AND t.locktype = 'transactionid' \
             AND t.virtualtransaction = l.virtualtransaction \
             LEFT JOIN pg_prepared_xacts p ON p.transaction = t.transactionid \
             WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() \
             AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) \
             AND l.relation IN (SELECT c.oid FROM pg_class c WHERE c.relowner = ANY ($1)) \
             AND (l.pid IS NOT NULL OR p.gid IS NOT NULL) LIMIT {OBJECTS}"
        );
        let oids = self.oids();
        match place
            .query("name who holds locks", &sql, &[(&oids, Type::OID_ARRAY)])
            .await
        {
            Ok(rows) => {
                let read = |row: &tokio_postgres::Row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?));
                rows.iter().filter_map(read).collect()
            }
            Err(trouble) => unnamed(place, &trouble),
        }
    }

    /// Objects by name. Only a session in their database can name them.
    async fn objects(&self, place: &Session) -> Vec<String> {
        let sql = format!(
            "SELECT pg_describe_object(s.classid, s.objid, s.objsubid) FROM pg_shdepend s \
             WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = ANY ($1) \
             AND s.dbid IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())) LIMIT {OBJECTS}"
        );
        self.texts(place, "name what depends on the account", &sql).await
    }

    async fn texts(&self, place: &Session, doing: &str, sql: &str) -> Vec<String> {
        match place.query(doing, sql, &[(&self.oids(), Type::OID_ARRAY)]).await {
            Ok(rows) => {
                let text = |row: &tokio_postgres::Row| row.try_get::<_, Option<String>>(0).ok().flatten();
                rows.iter().filter_map(text).collect()
            }
            Err(trouble) => unnamed(place, &trouble),
        }
    }
}

/// The count must do.
fn unnamed<T>(place: &Session, trouble: &Trouble) -> Vec<T> {
    let database = &place.database;
    tracing::debug!(database, error = %trouble, "cannot name what blocks an account");
    Vec::new()
}
