//! What a database server keeps on roles: to be compared before and after, since nothing of ours may stay behind.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Result;

use crate::postgres::Server;

/// Kept once per server: roles with all their attributes, memberships, settings, comments, and every dependency on a role in
/// every database, which is where owned objects and rights show.
const SHARED: [&str; 5] = [
    "SELECT 'role ' || to_jsonb(r)::text FROM pg_roles r",
    "SELECT 'member ' || roleid::regrole || ' <- ' || member::regrole || ' by ' || grantor::regrole FROM pg_auth_members",
    "SELECT 'setting ' || to_jsonb(s)::text FROM pg_db_role_setting s",
    "SELECT 'comment ' || classoid::regclass || ' ' || objoid || ' ' || description FROM pg_shdescription",
    "SELECT 'depends ' || to_jsonb(d)::text FROM pg_shdepend d",
];
/// Kept in each database.
const PER_DATABASE: [&str; 1] =
    ["SELECT 'default right ' || current_database() || ' ' || to_jsonb(a)::text FROM pg_default_acl a"];

/// All that a server keeps on roles at one moment.
#[derive(Clone, PartialEq, Eq)]
pub struct Books(BTreeSet<String>);

impl Books {
    pub async fn read(server: &Server) -> Result<Self> {
        let client = server.connect("postgres").await?;
        let mut lines = BTreeSet::new();
        for query in SHARED {
            lines.extend(
                client
                    .query(query, &[])
                    .await?
                    .iter()
                    .map(|row| row.get::<_, String>(0)),
            );
        }
        let databases = client
            .query("SELECT datname FROM pg_database WHERE datallowconn", &[])
            .await?;
        for database in databases {
            let client = server.connect(database.get(0)).await?;
            for query in PER_DATABASE {
                lines.extend(
                    client
                        .query(query, &[])
                        .await?
                        .iter()
                        .map(|row| row.get::<_, String>(0)),
                );
            }
        }
        Ok(Self(lines))
    }

    /// What is in only one of the two, one line each; empty if they are equal.
    pub fn difference(&self, later: &Self) -> String {
        let gone = self.0.difference(&later.0).map(|line| format!("- {line}\n"));
        gone.chain(later.0.difference(&self.0).map(|line| format!("+ {line}\n")))
            .collect()
    }
}

impl fmt::Debug for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Books({} lines)", self.0.len())
    }
}
