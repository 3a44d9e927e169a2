//! Many dynamic secrets are rotated within a minute: how long each waits for its new credential, how late the replaced account
//! is gone, and what that does to somebody who asks for a lease meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use dsv::api::names::credential::REVISION;
use e2e::say::say;
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::PartialObjectMeta;
use serde_json::json;

use crate::expiry;
use crate::figures::{Bar, Row};
use crate::sightings::Sightings;
use crate::stats::{ms, percentile};
use crate::world::World;

/// What they are called; roles of theirs are told from others by it.
const SET: &str = "rotated";
const IN_FLIGHT: usize = 16;
const MINUTE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_mins(5);

/// So many rotations, spread over a minute.
pub async fn measure(world: &World<'_>, count: usize) -> Result<Vec<Row>> {
    let secrets = make(world, SET, count).await?;
    say(format!("{count} dynamic secrets have their first credential"));
    let (begun, count) = (Instant::now(), u32::try_from(count)?);
    let (waited, fresh, late) = tokio::try_join!(
        rotate_all(world, &secrets, count, begun),
        expiry::fresh(world, Duration::ZERO, "rotating"),
        settled(world, count, begun),
    )?;
    let what = format!("{count} rotations in a minute");
    let note = format!("{} leases asked for meanwhile", fresh.len());
    Ok(vec![
        Row::new(
            format!("{what}: asked -> new Secret, p50"),
            "ms",
            ms(percentile(&waited, 50)),
        ),
        Row::new(
            format!("{what}: asked -> new Secret, p99"),
            "ms",
            ms(percentile(&waited, 99)),
        ),
        Row::new(
            format!("{what}: last asked -> all replaced accounts gone"),
            "ms",
            ms(late),
        )
        .bar(Bar::AtMost(5000.0)),
        Row::new(format!("{what}: a fresh lease, p50"), "ms", ms(percentile(&fresh, 50))).note(note),
        Row::new(format!("{what}: a fresh lease, p99"), "ms", ms(percentile(&fresh, 99))).bar(Bar::AtMost(1000.0)),
    ])
}

fn name(set: &str, number: usize) -> String {
    format!("{set}-{number}")
}

/// A set of so many dynamic secrets, each with its first credential; returns what shows the next ones.
pub async fn make(world: &World<'_>, set: &str, count: usize) -> Result<Sightings> {
    let secrets = Sightings::called::<Secret>(world.scene.objects.client().clone(), &world.scene.shop, revision);
    let make = |number: usize| async move {
        let spec = json!({"ttl": "2h", "issuance": {"mode": "Rotate", "overlap": "0s"}});
        world.scene.ask(&name(set, number), &spec).await?;
        anyhow::Ok(())
    };
    stream::iter((0..count).map(make))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    for number in 0..count {
        secrets.came(&format!("{}/1", name(set, number))).await?;
    }
    Ok(secrets)
}

/// Asks for the second credential of one of the set.
pub async fn rotate(world: &World<'_>, set: &str, number: usize) -> Result<()> {
    world.scene.rotate(&name(set, number), "2026-01-01T00:00:00Z").await?;
    Ok(())
}

/// Which credential a Secret holds.
fn revision(secret: &PartialObjectMeta<Secret>) -> String {
    let revision = secret.annotations().get(REVISION).map(String::as_str);
    format!("{}/{}", secret.name_any(), revision.unwrap_or_default())
}

async fn rotate_all(world: &World<'_>, secrets: &Sightings, count: u32, begun: Instant) -> Result<Vec<Duration>> {
    let one = |number: u32| async move {
        tokio::time::sleep_until((begun + MINUTE * number / count).into()).await;
        let asked = Instant::now();
        let number = usize::try_from(number)?;
        rotate(world, SET, number).await?;
        let came = secrets.came(&format!("{}/2", name(SET, number))).await?;
        anyhow::Ok(came.saturating_duration_since(asked))
    };
    stream::iter((0..count).map(one))
        .buffer_unordered(usize::try_from(count)?)
        .try_collect()
        .await
}

/// How long after the last was asked for each dynamic secret has one account again.
async fn settled(world: &World<'_>, count: u32, begun: Instant) -> Result<Duration> {
    tokio::time::sleep_until((begun + MINUTE).into()).await;
    let asked = Instant::now();
    let query = "SELECT count(*) FROM pg_roles WHERE rolcanlogin AND starts_with(rolname, $1) AND strpos(rolname, 'rotated') > 0";
    loop {
        let row = world
            .scene
            .administrator()
            .query_one(query, &[&world.scene.prefix])
            .await?;
        let left = row.get::<_, i64>(0) - i64::from(count);
        if left <= 0 {
            return Ok(asked.elapsed());
        }
        if asked.elapsed() > LIMIT {
            bail!("{left} replaced accounts are still there after {LIMIT:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}
