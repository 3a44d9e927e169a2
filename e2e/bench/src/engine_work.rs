//! What an engine does in a second: tasks over the channel to the real program, and beside it the same SQL without anything
//! around it. No API server takes part.

pub mod functions;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dsv::api::names;
use dsv::channel::frames::{
    Account, AccountSettings, AccountState, Done, GrantText, Group, MAX_REVOKE_BATCH, OwnedObjects, Revocation,
    ServerLogin, SslMode, Task,
};
use dsv::control::password_stock::PasswordStock;
use dsv::keys::{RoleComment, RoleKind, SecretText};
use e2e::engine::Engine;
use e2e::postgres::{Login, Server};
use e2e::sample;
use e2e::say::say;
use futures::future::try_join_all;
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use uuid::Uuid;

use crate::bare_sql::BareSql;
use crate::figures::{Bar, Row};
use crate::hub::{INSTALLATION, Operator};
use crate::stats::{median, ms, percentile, rate};

const PREFIX: &str = "bench_";
const GROUP: &str = "dsvg_bench";
/// Batches in flight, as the operator has them.
const BATCHES: usize = 8;
/// Sessions of the bare drops.
const BARE_SESSIONS: usize = 4;
/// Accounts of one statement while they are prepared.
const PREPARED_AT_ONCE: usize = 100;

/// An engine, its operator's end of the channel, and a server.
pub struct Bench<'a> {
    operator: Operator,
    server: &'a Server,
    issuer: &'a Login,
    group: Group,
    passwords: PasswordStock,
    /// Accounts are made by the functions that a superuser installs.
    functions: AtomicBool,
    _engine: Engine,
}

impl<'a> Bench<'a> {
    /// Connects a new engine; the group that all accounts belong to is made by the first task.
    pub async fn open(operator: Operator, engine: Engine, server: &'a Server, issuer: &'a Login) -> Result<Self> {
        let bench = Self {
            group: group(&operator)?,
            operator,
            server,
            issuer,
            passwords: PasswordStock::default(),
            functions: AtomicBool::new(false),
            _engine: engine,
        };
        let task = Task::EnsureGroup {
            server: bench.login(),
            group: bench.group.clone(),
        };
        bench.operator.ask(task).await?;
        Ok(bench)
    }

    fn login(&self) -> ServerLogin {
        let functions = self.functions.load(Ordering::Relaxed);
        ServerLogin {
            // Another record has other sessions, and a session looks for the functions when it is opened.
            record: if functions { "bench-functions" } else { "bench" }.to_owned(),
            host: self.server.host().to_owned(),
            port: self.server.port(),
            ports: Vec::new(),
            username: self.issuer.user.clone(),
            password: SecretText::new(self.issuer.password.clone()),
            database: sample::ORDERS.to_owned(),
            sslmode: SslMode::VerifyFull,
            ca: Some(self.server.authority().to_owned()),
            client_certificate: None,
            client_key: None,
        }
    }

    fn account(&self, verifier: &str) -> Result<Account> {
        let lease_uid = Uuid::new_v4().to_string();
        let role = names::role_name(PREFIX, "app", &lease_uid).context("the name does not fit")?;
        let until = Timestamp::from_second(Timestamp::now().as_second() + 3600)?;
        Ok(Account {
            comment: sign(&self.operator, RoleKind::Lease, &lease_uid, &role, Some(until))?,
            verifier: verifier.to_owned(),
            valid_until: until,
            issue_deadline: Timestamp::now() + SignedDuration::from_secs(60),
            settings: AccountSettings::default(),
            lease_uid,
            role,
        })
    }

    /// One account with a password and a verifier of its own, as the operator makes them.
    async fn issue(&self) -> Result<String> {
        let (_password, verifier) = self.passwords.take().await;
        let account = self.account(verifier.as_str())?;
        let role = account.role.clone();
        let task = Task::Issue {
            server: self.login(),
            group: self.group.clone(),
            account,
        };
        let done = self.operator.ask(task).await?;
        ensure!(matches!(done, Done::Issued { adopted: false, .. }), "{done:?}");
        Ok(role)
    }

    /// Issues at so many in flight, in turn with the bare statements: accounts a second, and how long the slowest took.
    pub async fn issue_rows(&self, in_flight: usize, count: usize, repeats: usize) -> Result<Vec<Row>> {
        let bare = BareSql::open(self.server, self.issuer, in_flight).await?;
        let [mut ours, mut limits, mut slow, mut bare_slow] = [const { Vec::new() }; 4];
        for _ in 0..repeats {
            let (roles, took, all) = self.issue_many(in_flight, count).await?;
            ours.push(rate(count, all));
            slow.push(ms(percentile(&took, 99)));
            bare.drop_many(&roles).await?;
            let (took, all) = bare.issue_many(count).await?;
            limits.push(rate(count, all));
            bare_slow.push(ms(percentile(&took, 99)));
            bare.clean().await?;
        }
        say(format!("{in_flight} in flight: ours {ours:.0?}/s, bare {limits:.0?}/s"));
        let what = format!("issue by the engine, {in_flight} in flight");
        let slowest = Row::new(format!("{what}, p99"), "ms", median(&slow)).limit(median(&bare_slow));
        Ok(vec![
            Row::new(what, "accounts/s", median(&ours))
                .limit(median(&limits))
                .bar(Bar::RatioAtLeast(0.78))
                .note("limit: CREATE ROLE over as many sessions, no verifier computed"),
            // With more in flight than cores the waiting is in the server's queue or in ours, and says nothing.
            if in_flight == 1 {
                slowest.bar(Bar::RatioAtMost(1.3))
            } else {
                slowest
            },
        ])
    }

    /// The same among accounts that live already: from 16 on PostgreSQL lets each of them cost whoever makes another one.
    pub async fn crowded_row(&self, live: usize, in_flight: usize, count: usize, repeats: usize) -> Result<Row> {
        let accounts = self.prepare(live).await?;
        let rows = self.issue_rows(in_flight, count, repeats).await?;
        self.revoke_all(&accounts).await?;
        let mut row = rows.into_iter().next().context("issuing gives a figure")?;
        row.figure = format!("{}, {live} live", row.figure);
        Ok(row)
    }

    async fn issue_many(&self, in_flight: usize, count: usize) -> Result<(Vec<String>, Vec<Duration>, Duration)> {
        let begun = Instant::now();
        let taken = AtomicUsize::new(0);
        let lanes = (0..in_flight).map(|_| {
            let taken = &taken;
            async move {
                let mut made = Vec::new();
                while taken.fetch_add(1, Ordering::Relaxed) < count {
                    let begun = Instant::now();
                    let role = self.issue().await?;
                    made.push((role, begun.elapsed()));
                }
                anyhow::Ok(made)
            }
        });
        let made = try_join_all(lanes).await?.concat();
        let all = begun.elapsed();
        let (roles, took) = made.into_iter().unzip();
        Ok((roles, took, all))
    }

    /// Takes back so many accounts past their end, in turn with bare drops of as many.
    pub async fn revoke_rows(&self, count: usize, repeats: usize) -> Result<Vec<Row>> {
        let bare = BareSql::open(self.server, self.issuer, BARE_SESSIONS).await?;
        let (mut ours, mut limits) = (Vec::new(), Vec::new());
        for _ in 0..repeats {
            ours.push(self.seconds_to_revoke(count).await?);
            let roles: Vec<String> = self
                .prepare(count)
                .await?
                .into_iter()
                .map(|(account, _)| account.role)
                .collect();
            limits.push(bare.drop_many(&roles).await?.as_secs_f64());
        }
        say(format!(
            "{count} accounts taken back: ours {ours:.2?} s, bare {limits:.2?} s"
        ));
        let seconds = Row::new(format!("revoke {count} accounts by the engine"), "s", median(&ours))
            .limit(median(&limits))
            .note("limit: DROP ROLE in batches of 64 over 4 sessions, no sessions ended, no barrier, no proof");
        Ok(vec![seconds.bar(revoked_within(count)?)])
    }

    async fn seconds_to_revoke(&self, count: usize) -> Result<f64> {
        let accounts = self.prepare(count).await?;
        let begun = Instant::now();
        self.revoke_all(&accounts).await?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Accounts with signed comments, made in bulk. Their verifier has one iteration: nobody logs in with it, and the
    /// server's check of a usual one would take longer than everything that is measured.
    async fn prepare(&self, count: usize) -> Result<Vec<(Account, u32)>> {
        let verifier = format!(
            "SCRAM-SHA-256$1:{}==${}=:{}=",
            "A".repeat(22),
            "A".repeat(43),
            "A".repeat(43)
        );
        let accounts: Vec<Account> = (0..count).map(|_| self.account(&verifier)).collect::<Result<_>>()?;
        // What a superuser puts into a group is the same as what the functions make.
        let session = if self.functions.load(Ordering::Relaxed) {
            self.server.connect(sample::ORDERS).await?
        } else {
            self.server.connect_as(self.issuer, sample::ORDERS).await?
        };
        for some in accounts.chunks(PREPARED_AT_ONCE) {
            let sql: String = some.iter().map(|account| create(account, &verifier)).collect();
            session.batch_execute(&sql).await?;
        }
        let rows = session.query("SELECT rolname::text, oid FROM pg_roles", &[]).await?;
        let oids: HashMap<String, u32> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let with_oid = |account: Account| {
            let oid = oids.get(&account.role).copied();
            Ok((account, oid.context("a prepared account is not there")?))
        };
        accounts.into_iter().map(with_oid).collect()
    }

    async fn revoke_all(&self, accounts: &[(Account, u32)]) -> Result<()> {
        let batches = accounts.chunks(MAX_REVOKE_BATCH).map(|some| self.revoke(some));
        stream::iter(batches)
            .buffer_unordered(BATCHES)
            .try_for_each(|()| async { Ok(()) })
            .await
    }

    async fn revoke(&self, accounts: &[(Account, u32)]) -> Result<()> {
        let revocation = |(account, oid): &(Account, u32)| Revocation {
            lease_uid: account.lease_uid.clone(),
            role: account.role.clone(),
            // Long over, so that absence is proof.
            issue_deadline: Timestamp::UNIX_EPOCH,
            role_oid: Some(*oid),
            owned_objects: OwnedObjects::Reassign,
        };
        let task = Task::Revoke {
            server: self.login(),
            installation: INSTALLATION.to_owned(),
            signers: vec![self.operator.signing.public().to_string()],
            accounts: accounts.iter().map(revocation).collect(),
            keepers: Vec::new(),
        };
        let done = self.operator.ask(task).await?;
        let Done::Revoked { accounts: states, .. } = &done else {
            anyhow::bail!("another answer than to a revocation: {done:?}");
        };
        let gone = AccountState::Gone {
            proven: true,
            dropped: true,
        };
        ensure!(
            states.len() == accounts.len() && states.iter().all(|one| one.state == gone),
            "not all are proven gone: {states:?}"
        );
        Ok(())
    }
}

/// Ten thousand in half a second, fewer in their part of it, and any number in a tenth.
fn revoked_within(count: usize) -> Result<Bar> {
    let seconds = 0.5 * f64::from(u32::try_from(count)?) / 10_000.0;
    Ok(Bar::AtMost(seconds.max(0.1)))
}

fn sign(operator: &Operator, kind: RoleKind, subject: &str, role: &str, until: Option<Timestamp>) -> Result<String> {
    let comment = RoleComment {
        kind,
        installation: INSTALLATION.to_owned(),
        subject: subject.to_owned(),
        role: role.to_owned(),
        claimed_at: Timestamp::from_second(Timestamp::now().as_second())?,
        expires_at: until,
    };
    Ok(comment.sign(&operator.signing)?)
}

fn group(operator: &Operator) -> Result<Group> {
    let name = GROUP.to_owned();
    Ok(Group {
        comment: sign(operator, RoleKind::Group, &Uuid::nil().to_string(), &name, None)?,
        signers: vec![operator.signing.public().to_string()],
        grants: vec![GrantText {
            what: "SELECT".to_owned(),
            target: format!("{}.public.orders", sample::ORDERS),
        }],
        name,
    })
}

fn create(account: &Account, verifier: &str) -> String {
    let role = escape_identifier(&account.role);
    format!(
        "CREATE ROLE {role} LOGIN PASSWORD {} VALID UNTIL '{}' IN ROLE {GROUP}; COMMENT ON ROLE {role} IS {}; ",
        escape_literal(verifier),
        account.valid_until,
        escape_literal(&account.comment)
    )
}
