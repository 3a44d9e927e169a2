//! A dynamic secret with many live leases is deleted: how long until nothing of it is left, and what the operator holds meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use e2e::say::say;

use crate::audit;
use crate::figures::{Bar, Row};
use crate::machine::{memory_mib, most_memory_mib};
use crate::restart::fill;
use crate::world::{ASKED, World};

const POLL: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_mins(10);

/// With so many live leases, each with its Secret.
pub async fn measure(world: &World<'_>, leases: usize) -> Result<Vec<Row>> {
    fill(world, leases).await?;
    let live = world.accounts().await?;
    let before = memory_mib(world.operator()?)?;
    let (from, begun) = (world.requests.end()?, Instant::now());
    let (objects, shop) = (&world.scene.objects, &world.scene.shop);
    objects.delete("DynamicSecret", shop, ASKED).await?;
    while objects.get("DynamicSecret", shop, ASKED).await?.is_some() {
        if begun.elapsed() > LIMIT {
            bail!("the dynamic secret is still there after {LIMIT:?}");
        }
        tokio::time::sleep(POLL).await;
    }
    let gone = begun.elapsed();
    let left = world.accounts().await?;
    let requests = world.requests.since(from)?;
    for (kind, times) in audit::kinds(&requests) {
        say(format!("  {times:5} x {kind}"));
    }
    let count = |count: usize| anyhow::Ok(f64::from(u32::try_from(count)?));
    let what = |what: &str| format!("a dynamic secret with {live} leases is deleted: {what}");
    Ok(vec![
        Row::new(what("until it is gone"), "s", gone.as_secs_f64()),
        Row::new(what("accounts left"), "accounts", count(left)?).bar(Bar::Counted(0.0)),
        Row::new(what("API requests"), "a lease", count(requests.len())? / count(live)?),
        Row::new(
            what("most memory of the operator"),
            "MiB",
            most_memory_mib(world.operator()?)?,
        )
        .bar(Bar::Counted(128.0))
        .note(format!("{before:.0} MiB before; half of what the chart lets it have")),
    ])
}
