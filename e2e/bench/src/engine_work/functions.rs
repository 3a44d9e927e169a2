//! Issuing and revoking by the functions that a superuser installs: what live accounts cost then.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result, anyhow};
use e2e::postgres::{Login, Server};
use e2e::sample;
use e2e::say::say;
use postgres_protocol::escape::escape_identifier;

use super::{Bench, PREPARED_AT_ONCE, revoked_within};
use crate::figures::{Bar, Row};
use crate::stats::{median, rate};

/// An issue may cost 1.2 times as much among the live accounts as without any.
const AT_LEAST: f64 = 0.83;

/// Has a superuser install the functions for an issuer, as `kubectl dsv preflight --install` does.
pub async fn install(server: &Server, issuer: &Login) -> Result<()> {
    let sql = dsv::postgres::install(&issuer.user, sample::ORDERS).map_err(|failure| anyhow!(failure.message))?;
    let superuser = server.connect(sample::ORDERS).await?;
    superuser
        .batch_execute(&sql)
        .await
        .context("cannot install the functions")
}

impl Bench<'_> {
    /// Issues with the functions, without live accounts and among so many, and takes those back.
    pub async fn rows_with_functions(
        &self,
        live: usize,
        in_flight: usize,
        count: usize,
        repeats: usize,
    ) -> Result<Vec<Row>> {
        install(self.server, self.issuer).await?;
        self.functions.store(true, Ordering::Relaxed);
        let alone = self.rate_with_functions(in_flight, count, repeats).await?;
        let accounts = self.prepare(live).await?;
        let among = self.rate_with_functions(in_flight, count, repeats).await?;
        self.revoke_all(&accounts).await?;
        let mut revoked = Vec::new();
        for _ in 0..repeats {
            revoked.push(self.seconds_to_revoke(live).await?);
        }
        self.functions.store(false, Ordering::Relaxed);
        let root = self.server.connect(sample::ORDERS).await?;
        root.batch_execute("DROP SCHEMA dsv CASCADE").await?;
        say(format!(
            "with the functions, {in_flight} in flight: {alone:.0}/s without live accounts, {among:.0}/s among {live}"
        ));
        let what = format!("issue by the engine, {in_flight} in flight, with the functions");
        Ok(vec![
            Row::new(format!("{what}, 0 live"), "accounts/s", alone),
            Row::new(format!("{what}, {live} live"), "accounts/s", among)
                .limit(alone)
                .bar(Bar::RatioAtLeast(AT_LEAST))
                .note("limit: the same without live accounts"),
            Row::new(
                format!("revoke {live} accounts by the engine, with the functions"),
                "s",
                median(&revoked),
            )
            .bar(revoked_within(live)?),
        ])
    }

    async fn rate_with_functions(&self, in_flight: usize, count: usize, repeats: usize) -> Result<f64> {
        let root = self.server.connect(sample::ORDERS).await?;
        let mut rates = Vec::new();
        for _ in 0..repeats {
            let (roles, _, all) = self.issue_many(in_flight, count).await?;
            rates.push(rate(count, all));
            for some in roles.chunks(PREPARED_AT_ONCE) {
                let names: Vec<String> = some.iter().map(|role| escape_identifier(role)).collect();
                root.batch_execute(&format!("DROP ROLE {}", names.join(", "))).await?;
            }
        }
        Ok(median(&rates))
    }
}
