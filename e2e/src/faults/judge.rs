//! The judge: what is in the databases and in the cluster now that was not there before. It believes no books of ours and
//! goes by no name: everything on the server is compared.

use std::collections::BTreeSet;

use anyhow::Result;
use tokio::sync::Mutex;
use tokio_postgres::Client;

use crate::books::Books;
use crate::objects::text;
use crate::scene::Scene;

/// What was there before.
pub struct Before {
    books: Books,
    roles: BTreeSet<String>,
    secrets: BTreeSet<String>,
    leases: BTreeSet<String>,
    /// A superuser's session, made anew when the server was restarted.
    session: Mutex<Option<Client>>,
}

/// What is there that was not there before.
#[derive(Debug, Clone, Default)]
pub struct Left {
    /// Roles that can log in.
    pub accounts: Vec<String>,
    /// Sessions of roles that were not there before, or are gone; the role's name, or its OID.
    pub sessions: Vec<String>,
    /// Names of Secrets in the shop's namespace.
    pub secrets: Vec<String>,
    /// Names of leases in the shop's namespace.
    pub leases: Vec<String>,
    /// Every other difference of the server's books.
    pub books: String,
}

impl Left {
    /// Nobody can log in, is logged in, or can read a credential any more.
    pub fn is_harmless(&self) -> bool {
        self.accounts.is_empty() && self.sessions.is_empty() && self.secrets.is_empty()
    }

    /// Nothing at all.
    pub fn is_clean(&self) -> bool {
        self.is_harmless() && self.leases.is_empty() && self.books.is_empty()
    }
}

const ROLES: &str = "SELECT rolname::text FROM pg_roles";
const ACCOUNTS: &str = "SELECT rolname::text FROM pg_roles WHERE rolcanlogin";
/// A session whose role is gone has an OID and no name.
const SESSIONS: &str = "SELECT coalesce(usename::text, usesysid::text) FROM pg_stat_activity \
    WHERE backend_type = 'client backend' AND usesysid IS NOT NULL";

impl Before {
    pub async fn look(scene: &Scene<'_>) -> Result<Self> {
        let mut before = Self {
            books: scene.books().await?,
            roles: BTreeSet::new(),
            secrets: objects(scene, "Secret").await?,
            leases: objects(scene, "CredentialLease").await?,
            session: Mutex::default(),
        };
        before.roles = before.names(scene, ROLES).await?.into_iter().collect();
        Ok(before)
    }

    /// Compares with now. The server's whole books are only compared when nothing of use is left and no lease is open.
    pub async fn left(&self, scene: &Scene<'_>) -> Result<Left> {
        let mut left = self.harm(scene).await?;
        let leases = objects(scene, "CredentialLease").await?;
        left.leases = leases.difference(&self.leases).cloned().collect();
        left.books = if left.is_harmless() && left.leases.is_empty() {
            self.books.difference(&scene.books().await?)
        } else {
            "not compared: there is more".to_owned()
        };
        Ok(left)
    }

    /// The same, with the books in any case.
    pub async fn all_left(&self, scene: &Scene<'_>) -> Result<Left> {
        let mut left = self.left(scene).await?;
        left.books = self.books.difference(&scene.books().await?);
        Ok(left)
    }

    /// The part that is of use to somebody.
    async fn harm(&self, scene: &Scene<'_>) -> Result<Left> {
        let new = |names: Vec<String>| names.into_iter().filter(|name| !self.roles.contains(name)).collect();
        let secrets = objects(scene, "Secret").await?;
        Ok(Left {
            accounts: new(self.names(scene, ACCOUNTS).await?),
            sessions: new(self.names(scene, SESSIONS).await?),
            secrets: secrets.difference(&self.secrets).cloned().collect(),
            ..Left::default()
        })
    }

    /// Roles that can log in now, could not before, and have this in their name.
    pub async fn accounts_of(&self, scene: &Scene<'_>, subject: &str) -> Result<Vec<String>> {
        let mut accounts = self.names(scene, ACCOUNTS).await?;
        accounts.retain(|name| name.contains(subject) && !self.roles.contains(name));
        Ok(accounts)
    }

    async fn names(&self, scene: &Scene<'_>, query: &str) -> Result<Vec<String>> {
        let mut session = self.session.lock().await;
        let client = match session.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => scene.server().connect("postgres").await?,
        };
        let rows = client.query(query, &[]).await?;
        *session = Some(client);
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

/// Names of the shop's objects of a kind.
async fn objects(scene: &Scene<'_>, kind: &str) -> Result<BTreeSet<String>> {
    let found = scene.objects.list(kind, &scene.shop).await?;
    Ok(found.iter().map(|object| text(object, "/metadata/name")).collect())
}

/// A keeper that has what a test made is as it should be; that test is over, so what it made goes, and its keeper with it.
pub async fn drop_kept(scene: &Scene<'_>) -> Result<()> {
    let superuser = scene.server().connect("postgres").await?;
    let kept = "SELECT DISTINCT r.rolname::text FROM pg_roles r JOIN pg_shdepend d ON d.refobjid = r.oid \
        AND d.refclassid = 'pg_authid'::regclass WHERE starts_with(r.rolname, 'dsvk_')";
    let databases = superuser
        .query("SELECT datname FROM pg_database WHERE datallowconn", &[])
        .await?;
    for row in superuser.query(kept, &[]).await? {
        let keeper = postgres_protocol::escape::escape_identifier(row.get(0));
        for database in &databases {
            let there = scene.server().connect(database.get(0)).await?;
            there.batch_execute(&format!("DROP OWNED BY {keeper} CASCADE")).await?;
        }
        superuser.batch_execute(&format!("DROP ROLE {keeper}")).await?;
    }
    Ok(())
}
