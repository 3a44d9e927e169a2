//! How long somebody waits for a credential: from the lease that he writes to the Secret that he reads.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bare_api::BareApi;
use crate::bare_sql::BareSql;
use crate::figures::{Bar, Row};
use crate::stats::{ms, percentile};
use crate::world::World;

/// Before anything counts: connections are opened and caches filled on both sides.
const WARM_UP: usize = 5;
/// Longer than everything that is measured, so that no end of an account falls into it.
const TTL: &str = "1h";

/// One after the other, ours and the bare one in turn.
pub async fn measure(world: &World<'_>, count: usize) -> Result<Vec<Row>> {
    let scene = &world.scene;
    let api = BareApi::like(&scene.objects, &scene.shop, "first").await?;
    let sql = BareSql::open(scene.server(), scene.issuer(), 1).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for number in 0..WARM_UP + count {
        let took = (
            through_the_product(world, &format!("waited-{number}")).await?,
            bare_handed(world, &api, &sql, &format!("bare-{number}")).await?,
        );
        if number >= WARM_UP {
            ours.push(took.0);
            bare.push(took.1);
        }
    }
    sql.clean().await?;
    let row = |percent, bar| {
        Row::new(
            format!("lease written -> Secret seen, p{percent}"),
            "ms",
            ms(percentile(&ours, percent)),
        )
        .limit(ms(percentile(&bare, percent)))
        .bar(Bar::RatioAtMost(bar))
        .note(format!(
            "{count} in turn; limit: the same 4 writes and a bare CREATE ROLE"
        ))
    };
    Ok(vec![row(50, 1.5), row(99, 2.0)])
}

async fn through_the_product(world: &World<'_>, name: &str) -> Result<Duration> {
    let begun = Instant::now();
    world.ask(name, TTL).await?;
    Ok(world.secrets.came(name).await?.saturating_duration_since(begun))
}

/// The writes on the way to the Secret and the account between them; what comes after the Secret is not measured.
async fn bare_handed(world: &World<'_>, api: &BareApi, sql: &BareSql, name: &str) -> Result<Duration> {
    let begun = Instant::now();
    let life = api.claim(name).await?;
    sql.issue(0).await?;
    api.deliver(&life).await?;
    let took = world.secrets.came(name).await?.saturating_duration_since(begun);
    api.end(life).await.context("cannot end a bare life")?;
    Ok(took)
}
