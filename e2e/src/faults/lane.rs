//! One stack on which faults are tried one after the other: two operators, two engines, a server, and proxies between them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use super::wiring::Wiring;
use crate::operator::Operator;
use crate::postgres::{Major, Options, Tls};
use crate::scene::Scene;
use crate::stack::{Shape, Stack};

/// How many engines a lane has.
pub const ENGINES: u32 = 2;
/// How long everything may take to be there again after a fault, a takeover of leadership included.
const READY_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A scene with everything needed to break it.
pub struct Lane<'a> {
    pub stack: &'a Stack,
    pub scene: Scene<'a>,
}

/// What a lane runs on. TLS, a login that has CREATEROLE and nothing else, and all programs with failpoints in them.
pub async fn stack(major: Major) -> Result<Stack> {
    let shape = Shape {
        operators: 2,
        postgres: major,
        options: Options {
            tls: Tls::Required,
            // For accounts that resist by one.
            settings: vec![("max_prepared_transactions".to_owned(), "10".to_owned())],
            ..Options::default()
        },
        node: true,
        faults: true,
        ..Shape::default()
    };
    Stack::start(shape).await
}

impl<'a> Lane<'a> {
    pub async fn open(stack: &'a Stack) -> Result<Self> {
        let scene = Scene::open(stack, Some(ENGINES)).await?;
        Ok(Self { stack, scene })
    }

    pub fn wiring(&self) -> Result<&'a Wiring> {
        self.stack.wiring().context("this stack has no wiring")
    }

    /// The replica that leads and lives.
    pub async fn leader(&self) -> Result<&'a Operator> {
        for operator in self.stack.operators() {
            let metrics = operator.metrics().await.unwrap_or_default();
            if metrics.lines().any(|line| line == "dsv_leader 1") {
                return Ok(operator);
            }
        }
        anyhow::bail!("nobody leads")
    }

    /// Waits until everything is there: both operators, a leader among them, all engines, and the server found ready.
    pub async fn ready(&self) -> Result<()> {
        for operator in self.stack.operators() {
            operator.launch()?;
        }
        for operator in self.stack.operators() {
            operator.wait_ready().await?;
        }
        let check = || async {
            let leader = self.leader().await?;
            let metrics = leader.metrics().await?;
            let connected = connected(&metrics);
            ensure!(
                connected >= i64::from(ENGINES),
                "the leader {} has {connected} engines",
                leader.name()
            );
            Ok(Some(()))
        };
        self.stack
            .eventually("somebody leads, with all engines", READY_LIMIT, check)
            .await
    }

    /// Waits until another operator than `old` leads.
    pub async fn next_leader(&self, old: &str, limit: Duration) -> Result<&'a Operator> {
        let start = std::time::Instant::now();
        loop {
            for operator in self.stack.operators().iter().filter(|operator| operator.name() != old) {
                let metrics = operator.metrics().await.unwrap_or_default();
                if metrics.lines().any(|line| line == "dsv_leader 1") {
                    return Ok(operator);
                }
            }
            ensure!(start.elapsed() < limit, "nobody but {old} leads after {limit:?}");
            sleep(POLL).await;
        }
    }
}

/// Engines that are connected, by the metrics of a leader.
fn connected(metrics: &str) -> i64 {
    let values = metrics
        .lines()
        .filter(|line| line.starts_with("dsv_engines_connected"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok());
    values.sum()
}
