//! An engine outside the cluster, which dials a node's port by a tenant's name, beside engine pods of the same pool, and the
//! number of the latter changed with `kubectl scale`.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use super::install::{NODE_PORT, REPLICAS};
use crate::engine::Engine;
use crate::node::inside::TENANT_HOST;
use crate::node::world::{World, dynamic_secret};
use crate::sample::{DATABASES, ORDERS};

const NAME: &str = "dc-west-1";

pub async fn run(world: &World) -> Result<()> {
    world.apply(&[json!({
        "apiVersion": "dsv.dev/v1alpha1",
        "kind": "Engine",
        "metadata": {"name": NAME, "namespace": DATABASES},
        "spec": {"pool": ORDERS},
    })])?;
    let mut registration = world
        .eventually("the operator makes the engine's registration", || async {
            registration(world)
        })
        .await?;
    registration.insert("DSV_ENDPOINT".to_owned(), format!("{TENANT_HOST}:{NODE_PORT}"));
    let engine = Engine::start(&world.machine.run, NAME, &registration, None)?;
    world.until_connected(REPLICAS + 1).await?;
    scale(world, 0)?;
    world.until_connected(1).await?;
    world.apply(&[dynamic_secret("by-remote", &json!({}))])?;
    world.until_ready("by-remote")?;
    let start = Instant::now();
    scale(world, REPLICAS)?;
    world.until_connected(REPLICAS + 1).await?;
    world.figure(
        "from kubectl scale of a pool until both new engines are connected",
        start.elapsed(),
    );
    drop(engine);
    world.kubectl(&["delete", "engine", NAME, "-n", DATABASES])?;
    world.until_connected(REPLICAS).await
}

fn scale(world: &World, replicas: u32) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    world
        .kubectl(&["scale", "enginepool", ORDERS, "-n", DATABASES, &replicas])
        .map(drop)
}

/// What is in the registration Secret, once there is one.
fn registration(world: &World) -> Result<Option<BTreeMap<String, String>>> {
    let name = format!("{NAME}-registration");
    let found = world.kubectl(&[
        "get",
        "secret",
        &name,
        "-n",
        DATABASES,
        "-o=jsonpath={.data}",
        "--ignore-not-found",
    ])?;
    if found.trim().is_empty() {
        return Ok(None);
    }
    let data: BTreeMap<String, String> =
        serde_json::from_value::<BTreeMap<String, Value>>(serde_json::from_str(&found)?)?
            .into_iter()
            .map(|(key, value)| {
                let text = value.as_str().unwrap_or_default().as_bytes().to_vec();
                Ok((key, String::from_utf8(data_encoding::BASE64.decode(&text)?)?))
            })
            .collect::<Result<_>>()?;
    Ok(Some(data))
}
