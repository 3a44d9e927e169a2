//! A pod that mounts the Secret of a DynamicSecret and reads rows with it, and a Job that has it in its environment.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::node::world::{From, SHOP, World, application, dynamic_secret, secret_of};
use crate::objects::{number, text};

/// The application that lives through all scenarios.
pub const NAME: &str = "orders-app";

pub async fn run(world: &World) -> Result<()> {
    let start = Instant::now();
    world.apply(&[dynamic_secret(NAME, &json!({})), follower(NAME)])?;
    let account = world.until_ready(NAME)?;
    world.figure(
        "from kubectl apply of a DynamicSecret until it is ready",
        start.elapsed(),
    );
    let line = world
        .eventually("the application reads rows", || async {
            Ok(world.printed(NAME)?.into_iter().next())
        })
        .await?;
    world.figure(
        "from the same until an application that mounts it has rows",
        start.elapsed(),
    );
    ensure!(
        number(&line, "/answer") == 3,
        "there are three orders, but the application says {line}"
    );
    ensure!(text(&line, "/user") == account, "the Secret has {account}, but {line}");
    let roles = world.roles().await?;
    ensure!(roles.contains(&account), "{account} is not among {roles:?}");
    by_environment(world).await
}

async fn by_environment(world: &World) -> Result<()> {
    let pod = application(&secret_of(NAME), &["ask"], From::Environment);
    world.apply(&[json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "orders-report", "namespace": SHOP},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    })])?;
    let field = "-o=jsonpath={.status.succeeded}";
    let succeeded = ["get", "job", "orders-report", "-n", SHOP, field];
    world.until("a Job with envFrom ends well", &succeeded, "1").await
}

/// A pod that logs in twenty times a second with whatever the mounted Secret of a DynamicSecret says.
pub fn follower(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": SHOP},
        "spec": application(&secret_of(name), &["follow", "--folder", "/credential"], From::Files),
    })
}

/// Fails if a login of this application ever failed; gives the number of logins.
pub fn never_failed(world: &World, name: &str) -> Result<u64> {
    let lines = world.printed(name)?;
    if let Some(bad) = lines.iter().find(|line| line.get("error").is_some()) {
        anyhow::bail!("a login of {name} failed: {bad}");
    }
    Ok(lines
        .last()
        .and_then(|line| line.get("logins")?.as_u64())
        .unwrap_or_default())
}
