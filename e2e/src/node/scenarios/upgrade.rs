//! `helm upgrade` replaces the operator's pods while leases live, and limits its right to Secrets to the namespaces that it
//! has to serve.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;

use super::application;
use super::install::REPLICAS;
use crate::chart::CHART;
use crate::install::{NAMESPACE, SERVICE_ACCOUNT};
use crate::node::world::{RELEASE, SHOP, World, dynamic_secret};
use crate::sample::DATABASES;

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
            "--set",
            &format!("watch.namespaces={{{SHOP},{DATABASES}}}"),
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
    application::never_failed(world, application::NAME)?;
    served_only(world)
}

/// The operator reads Secrets where it serves, nowhere else, and issues as before.
fn served_only(world: &World) -> Result<()> {
    let account = format!("--as=system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}");
    for (namespace, may) in [(SHOP, true), (DATABASES, true), (NAMESPACE, true), ("default", false)] {
        let answer = world.kubectl(&["auth", "can-i", "get", "secrets", "-n", namespace, &account]);
        ensure!(answer.is_ok() == may, "in {namespace} it may read Secrets: {answer:?}");
    }
    world.apply(&[dynamic_secret("after-upgrade", &json!({}))])?;
    world.until_ready("after-upgrade").map(drop)
}
