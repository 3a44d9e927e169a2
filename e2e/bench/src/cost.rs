//! What one life costs, and one rotation: requests to the API server and round trips to the database, counted and not timed.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::say::say;

use crate::audit::{self, Request};
use crate::figures::{Bar, Row};
use crate::rotation;
use crate::world::World;

/// One after the other, each in a second of its own: ends that meet would be taken back in one batch.
const APART: Duration = Duration::from_millis(1100);
/// Longer than the minute in which an account may still be issued: one that ends sooner cannot be proven gone at once, and is
/// looked at twice.
const TTL: &str = "65s";
/// Dynamic secrets that are rotated.
const TURNED: &str = "turned";
/// The last write follows the lease's end; the log is written a moment later.
const AFTER: Duration = Duration::from_secs(2);

/// The budget of a life, of which `docs/architecture.md` has the list.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Writes of the operator.
    pub writes: f64,
    /// Reads of the operator.
    pub reads: f64,
    /// Round trips of the engine to the database.
    pub round_trips: f64,
}

/// What is asserted; beside what a life needs there is room for a look that falls due meanwhile, and for records that are read
/// again where a life takes more than a second.
pub const BUDGET: Budget = Budget {
    writes: 8.5,
    reads: 11.5,
    round_trips: 6.5,
};

/// Writes for a rotation: the lease, its Secret and status, the one it replaces marked and let go of, and what the dynamic secret
/// says of both. Half a one more is room for a write that is told of a moment later.
const ROTATION_WRITES: f64 = 7.5;

/// Counted over so many lives, and over as many rotations.
pub async fn count(world: &World<'_>, lives: usize) -> Result<Vec<Row>> {
    // Now: when they are rotated, no account may still be issued, and each that is replaced is proven gone at once.
    rotation::make(world, TURNED, lives).await?;
    world.log_statements(true).await?;
    let (requests, statements) = (world.requests.end()?, world.statements());
    let (begun, before) = (statements.end()?, world.leases.went());
    for number in 0..lives {
        world.ask(&format!("counted-{number}"), TTL).await?;
        tokio::time::sleep(APART).await;
    }
    world.leases.gone(before + lives).await?;
    tokio::time::sleep(AFTER).await;
    let (requests, texts) = (world.requests.since(requests)?, statements.since(begun)?);
    world.log_statements(false).await?;
    for (kind, times) in audit::kinds(&requests) {
        say(format!("  {times:5} x {kind}"));
    }
    for (text, times) in shapes(&texts) {
        say(format!("  {times:5} x {text}"));
    }
    let of = |count: usize| anyhow::Ok(f64::from(u32::try_from(count)?) / f64::from(u32::try_from(lives)?));
    let writes: Vec<&Request> = requests.iter().filter(|request| request.is_write()).collect();
    let reads = requests.len() - writes.len();
    // One that met a newer version, or nothing any more, was not taken: it is looked at again, and then there is nothing to
    // write. How often that happens is chance.
    let taken = writes.iter().filter(|write| write.code < 400).count();
    let row = |what: &str, count: f64, bar: f64| {
        Row::new(what, "a life", count)
            .bar(Bar::Counted(bar))
            .note(format!("counted over {lives} lives, each alone"))
    };
    let mut rows = vec![
        row("API writes of the operator", of(taken)?, BUDGET.writes),
        row("API reads of the operator", of(reads)?, BUDGET.reads),
        Row::new(
            "API writes that met a newer version or nothing",
            "a life",
            of(writes.len() - taken)?,
        ),
        row("SQL round trips of the engine", of(texts.len())?, BUDGET.round_trips),
    ];
    rows.extend(rotations(world, lives).await?);
    rows.extend(sizes(world).await?);
    Ok(rows)
}

async fn rotations(world: &World<'_>, count: usize) -> Result<Vec<Row>> {
    let (begun, before) = (world.requests.end()?, world.leases.went());
    for number in 0..count {
        rotation::rotate(world, TURNED, number).await?;
        tokio::time::sleep(APART).await;
    }
    world.leases.gone(before + count).await?;
    tokio::time::sleep(AFTER).await;
    let requests = world.requests.since(begun)?;
    for (kind, times) in audit::kinds(&requests) {
        say(format!("  {times:5} x {kind}"));
    }
    let (writes, reads): (Vec<&Request>, Vec<&Request>) = requests.iter().partition(|request| request.is_write());
    let taken = writes.iter().filter(|write| write.code < 400).count();
    let row = |what: &str, times: usize| {
        let each = f64::from(u32::try_from(times)?) / f64::from(u32::try_from(count)?);
        let note = format!("counted over {count} rotations, each alone");
        anyhow::Ok(Row::new(what, "a rotation", each).note(note))
    };
    Ok(vec![
        row("API writes of the operator", taken)?.bar(Bar::Counted(ROTATION_WRITES)),
        row("API reads of the operator", reads.len())?,
    ])
}

/// What a live lease takes at the API server, as it answers it.
async fn sizes(world: &World<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kind in ["CredentialLease", "Secret"] {
        let found = world.scene.objects.get(kind, &world.scene.shop, "first").await?;
        let bytes = serde_json::to_vec(&found.context("the first lease is gone")?)?.len();
        let row = Row::new(format!("size of a {kind}"), "bytes", f64::from(u32::try_from(bytes)?));
        rows.push(row.note("as JSON; etcd holds leases so, and Secrets a little smaller"));
    }
    Ok(rows)
}

/// How often texts of one beginning were sent, most often first.
fn shapes(texts: &[String]) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for text in texts {
        let short: String = text.chars().take(110).collect();
        *counts.entry(short).or_default() += 1;
    }
    let mut shapes: Vec<_> = counts.into_iter().collect();
    shapes.sort_by_key(|(_, times)| Reverse(*times));
    shapes
}
