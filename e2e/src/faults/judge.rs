//! The judge: what is in the databases and in the cluster now that was not there before. It believes no books of ours and
//! goes by no name: everything on the server is compared.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::books::Books;
use crate::scene::Scene;

/// What was there before.
pub struct Before {
    books: Books,
    roles: BTreeSet<String>,
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
        Ok(Self {
            books: scene.books().await?,
            roles: names(scene, ROLES).await?.into_iter().collect(),
        })
    }

    /// Compares with now.
    pub async fn left(&self, scene: &Scene<'_>) -> Result<Left> {
        let mut left = self.harm(scene).await?;
        left.books = self.books.difference(&scene.books().await?);
        for lease in scene.leases().await? {
            left.leases.push(crate::objects::text(&lease, "/metadata/name"));
        }
        Ok(left)
    }

    /// The part that is of use to somebody; cheaper to look at.
    pub async fn harm(&self, scene: &Scene<'_>) -> Result<Left> {
        let new = |names: Vec<String>| names.into_iter().filter(|name| !self.roles.contains(name)).collect();
        let secrets = scene.objects.list("Secret", &scene.shop).await?;
        Ok(Left {
            accounts: new(names(scene, ACCOUNTS).await?),
            sessions: new(names(scene, SESSIONS).await?),
            secrets: secrets
                .iter()
                .map(|secret| crate::objects::text(secret, "/metadata/name"))
                .collect(),
            ..Left::default()
        })
    }
}

/// By a new session each time: the server may have been restarted since the last look.
async fn names(scene: &Scene<'_>, query: &str) -> Result<Vec<String>> {
    let client = scene.server().connect("postgres").await?;
    let rows = client.query(query, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
