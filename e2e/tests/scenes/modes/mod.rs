//! What a DynamicSecret can be told to do, and what happens when people reach into its Secret.

mod account;
mod bound;
mod on_demand;
mod renewal;
mod restart;
mod secret;

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::scene::{Scene, grace};
use e2e::stack::Stack;
use tokio::time::sleep;

/// Long enough for the operator to notice whatever it is going to notice.
pub const NOTICE: Duration = Duration::from_secs(3);

pub async fn scene() -> Scene<'static> {
    Scene::open(Stack::shared().await.unwrap(), Some(1)).await.unwrap()
}

/// Fails if the Secret gets another serial, or appears, within a while.
pub async fn nothing_follows(scene: &Scene<'_>, secret: &str, serial: i64) {
    let until = Instant::now() + NOTICE;
    while Instant::now() < until {
        let now = scene.credential(secret).await.unwrap().map_or(0, |now| now.serial);
        assert!(now <= serial, "serial {now} was issued");
        sleep(Duration::from_millis(200)).await;
    }
    // What was replaced may take as long as anything that ends.
    let one = || async {
        let accounts = scene.accounts(secret).await?;
        ensure!(accounts.len() <= 1, "{accounts:?}");
        Ok(Some(()))
    };
    scene
        .stack
        .eventually("one account is left", grace(), one)
        .await
        .unwrap();
}
