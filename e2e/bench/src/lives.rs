//! Whole lives a second, from the lease that is asked for to the one that is gone, beside what the API server can write.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::say::say;
use futures::future::try_join_all;

use crate::audit::{self, Request};
use crate::bare_api::{BareApi, WRITES};
use crate::figures::{Bar, Row};
use crate::stats::{median, rate};
use crate::world::World;

const IN_FLIGHT: usize = 16;
/// The shortest life that there is.
const TTL: Duration = Duration::from_secs(10);
/// Until as many end as begin.
const WARM_UP: Duration = Duration::from_secs(13);

/// One repeat of ours.
struct Round {
    lives_per_second: f64,
    writes_per_life: f64,
    /// Leases that ended before they had a Secret.
    missed: usize,
}

/// In each repeat ours and then the bare one.
pub async fn measure(world: &World<'_>, repeats: usize, window: Duration) -> Result<Vec<Row>> {
    let api = BareApi::like(&world.scene.objects, &world.scene.shop, "first").await?;
    let (mut ours, mut limits, mut writes) = (Vec::new(), Vec::new(), Vec::new());
    for repeat in 0..repeats {
        let round = whole_lives(world, repeat, window).await?;
        let bare = bare_writes(&api, repeat, window / 2).await?;
        say(format!(
            "repeat {}: {:.1} lives/s with {:.2} writes each, {} without a Secret; the API server takes {bare:.0} writes/s",
            repeat + 1,
            round.lives_per_second,
            round.writes_per_life,
            round.missed
        ));
        limits.push(bare / round.writes_per_life);
        writes.push(round.writes_per_life);
        ours.push(round.lives_per_second);
    }
    let row = Row::new(format!("whole lives, {IN_FLIGHT} in flight"), "lives/s", median(&ours))
        .limit(median(&limits))
        .bar(Bar::RatioAtLeast(0.7))
        .note(format!(
            "limit: bare API writes/s over our {:.2} writes a life",
            median(&writes)
        ));
    Ok(vec![row])
}

/// Asks without a pause until the window is over, and counts those that went within it. Then all have time to end, so that
/// the writes are those of whole lives and the bare client is alone.
async fn whole_lives(world: &World<'_>, repeat: usize, window: Duration) -> Result<Round> {
    let (before, from) = (world.leases.went(), world.requests.end()?);
    let opens = Instant::now() + WARM_UP;
    let closes = opens + window;
    let (asked, missed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let lanes = (0..IN_FLIGHT).map(|_| {
        let (asked, missed) = (&asked, &missed);
        async move {
            while Instant::now() < closes {
                let number = asked.fetch_add(1, Ordering::Relaxed);
                let name = format!("life-{repeat}-{number}");
                world.ask(&name, &format!("{}s", TTL.as_secs())).await?;
                // Where the machine is too slow for so short a life, a lease ends before it was delivered.
                tokio::select! {
                    came = world.secrets.came(&name) => drop(came?),
                    left = world.leases.left(&name) => {
                        left?;
                        missed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            anyhow::Ok(())
        }
    });
    try_join_all(lanes).await?;
    let lives = asked.into_inner();
    world.leases.gone(before + lives).await?;
    let requests = world.requests.since(from)?;
    for (kind, times) in audit::kinds(&requests) {
        say(format!("  {times:5} x {kind}"));
    }
    let theirs = requests.iter().filter(|request| Request::is_write(request)).count();
    // Whoever asks writes as well.
    let per_life = f64::from(u32::try_from(theirs + lives)?) / f64::from(u32::try_from(lives)?);
    Ok(Round {
        lives_per_second: rate(world.leases.went_between(opens, closes), window),
        writes_per_life: per_life,
        missed: missed.into_inner(),
    })
}

/// Writes a second of a client that makes lives without thinking.
async fn bare_writes(api: &BareApi, repeat: usize, window: Duration) -> Result<f64> {
    let begun = Instant::now();
    let made = AtomicUsize::new(0);
    let lanes = (0..IN_FLIGHT).map(|_| {
        let made = &made;
        async move {
            while begun.elapsed() < window {
                let number = made.fetch_add(1, Ordering::Relaxed);
                let life = api.claim(&format!("bare-life-{repeat}-{number}")).await?;
                api.deliver(&life).await?;
                api.end(life).await?;
            }
            anyhow::Ok(())
        }
    });
    try_join_all(lanes).await?;
    Ok(rate(made.into_inner() * WRITES, begun.elapsed()))
}
