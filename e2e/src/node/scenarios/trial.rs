//! `helm test`: a pod with rights of its own has an account issued and taken back, and its rights go with it.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::chart::CHART;
use crate::install::NAMESPACE;
use crate::node::world::{RELEASE, SHOP, World, dynamic_secret};

const NAME: &str = "orders-trial";

pub async fn run(world: &World) -> Result<()> {
    world.apply(&[dynamic_secret(NAME, &json!({"issuance": {"mode": "OnDemand"}}))])?;
    let reason = "-o=jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}";
    let told = ["get", "dynamicsecret", NAME, "-n", SHOP, reason];
    world
        .until("a DynamicSecret that can be asked", &told, "OnDemand")
        .await?;
    let named = format!("trial.dynamicSecret={NAME},trial.namespace={SHOP}");
    world.machine.helm(&[
        "upgrade",
        RELEASE,
        CHART,
        "-n",
        NAMESPACE,
        "--reuse-values",
        "--set",
        &named,
        "--wait",
        "--timeout",
        "3m",
    ])?;
    let start = Instant::now();
    let said = world
        .machine
        .helm(&["test", RELEASE, "-n", NAMESPACE, "--timeout", "4m"])
        .inspect_err(|_| crate::say::say(world.report()))?;
    world.figure("helm test, with the proof that its account is gone", start.elapsed());
    let good = said
        .lines()
        .any(|line| line.starts_with("Phase:") && line.ends_with("Succeeded"));
    ensure!(good, "helm test says:\n{said}");
    let left = ["get", "serviceaccounts,pods", "-n", NAMESPACE, "-o=name"];
    let left = world.kubectl(&left)?;
    ensure!(
        !left.contains("dsv-operator-trial"),
        "of helm test this is left:\n{left}"
    );
    let left = ["get", "roles,rolebindings", "-n", SHOP, "-o=name"];
    let left = world.kubectl(&left)?;
    ensure!(
        !left.contains("dsv-operator-trial"),
        "of helm test this is left:\n{left}"
    );
    world.kubectl(&["delete", "dynamicsecret", NAME, "-n", SHOP]).map(drop)
}
