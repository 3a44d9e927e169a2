//! A server is down while a thousand of its accounts have to go, and the operator starts anew in that moment.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use super::apart::{self, judged};
use super::lane::Lane;
use super::tales::{Tale, tale};
use crate::operator::Operator;
use crate::postgres::Server;
use crate::say::say;
use crate::scene::Scene;
use crate::stack::Stack;

/// Environment variable with the number of leases.
pub const LEASES: &str = "FAULT_LEASES";
const USUALLY: usize = 1000;
const IN_FLIGHT: usize = 16;
/// Promised for ten thousand of them.
const READY: Duration = Duration::from_secs(15);
/// Of the operator, a build without optimization for size.
const MEMORY_MIB: u64 = 256;
/// For each thousand leases: making them takes the test longer than the product.
const PER_THOUSAND: Duration = Duration::from_secs(180);

pub fn tales() -> Vec<Tale> {
    vec![tale!(
        "a thousand accounts to take back, their server down",
        drained,
        alone = true
    )]
}

async fn drained(lane: &Lane<'_>, _: &str) -> Result<()> {
    let stack = Stack::start(apart::shape(lane, None)).await?;
    let told = judged(&stack, &[|scene| Box::pin(down(scene))]).await;
    stack.shut_down();
    told
}

fn many() -> Result<usize> {
    match std::env::var(LEASES) {
        Err(_) => Ok(USUALLY),
        Ok(text) => text.parse().with_context(|| format!("{LEASES}={text} is no number")),
    }
}

async fn down(scene: &Scene<'_>) -> Result<()> {
    let leases = many()?;
    let limit = PER_THOUSAND * u32::try_from(leases.div_ceil(1000))?;
    let major = scene.server().major();
    let healthy = Scene::open_alone(scene.stack, major, Some(1)).await?;
    issue(scene, leases, limit).await?;
    let operator = scene.stack.operators().first().context("the stack has an operator")?;
    let server = scene.server();
    server.stop();
    operator.kill9();
    let api = scene.objects.api("CredentialLease", &scene.shop)?;
    api.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await?;
    let start = Instant::now();
    operator.restart().await?;
    let ready = start.elapsed();
    let undisturbed = others_are_served(&healthy).await;
    let memory = memory_mib(operator)?;
    let back = come_back(scene, server, limit).await?;
    say(format!(
        "{leases} leases on PostgreSQL {major}: ready {ready:.1?} after the start, {memory} MiB, \
         all accounts gone {back:.1?} after the server came back"
    ));
    undisturbed.context("a healthy server was held up")?;
    ensure!(ready <= READY, "the operator was ready only after {ready:?}");
    ensure!(memory <= MEMORY_MIB, "the operator needs {memory} MiB");
    Ok(())
}

/// As many accounts as leases that somebody asked for.
async fn issue(scene: &Scene<'_>, leases: usize, limit: Duration) -> Result<()> {
    let spec = json!({"ttl": "2h", "issuance": {"mode": "OnDemand"}, "maxLeases": leases});
    scene.ask("app", &spec).await?;
    scene.wait_ready("app", "True/OnDemand").await?;
    let verifier = postgres_protocol::password::scram_sha_256(b"nobody uses it");
    let start = Instant::now();
    stream::iter(0..leases)
        .map(|number| {
            let verifier = &verifier;
            async move {
                let name = format!("lease-{number}");
                scene.lease("app", &name, &json!({"verifier": verifier})).await
            }
        })
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let all = || async { Ok((scene.accounts("app").await?.len() == leases).then_some(())) };
    scene.stack.eventually("all leases have accounts", limit, all).await?;
    say(format!("{leases} accounts were made in {:.1?}", start.elapsed()));
    Ok(())
}

async fn others_are_served(scene: &Scene<'_>) -> Result<()> {
    scene.ask("healthy", &json!({"ttl": "10m"})).await?;
    let credential = scene.wait_credential("healthy").await?;
    scene.use_account(&credential.login).await?;
    scene.objects.delete("DynamicSecret", &scene.shop, "healthy").await?;
    scene.wait_no_role(&credential.login.user).await
}

/// How long all accounts take to go once the server is there again.
async fn come_back(scene: &Scene<'_>, server: &Server, limit: Duration) -> Result<Duration> {
    server.restart().await?;
    let start = Instant::now();
    let session = server.connect("postgres").await?;
    let beginning = format!("{}app_", scene.prefix);
    let none = || async {
        let left = "SELECT count(*) FROM pg_roles WHERE rolcanlogin AND starts_with(rolname, $1)";
        let left: i64 = session.query_one(left, &[&beginning]).await?.get(0);
        ensure!(left == 0, "{left} are left");
        Ok(Some(()))
    };
    scene.stack.eventually("all accounts are gone", limit, none).await?;
    let took = start.elapsed();
    let closed = || async { Ok(scene.leases().await?.is_empty().then_some(())) };
    scene.stack.eventually("all leases are gone", limit, closed).await?;
    Ok(took)
}

/// What the kernel says of the process, by proc(5) `status`.
fn memory_mib(operator: &Operator) -> Result<u64> {
    let pid = operator.pid().context("the operator does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("the kernel does not say how much memory it has")? / 1024)
}
