//! Leases come and go for many minutes while many others live: what the programs weigh at the end, beside what they weighed
//! at the beginning.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::say::say;
use futures::future::try_join_all;

use crate::figures::{Bar, Row};
use crate::machine::memory_mib;
use crate::restart::fill;
use crate::stats::median;
use crate::world::World;

const LANES: usize = 4;
const TTL: &str = "10s";
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// The first lives fill caches and connections.
const WARM_UP: Duration = Duration::from_secs(60);
/// What a process may weigh more at the end than at the beginning before it counts as growing: the allocator keeps pages.
const FLAT: f64 = 1.1;

/// With so many live leases, for so long.
pub async fn measure(world: &World<'_>, leases: usize, length: Duration) -> Result<Vec<Row>> {
    fill(world, leases).await?;
    let closes = Instant::now() + WARM_UP + length;
    let asked = AtomicUsize::new(0);
    let lanes = (0..LANES).map(|_| async {
        while Instant::now() < closes {
            let name = format!("churned-{}", asked.fetch_add(1, Ordering::Relaxed));
            world.ask(&name, TTL).await?;
            world.leases.left(&name).await?;
        }
        anyhow::Ok(())
    });
    let (_, weights) = tokio::try_join!(try_join_all(lanes), weigh(world, closes))?;
    let (operator, engine): (Vec<f64>, Vec<f64>) = weights.into_iter().unzip();
    let lives = asked.into_inner();
    let what = |what: &str| {
        format!(
            "{leases} live leases, {} minutes of churn: {what}",
            length.as_secs() / 60
        )
    };
    say(format!("{lives} lives; the operator weighed {operator:.1?} MiB"));
    Ok(vec![
        grown(what("operator"), &operator)?.note(format!(
            "{lives} lives; limit: the first fifth of the time, ours: the last"
        )),
        grown(what("engine"), &engine)?,
        Row::new(
            what("most that the operator weighed"),
            "MiB",
            operator.iter().copied().fold(0.0, f64::max),
        )
        .bar(Bar::AtMost(64.0)),
        Row::new(
            what("most that the engine weighed"),
            "MiB",
            engine.iter().copied().fold(0.0, f64::max),
        )
        .bar(Bar::AtMost(24.0)),
    ])
}

async fn weigh(world: &World<'_>, closes: Instant) -> Result<Vec<(f64, f64)>> {
    tokio::time::sleep(WARM_UP).await;
    let mut weights = Vec::new();
    while Instant::now() < closes {
        weights.push((memory_mib(world.operator()?)?, memory_mib(world.engine()?)?));
        tokio::time::sleep(SAMPLE_EVERY).await;
    }
    Ok(weights)
}

/// The last fifth beside the first.
fn grown(what: String, weights: &[f64]) -> Result<Row> {
    let fifth = (weights.len() / 5).max(1);
    let first = weights.get(..fifth).context("nothing was weighed")?;
    let last = weights.get(weights.len() - fifth..).context("nothing was weighed")?;
    Ok(Row::new(what, "MiB", median(last))
        .limit(median(first))
        .bar(Bar::RatioAtMost(FLAT)))
}
