//! What the database can do at most: accounts made and dropped by statements of our shape, with nothing around them.
//!
//! The verifier is the same for all of them, so nobody computes one here. The server's own check of it, which is nearly all
//! that an account costs, is the same for any.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::postgres::{Login, Server};
use e2e::sample;
use futures::future::try_join_all;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::Client;

/// Accounts of one transaction when they are dropped in batches.
const BATCH: usize = 64;
const END: &str = "2099-01-01T00:00:00Z";
const GROUP: &str = "bare_group";
const PREFIX: &str = "bare_";

/// Sessions of the administrative login on one server.
pub struct BareSql {
    sessions: Vec<Client>,
    verifier: String,
    /// From 16 on a membership says that nobody may become the group.
    membership_options: bool,
    next: AtomicUsize,
}

impl BareSql {
    pub async fn open(server: &Server, login: &Login, sessions: usize) -> Result<Self> {
        let open = (0..sessions).map(|_| server.connect_as(login, sample::ORDERS));
        let bare = Self {
            sessions: try_join_all(open).await?,
            verifier: postgres_protocol::password::scram_sha_256(b"nobody uses it"),
            membership_options: server.major() >= e2e::postgres::Major::V16,
            next: AtomicUsize::new(0),
        };
        if let Some(session) = bare.sessions.first() {
            let sql = format!("DROP ROLE IF EXISTS {GROUP}; CREATE ROLE {GROUP} NOLOGIN");
            session.batch_execute(&sql).await?;
        }
        Ok(bare)
    }

    /// One account over one of the sessions: lock, deadline, role with membership, comment; one round trip, one transaction.
    pub async fn issue(&self, session: usize) -> Result<()> {
        let Some(session) = self.sessions.get(session) else {
            return Ok(());
        };
        let role = format!("{PREFIX}{}", self.next.fetch_add(1, Ordering::Relaxed));
        session.simple_query(&self.create(&role)).await?;
        Ok(())
    }

    fn create(&self, role: &str) -> String {
        let (name, text) = (escape_identifier(role), escape_literal(role));
        let (in_role, member) = if self.membership_options {
            (
                String::new(),
                format!("GRANT {GROUP} TO {name} WITH INHERIT TRUE, SET FALSE; "),
            )
        } else {
            (format!(" IN ROLE {GROUP}"), String::new())
        };
        let verifier = escape_literal(&self.verifier);
        format!(
            "SELECT pg_advisory_xact_lock(hashtextextended({text}, 0)); \
             SELECT 1 / (clock_timestamp() < '{END}'::timestamptz)::int; \
             CREATE ROLE {name} LOGIN PASSWORD {verifier} VALID UNTIL '{END}'{in_role}; \
             {member}COMMENT ON ROLE {name} IS 'bare, made to be measured; its comment is about as long as a signed one is'"
        )
    }

    /// Makes so many, as many at once as there are sessions, and gives what each took and what all took.
    pub async fn issue_many(&self, count: usize) -> Result<(Vec<Duration>, Duration)> {
        let begun = Instant::now();
        let taken = AtomicUsize::new(0);
        let lanes = (0..self.sessions.len()).map(|session| {
            let taken = &taken;
            async move {
                let mut took = Vec::new();
                while taken.fetch_add(1, Ordering::Relaxed) < count {
                    let begun = Instant::now();
                    self.issue(session).await?;
                    took.push(begun.elapsed());
                }
                anyhow::Ok(took)
            }
        });
        let took = try_join_all(lanes).await?.concat();
        Ok((took, begun.elapsed()))
    }

    /// Drops these roles in batches, as many batches at once as there are sessions.
    pub async fn drop_many(&self, roles: &[String]) -> Result<Duration> {
        let begun = Instant::now();
        let batches: Vec<&[String]> = roles.chunks(BATCH).collect();
        let taken = AtomicUsize::new(0);
        let lanes = self.sessions.iter().map(|session| {
            let (taken, batches) = (&taken, &batches);
            async move {
                while let Some(batch) = batches.get(taken.fetch_add(1, Ordering::Relaxed)) {
                    session.simple_query(&drop_batch(batch)).await?;
                }
                anyhow::Ok(())
            }
        });
        try_join_all(lanes).await?;
        Ok(begun.elapsed())
    }

    /// Drops what this made.
    pub async fn clean(&self) -> Result<()> {
        let roles: Vec<String> = (0..self.next.swap(0, Ordering::Relaxed))
            .map(|number| format!("{PREFIX}{number}"))
            .collect();
        self.drop_many(&roles).await?;
        Ok(())
    }
}

fn drop_batch(roles: &[String]) -> String {
    let mut sql = String::new();
    for role in roles {
        let (name, text) = (escape_identifier(role), escape_literal(role));
        let _ = write!(
            sql,
            "SELECT pg_advisory_xact_lock(hashtextextended({text}, 0)); DROP ROLE IF EXISTS {name}; "
        );
    }
    sql
}
