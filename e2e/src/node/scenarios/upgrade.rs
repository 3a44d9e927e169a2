//! `helm upgrade` replaces the operator's pods while leases live.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::application;
use super::install::REPLICAS;
use crate::chart::CHART;
use crate::install::NAMESPACE;
use crate::node::world::{RELEASE, SHOP, World};

pub async fn run(world: &World) -> Result<()> {
    let leases = [
        "get",
        "credentialleases",
        "-n",
        SHOP,
        "-o=jsonpath={.items[*].metadata.uid}",
    ];
    let (account, before) = (world.account(application::NAME)?, world.kubectl(&leases)?);
    let pods = [
        "get",
        "pods",
        "-n",
        NAMESPACE,
        "-l",
        "app.kubernetes.io/component=operator",
        "-o=name",
    ];
    let old = world.kubectl(&pods)?;
    let start = Instant::now();
    world
        .machine
        .helm(&[
            "upgrade",
            RELEASE,
            CHART,
            "-n",
            NAMESPACE,
            "--reuse-values",
            "--set-string",
            "podAnnotations.upgrade=1",
            "--wait",
            "--timeout",
            "3m",
        ])
        .inspect_err(|_| crate::say::say(world.report()))?;
    world.until_connected(REPLICAS).await?;
    world.figure(
        "helm upgrade with live leases, until all engines are connected again",
        start.elapsed(),
    );
    world
        .eventually("no old pod of the operator is there", || async {
            let now = world.kubectl(&pods)?;
            Ok((!now.lines().any(|pod| old.contains(pod))).then_some(()))
        })
        .await?;
    ensure!(
        world.account(application::NAME)? == account,
        "a live credential was issued again"
    );
    let after = world.kubectl(&leases)?;
    for lease in before.split_whitespace() {
        ensure!(after.contains(lease), "lease {lease} was lost");
    }
    application::never_failed(world, application::NAME).map(drop)
}
