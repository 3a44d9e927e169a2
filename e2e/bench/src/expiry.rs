//! Many accounts end within a minute: how late each is gone, and what that does to somebody who asks for a new one.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::objects::text;
use e2e::say::say;
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::figures::{Bar, Row};
use crate::stats::{ms, percentile};
use crate::world::World;

const IN_FLIGHT: usize = 16;
/// Over which the ends are spread.
const MINUTE: Duration = Duration::from_mins(1);
/// So many are made in a second on any machine.
const MADE_A_SECOND: u64 = 30;
const LEAD: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);
/// Between two who ask meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_mins(5);

/// So many ends in a minute.
pub async fn measure(world: &World<'_>, leases: usize) -> Result<Vec<Row>> {
    let count = u32::try_from(leases)?;
    let first_end = Instant::now() + LEAD + Duration::from_secs(u64::from(count) / MADE_A_SECOND);
    let ask = |number: u32| async move {
        let end = first_end + MINUTE * number / count;
        let ttl = end.saturating_duration_since(Instant::now()).as_secs().max(10);
        let name = format!("ending-{number}");
        world.ask(&name, &format!("{ttl}s")).await?;
        world.secrets.came(&name).await?;
        anyhow::Ok(())
    };
    stream::iter((0..count).map(ask))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    let ends = ends(world).await?;
    if Instant::now() > first_end {
        bail!("making {leases} leases took until the first of them ended; ask for fewer with --leases");
    }
    say(format!("{} accounts end within a minute", ends.len()));
    let opens = first_end.saturating_duration_since(Instant::now());
    let before = world.leases.went();
    let (late, fresh) = tokio::try_join!(lateness(world, ends), fresh(world, opens, "expiry"))?;
    world.leases.gone(before + leases).await?;
    let closed = Instant::now().saturating_duration_since(first_end + MINUTE);
    let what = format!("{leases} ends in a minute");
    let note = format!("{} leases asked for meanwhile", fresh.len());
    Ok(vec![
        Row::new(
            format!("{what}: end -> role gone, p50"),
            "ms",
            ms(percentile(&late, 50)),
        ),
        Row::new(
            format!("{what}: end -> role gone, p99"),
            "ms",
            ms(percentile(&late, 99)),
        )
        .bar(Bar::AtMost(5000.0)),
        Row::new(format!("{what}: last end -> all leases gone"), "ms", ms(closed)),
        Row::new(format!("{what}: a fresh lease, p50"), "ms", ms(percentile(&fresh, 50))).note(note),
        Row::new(format!("{what}: a fresh lease, p99"), "ms", ms(percentile(&fresh, 99))).bar(Bar::AtMost(1000.0)),
    ])
}

/// When each of the accounts ends, as its lease says.
async fn ends(world: &World<'_>) -> Result<BTreeMap<String, Timestamp>> {
    let leases = world.scene.leases().await?;
    let ending = leases
        .iter()
        .filter(|lease| text(lease, "/metadata/name").starts_with("ending-"));
    let end = |lease: &serde_json::Value| {
        let end = text(lease, "/status/expiresAt").parse();
        let end = end.with_context(|| format!("lease {} has no end", text(lease, "/metadata/name")))?;
        Ok((role_suffix(&text(lease, "/metadata/uid")), end))
    };
    ending.map(end).collect()
}

/// How an account's name ends.
fn role_suffix(lease_uid: &str) -> String {
    dsv::api::names::base32_uid(lease_uid).unwrap_or_default()
}

/// How long after its end each role was still seen. Only those are asked about whose end has come: a list of all accounts, ten
/// times a second, would be work of the server that is measured.
async fn lateness(world: &World<'_>, ends: BTreeMap<String, Timestamp>) -> Result<Vec<Duration>> {
    let mut left = named(world, ends).await?;
    let query = "SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1)";
    let (mut late, begun) = (Vec::new(), Instant::now());
    while !left.is_empty() {
        if begun.elapsed() > LIMIT {
            bail!("{} accounts are still there after {LIMIT:?}", left.len());
        }
        let asked = Timestamp::now();
        let due: Vec<&String> = left
            .iter()
            .filter(|(_, end)| **end <= asked)
            .map(|(role, _)| role)
            .collect();
        let rows = world.scene.administrator().query(query, &[&due]).await?;
        let now = Timestamp::now();
        let there: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
        left.retain(|role, end| {
            let stays = *end > asked || there.contains(role);
            if !stays {
                late.push(Duration::try_from(now.duration_since(*end)).unwrap_or_default());
            }
            stays
        });
        tokio::time::sleep(POLL).await;
    }
    Ok(late)
}

/// The roles of these accounts and their ends.
async fn named(world: &World<'_>, ends: BTreeMap<String, Timestamp>) -> Result<BTreeMap<String, Timestamp>> {
    let query = "SELECT rolname::text FROM pg_roles WHERE rolcanlogin AND starts_with(rolname, $1)";
    let rows = world.scene.administrator().query(query, &[&world.scene.prefix]).await?;
    let roles: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let named: BTreeMap<String, Timestamp> = roles
        .into_iter()
        .filter_map(|role| Some((*ends.get(role.rsplit('_').next()?)?, role)))
        .map(|(end, role)| (role, end))
        .collect();
    if named.len() < ends.len() {
        bail!(
            "{} of {} accounts are not there before their end",
            ends.len() - named.len(),
            ends.len()
        );
    }
    Ok(named)
}

/// Leases that somebody asks for while others end, and how long each took to its Secret.
pub async fn fresh(world: &World<'_>, opens: Duration, what: &str) -> Result<Vec<Duration>> {
    tokio::time::sleep(opens).await;
    let (mut took, opened) = (Vec::new(), Instant::now());
    while opened.elapsed() < MINUTE {
        let (begun, name) = (Instant::now(), format!("{what}-fresh-{}", took.len()));
        world.ask(&name, "1h").await?;
        took.push(world.secrets.came(&name).await?.saturating_duration_since(begun));
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(took)
}
