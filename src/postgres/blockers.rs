//! What keeps a locked role from being dropped, in words and as the SQL that would free it.

use super::connect::Session;
use super::failure::Trouble;
use super::pool::{Checkout, Server};
use super::revoke::Role;
use super::sql::{Ident, oid_array};
use crate::channel::frames::{AccountState, Failure};
use std::collections::BTreeMap;
use tokio_postgres::types::Type;

/// Most databases that are visited and named.
const DATABASES: usize = 3;
/// Most objects named for each.
const OBJECTS: i64 = 5;

/// The state of an account that is locked and was refused to be dropped with this failure.
pub(super) async fn blocked(
    server: &Server,
    session: &Checkout<'_>,
    roles: &[Role],
    refused: &Failure,
) -> Result<AccountState, Trouble> {
    let oids: Vec<u32> = roles.iter().map(|role| role.oid).collect();
    let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
    let mut by = Vec::new();
    let mut sql = Vec::new();
    for (gid, database) in prepared(session, &names).await? {
        by.push(format!("prepared transaction {gid} in database {database}"));
        sql.push(format!(
            "-- in database {database}\nROLLBACK PREPARED '{}';",
            gid.replace('\'', "''")
        ));
    }
    let databases = databases(session, &oids).await?;
    let more = databases.len().saturating_sub(DATABASES);
    for (database, count) in databases.into_iter().take(DATABASES) {
        let place = if database.is_empty() {
            "the whole server".to_owned()
        } else {
            format!("database {database}")
        };
        let objects = objects(server, session, &database, &oids).await;
        let objects = if objects.is_empty() {
            String::new()
        } else {
            format!(": {}", objects.join(", "))
        };
        by.push(format!("{count} object(s) or right(s) of it in {place}{objects}"));
        for role in roles {
            let Ok(role) = Ident::new(&role.name) else { continue };
            sql.push(format!(
                "-- in database {database}\nGRANT {role} TO CURRENT_USER; \
                 REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role};"
            ));
        }
    }
    if more > 0 {
        by.push(format!("and more in {more} further database(s)"));
    }
    if by.is_empty() {
        by.push(refused.message.clone());
    }
    let sql = (!sql.is_empty()).then(|| sql.join("\n"));
    Ok(AccountState::Blocked {
        locked: true,
        by: by.join("; "),
        sql,
    })
}

async fn prepared(session: &Session, owners: &[&str]) -> Result<Vec<(String, String)>, Trouble> {
    let rows = session
        .query(
            "list prepared transactions",
            "SELECT gid, database::text FROM pg_prepared_xacts WHERE owner = ANY ($1) ORDER BY prepared",
            &[(&owners, Type::TEXT_ARRAY)],
        )
        .await?;
    Ok(rows
        .iter()
        .filter_map(|row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?)))
        .collect())
}

/// How much depends on the roles in each database; an empty name stands for what all databases share.
async fn databases(session: &Session, oids: &[u32]) -> Result<BTreeMap<String, i64>, Trouble> {
    let oids = oids.to_vec();
    let rows = session
        .query(
            "list what depends on the account",
            "SELECT coalesce(d.datname::text, ''), count(*) FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid \
             WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = ANY ($1) GROUP BY 1",
            &[(&oids, Type::OID_ARRAY)],
        )
        .await?;
    Ok(rows
        .iter()
        .filter_map(|row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?)))
        .collect())
}

/// Objects by name. Only a session in their database can name them; where none can be had, the count must do.
async fn objects(server: &Server, session: &Checkout<'_>, database: &str, oids: &[u32]) -> Vec<String> {
    let there;
    let place: &Session = if database.is_empty() || database == server.login.database {
        session
    } else {
        match server.open(database).await {
            Ok(opened) => {
                there = opened;
                &there
            }
            Err(failure) => {
                tracing::debug!(database, error = failure.message, "cannot name what blocks an account");
                return Vec::new();
            }
        }
    };
    let sql = format!(
        "SELECT pg_describe_object(s.classid, s.objid, s.objsubid) FROM pg_shdepend s \
         WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = ANY ({}) \
         AND s.dbid = (SELECT d.oid FROM pg_database d WHERE d.datname = $1) LIMIT {OBJECTS}",
        oid_array(oids)
    );
    match place
        .query("name what depends on the account", &sql, &[(&database, Type::TEXT)])
        .await
    {
        Ok(rows) => rows
            .iter()
            .filter_map(|row| row.try_get::<_, Option<String>>(0).ok().flatten())
            .collect(),
        Err(trouble) => {
            tracing::debug!(database, error = %trouble, "cannot name what blocks an account");
            Vec::new()
        }
    }
}
