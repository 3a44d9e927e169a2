//! Faults of PostgreSQL and of the way to it.

use std::time::Duration;

use anyhow::{Context, Result};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::blows::Moment;
use super::lane::Lane;
use super::relay::Manner;
use crate::sample;

/// How often sessions are ended, by a fault that ends all of them again and again.
const AGAIN: Duration = Duration::from_millis(100);

/// What happens to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// The login's sessions are ended all the time, so before and after commits.
    SessionsEnded,
    Killed,
    /// Down for longer than any credential of the round lives.
    Down,
    Cut,
    HalfOpen,
    Slow,
    TooManyConnections,
    LockTimeout,
    Deadlock,
    ReadOnly,
    PasswordRotated,
    PrivilegesReduced,
}

impl Database {
    pub const ALL: [Self; 12] = [
        Self::SessionsEnded,
        Self::Killed,
        Self::Down,
        Self::Cut,
        Self::HalfOpen,
        Self::Slow,
        Self::TooManyConnections,
        Self::LockTimeout,
        Self::Deadlock,
        Self::ReadOnly,
        Self::PasswordRotated,
        Self::PrivilegesReduced,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::SessionsEnded => "database sessions ended every 100 ms",
            Self::Killed => "database kill -9 and restart",
            Self::Down => "database down across the TTL",
            Self::Cut => "database connections cut",
            Self::HalfOpen => "database half-open 15 s",
            Self::Slow => "database slow (100 ms)",
            Self::TooManyConnections => "database 53300",
            Self::LockTimeout => "database 55P03",
            Self::Deadlock => "database 40P01",
            Self::ReadOnly => "database 25006",
            Self::PasswordRotated => "database password rotated",
            Self::PrivilegesReduced => "database privileges reduced",
        }
    }

    pub fn moment(self) -> Moment {
        match self {
            Self::SessionsEnded | Self::Slow => Moment::Throughout,
            _ => Moment::Held,
        }
    }

    pub fn lasts(self) -> Duration {
        Duration::from_secs(match self {
            Self::SessionsEnded | Self::Cut | Self::LockTimeout | Self::Deadlock => 0,
            Self::Killed => 1,
            Self::Down => 30,
            Self::HalfOpen => 15,
            _ => 6,
        })
    }

    pub async fn strike(self, lane: &Lane<'_>) -> Result<()> {
        let relay = lane.wiring()?.database();
        let server = lane.scene.server();
        match self {
            Self::SessionsEnded => self.end_again_and_again(lane).await?,
            Self::Killed => server.kill9(),
            Self::Down => server.stop(),
            Self::Cut => relay.cut(),
            Self::HalfOpen => relay.behave(Manner::HalfOpen),
            Self::Slow => relay.behave(Manner::Slow(Duration::from_millis(100))),
            Self::LockTimeout => hold_lock(lane, Duration::from_secs(6), false).await?,
            Self::Deadlock => hold_lock(lane, Duration::from_secs(3), true).await?,
            Self::TooManyConnections => alter(lane, "CONNECTION LIMIT 0").await?,
            Self::PasswordRotated => {
                set_password(lane, ROTATED).await?;
                lane.wiring()?.failpoints.clear()?;
                end_sessions(lane).await?;
                sleep(Duration::from_secs(3)).await;
                // Then somebody puts it into the base secret.
                base_password(lane, ROTATED).await?;
            }
            Self::PrivilegesReduced => alter(lane, "NOCREATEROLE").await?,
            Self::ReadOnly => {
                let client = server.connect("postgres").await?;
                client
                    .batch_execute("ALTER SYSTEM SET default_transaction_read_only = on")
                    .await?;
                client.batch_execute("SELECT pg_reload_conf()").await?;
            }
        }
        if matches!(self, Self::TooManyConnections | Self::PrivilegesReduced) {
            end_sessions(lane).await?;
        }
        Ok(())
    }

    async fn end_again_and_again(self, lane: &Lane<'_>) -> Result<()> {
        let server = lane.scene.server();
        let client = server.connect("postgres").await?;
        let user = lane.scene.issuer().user.clone();
        tokio::spawn(async move {
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(8) {
                let _ = client.execute(END_SESSIONS, &[&user]).await;
                sleep(AGAIN).await;
            }
        });
        Ok(())
    }

    pub async fn heal(self, lane: &Lane<'_>) -> Result<()> {
        lane.wiring()?.database().behave(Manner::Honest);
        let server = lane.scene.server();
        match self {
            Self::Killed | Self::Down => server.restart().await?,
            Self::TooManyConnections => alter(lane, "CONNECTION LIMIT -1").await?,
            Self::PasswordRotated => {
                let password = &lane.scene.issuer().password;
                set_password(lane, password).await?;
                base_password(lane, password).await?;
            }
            Self::PrivilegesReduced => alter(lane, "CREATEROLE").await?,
            Self::ReadOnly => {
                let client = server.connect("postgres").await?;
                client.batch_execute("SET default_transaction_read_only = off").await?;
                client
                    .batch_execute("ALTER SYSTEM RESET default_transaction_read_only")
                    .await?;
                client.batch_execute("SELECT pg_reload_conf()").await?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a password is rotated to, for a while.
const ROTATED: &str = "another-password-of-the-issuer";
const END_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";

async fn end_sessions(lane: &Lane<'_>) -> Result<()> {
    let client = lane.scene.server().connect("postgres").await?;
    client.execute(END_SESSIONS, &[&lane.scene.issuer().user]).await?;
    Ok(())
}

async fn set_password(lane: &Lane<'_>, password: &str) -> Result<()> {
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    alter(lane, &format!("PASSWORD {}", escape_literal(&verifier))).await
}

async fn base_password(lane: &Lane<'_>, password: &str) -> Result<()> {
    let change = json!({"stringData": {"password": password}});
    let (objects, home) = (&lane.scene.objects, &lane.scene.databases);
    objects
        .merge("Secret", home, sample::BASE_SECRET, &change)
        .await
        .map(drop)
}

async fn alter(lane: &Lane<'_>, change: &str) -> Result<()> {
    let user = escape_identifier(&lane.scene.issuer().user);
    let client = lane.scene.server().connect("postgres").await?;
    let altered = client.batch_execute(&format!("ALTER ROLE {user} {change}")).await;
    altered.with_context(|| format!("cannot change the login: {change}"))
}

/// Keeps everybody else from changing roles, while those who are held go on; with `deadlock` it then wants the locks that they
/// hold.
async fn hold_lock(lane: &Lane<'_>, time: Duration, deadlock: bool) -> Result<()> {
    let client = lane.scene.server().connect("postgres").await?;
    client
        .batch_execute("BEGIN; LOCK TABLE pg_catalog.pg_authid IN SHARE ROW EXCLUSIVE MODE")
        .await?;
    lane.wiring()?.failpoints.clear()?;
    if deadlock {
        sleep(Duration::from_millis(500)).await;
        for lease in lane.scene.leases().await? {
            let uid = crate::objects::text(&lease, "/metadata/uid");
            // The server breaks one of the two; if it is us, the rest has no lock to wait for.
            let query = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
            if client.execute(query, &[&uid]).await.is_err() {
                return Ok(());
            }
        }
    }
    sleep(time).await;
    client.batch_execute("ROLLBACK").await?;
    Ok(())
}
