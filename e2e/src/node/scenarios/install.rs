//! `helm install` into a namespace that enforces Pod Security `restricted`, and a pool whose engines are pods.

use std::time::Instant;

use anyhow::Result;

use super::memory;
use crate::chart::CHART;
use crate::install::NAMESPACE;
use crate::node::world::{RELEASE, World};
use crate::sample;

pub const REPLICAS: u32 = 2;
/// Where engines outside the cluster come in.
pub const NODE_PORT: u16 = 30443;

pub async fn run(world: &World) -> Result<()> {
    let restricted = [("pod-security.kubernetes.io/enforce", "restricted")];
    world.apply(&[sample::namespace(NAMESPACE, &restricted.into())])?;
    let start = Instant::now();
    world
        .machine
        .helm(&[
            "install",
            RELEASE,
            CHART,
            "-n",
            NAMESPACE,
            "--set",
            &format!(
                "channel.service.type=NodePort,channel.service.nodePort={NODE_PORT},networkPolicy.databasePorts={{{}}}",
                world.postgres.port()
            ),
            "--wait",
            "--timeout",
            "3m",
        ])
        .inspect_err(|_| crate::say::say(world.report()))?;
    world.figure("from helm install until the operator is ready", start.elapsed());
    memory::told(world, "straight after the install")?;
    world.prepare(REPLICAS)?;
    let start = Instant::now();
    world.until_connected(REPLICAS).await?;
    world.figure("from the pool until its two engine pods are connected", start.elapsed());
    Ok(())
}
