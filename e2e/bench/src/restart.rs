//! The operator starts anew while many leases live: how long until it has nothing left to do, and what that costs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::say::say;
use futures::future::try_join_all;

use crate::audit;
use crate::figures::{Bar, Row};
use crate::machine::memory_mib;
use crate::world::World;

const IN_FLIGHT: usize = 16;
const POLL: Duration = Duration::from_millis(200);
/// Nothing was asked for this long: then nothing is left to do.
const QUIET: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(300);

/// With so many live leases, each with its Secret.
pub async fn measure(world: &World<'_>, leases: usize) -> Result<Vec<Row>> {
    fill(world, leases).await?;
    quiet(world, world.requests.end()?, Instant::now()).await?;
    let before = oids(world).await?;
    let memory = (memory_mib(world.operator()?)?, memory_mib(world.engine()?)?);
    let operator = world
        .scene
        .stack
        .operators()
        .first()
        .context("the stack has an operator")?;
    operator.stop();
    let (from, begun) = (world.requests.end()?, Instant::now());
    operator.restart().await?;
    let ready = begun.elapsed();
    let steady = quiet(world, from, begun).await?;
    let requests = world.requests.since(from)?;
    for (kind, times) in audit::kinds(&requests) {
        say(format!("  {times:5} x {kind}"));
    }
    // What was ready stays so all the time.
    let told = requests
        .iter()
        .filter(|request| request.is_write() && request.resource.starts_with("dynamicsecrets"))
        .count();
    let issued = oids(world).await?.difference(&before).count();
    let count = |count: usize| anyhow::Ok(f64::from(u32::try_from(count)?));
    let what = |what: &str| format!("restart with {} leases: {what}", before.len());
    Ok(vec![
        Row::new(what("until steady"), "s", steady.as_secs_f64())
            .bar(Bar::AtMost(15.0))
            .note(format!("ready after {:.2} s", ready.as_secs_f64())),
        Row::new(what("credentials issued"), "accounts", count(issued)?).bar(Bar::Counted(0.0)),
        Row::new(what("API requests"), "requests", count(requests.len())?),
        Row::new(what("writes to dynamic secrets"), "writes", count(told)?).bar(Bar::Counted(0.0)),
        Row::new(what("memory of the operator before"), "MiB", memory.0).bar(Bar::Counted(64.0)),
        Row::new(
            what("memory of the operator after"),
            "MiB",
            memory_mib(world.operator()?)?,
        )
        .bar(Bar::Counted(64.0)),
        Row::new(what("memory of the engine"), "MiB", memory.1).bar(Bar::Counted(24.0)),
    ])
}

/// Asks for leases until so many accounts live.
pub async fn fill(world: &World<'_>, leases: usize) -> Result<()> {
    let missing = leases.saturating_sub(world.accounts().await?);
    let (taken, begun) = (AtomicUsize::new(0), Instant::now());
    let lanes = (0..IN_FLIGHT).map(|_| {
        let taken = &taken;
        async move {
            loop {
                let number = taken.fetch_add(1, Ordering::Relaxed);
                if number >= missing {
                    return anyhow::Ok(());
                }
                live(world, format!("live-{number}")).await?;
            }
        }
    });
    try_join_all(lanes).await?;
    say(format!("{missing} more leases were made in {:.1?}", begun.elapsed()));
    Ok(())
}

/// Asks for one lease until it is there. On a machine that stands still, one may pass its deadline before its Secret comes.
async fn live(world: &World<'_>, mut name: String) -> Result<()> {
    loop {
        world.ask(&name, "2h").await?;
        tokio::select! {
            came = world.secrets.came(&name) => return came.map(drop),
            left = world.leases.left(&name) => left?,
        };
        name.push_str("-again");
    }
}

/// Waits until the operator asks for nothing any more; gives when, since `begun`, it asked last.
async fn quiet(world: &World<'_>, from: u64, begun: Instant) -> Result<Duration> {
    let (mut seen, mut last) = (0, Instant::now());
    while last.elapsed() < QUIET {
        if begun.elapsed() > LIMIT {
            bail!("the operator is still at work after {LIMIT:?}");
        }
        tokio::time::sleep(POLL).await;
        let now = world.requests.since(from)?.len();
        if now != seen {
            (seen, last) = (now, Instant::now());
        }
    }
    Ok(last.saturating_duration_since(begun))
}

/// Of all accounts: one that was made anew has another.
async fn oids(world: &World<'_>) -> Result<BTreeSet<u32>> {
    let query = "SELECT oid FROM pg_roles WHERE rolcanlogin AND starts_with(rolname, $1)";
    let rows = world.scene.administrator().query(query, &[&world.scene.prefix]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
