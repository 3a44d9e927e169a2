//! The credential changes below a running application, which knows only the mounted files. No login may fail.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;

use super::application::{follower, never_failed};
use crate::node::world::{SHOP, World, dynamic_secret};
use crate::objects::text;

const NAME: &str = "orders-moving";

pub async fn run(world: &World) -> Result<()> {
    // Kubelet looks at mounted Secrets about once a minute; until it does the old account must live.
    let rotate = json!({"issuance": {"mode": "Rotate", "overlap": "3m"}});
    world.apply(&[dynamic_secret(NAME, &rotate), follower(NAME)])?;
    let before = world.until_ready(NAME)?;
    seen(world, &before).await?;
    let start = Instant::now();
    world.kubectl(&["annotate", "-n", SHOP, "dynamicsecret", NAME, "dsv.dev/rotate-at=now"])?;
    let after = world
        .eventually("the Secret has another account", || async {
            let now = world.account(NAME)?;
            Ok((now != before).then_some(now))
        })
        .await?;
    seen(world, &after).await?;
    world.figure(
        "from asking for a new credential until a running pod logs in with it",
        start.elapsed(),
    );
    let logins = never_failed(world, NAME)?;
    ensure!(logins > 0, "the application never logged in");
    ensure!(
        world.roles().await?.contains(&before),
        "the old account went before its overlap was over"
    );
    Ok(())
}

/// Until the application has logged in with this account.
async fn seen(world: &World, account: &str) -> Result<()> {
    world
        .eventually(&format!("the application logs in as {account}"), || async {
            let lines = world.printed(NAME)?;
            Ok(lines.iter().any(|line| text(line, "/user") == account).then_some(()))
        })
        .await
}
