//! What is shown on a node, in order: each scenario stands on the ones before it.

mod application;
mod disturbances;
mod elsewhere;
mod flows;
mod install;
mod memory;
mod rotation;
mod samples;
mod tenants;
mod trial;
mod uninstall;
mod upgrade;

use anyhow::{Context, Result};

use super::world::World;
use crate::say::say;

/// Runs all of them; how many there were.
pub async fn run(world: &World) -> Result<usize> {
    let mut count = 0;
    let mut told = |what: &'static str| {
        say(format!("scenario: {what}"));
        count += 1;
        what
    };
    let what = told("helm install, and the engines of a pool connect");
    install::run(world).await.context(what)?;
    let what = told("applications read rows with a mounted Secret and with envFrom");
    application::run(world).await.context(what)?;
    let what = told("network policies admit the flows that exist");
    flows::run(world).await.context(what)?;
    let what = told("the consumers of config/samples read rows");
    samples::run(world).await.context(what)?;
    samples::rotate(world).context(what)?;
    let what = told("a rotation is seen in a running pod without a failed login");
    rotation::run(world).await.context(what)?;
    let what = told("the samples' pods saw a rotation and a rolling restart without a failed login");
    samples::rotated(world).await.context(what)?;
    let what = told("the leader's pod is deleted");
    disturbances::leader_deleted(world).await.context(what)?;
    let what = told("the leading process is killed");
    disturbances::leader_killed(world).await.context(what)?;
    let what = told("all engine pods are killed while something is issued");
    disturbances::engines_deleted(world).await.context(what)?;
    let what = told("containerd is restarted");
    disturbances::containerd_restarted(world).await.context(what)?;
    let what = told("the engines are away while a ttl ends");
    disturbances::away_over_a_ttl(world).await.context(what)?;
    let what = told("an engine outside the cluster works beside pods, and a pool is scaled");
    elsewhere::run(world).await.context(what)?;
    let what = told("two tenants cannot reach each other, and one namespace is deleted with pool and leases");
    tenants::run(world).await.context(what)?;
    let what = told("memory, and a hundred DynamicSecrets at once");
    memory::idle(world).context(what)?;
    memory::busy(world).context(what)?;
    let what = told("helm upgrade while leases live");
    upgrade::run(world).await.context(what)?;
    let what = told("helm test has an account issued and taken back");
    trial::run(world).await.context(what)?;
    let what = told("helm uninstall leaves nothing");
    uninstall::run(world).await.context(what)?;
    Ok(count)
}
