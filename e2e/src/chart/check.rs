//! Holds the chart to be right: helm's own check, generated files, typos, and a real API server that is asked without being
//! changed.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{CHART, Generated, generated, helm};
use crate::cluster::Cluster;
use crate::control_plane::ControlPlane;
use crate::install::NAMESPACE;
use crate::places;
use crate::say::say;

/// Everything at once. An error names the first thing that is not right.
pub async fn run() -> Result<()> {
    say("helm lint, with default values and with every switch on");
    helm(&["lint", "--strict", CHART])?;
    helm(&[
        "lint",
        "--strict",
        CHART,
        "--values",
        "charts/dsv-operator/ci/everything-values.yaml",
    ])?;
    say("generated files");
    let files = generated()?;
    for Generated(path, text) in &files {
        let found = fs::read_to_string(places::workspace().join(path)).unwrap_or_default();
        ensure!(
            found == *text,
            "{path} is not what the chart gives: run `make chart` and look at the difference"
        );
    }
    say("misspelt and impossible values are refused");
    for (wrong, said) in [
        ("replica=3", "replica"),
        ("replicas=0", "replicas"),
        ("image.pullpolicy=Never", "pullpolicy"),
        ("log.format=xml", "format"),
        ("watch.namespaces={Shop}", "namespaces"),
    ] {
        let refused = helm(&["template", "dsv", CHART, "--set", wrong]);
        let refused = refused.err().with_context(|| format!("helm takes --set {wrong}"))?;
        ensure!(
            format!("{refused:#}").contains(said),
            "--set {wrong} is refused for something else: {refused:#}"
        );
    }
    on_a_real_api_server().await
}

/// What needs definitions of others (cert-manager, Gateway API, Prometheus) is left out: no API server here knows them.
async fn on_a_real_api_server() -> Result<()> {
    say("a real API server takes all of it");
    let cluster = Cluster::own(ControlPlane::start().await?);
    let config = places::workspace().join("config");
    let config = config.to_str().context("the path of the workspace is not UTF-8")?;
    cluster.kubectl(&["apply", "--server-side", "-k", config])?;
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    // Where the account of `helm test` gets its rights, and the operator those to Secrets.
    for namespace in ["shop", "databases"] {
        cluster.kubectl(&["create", "namespace", namespace])?;
    }
    // A pod is refused, even on trial, unless its account is there.
    cluster.kubectl(&["create", "serviceaccount", "dsv-operator-trial", "-n", NAMESPACE])?;
    let own = ["cert-manager.io", "gateway.networking.k8s.io", "monitoring.coreos.com"];
    let everything = fs::read_to_string(places::workspace().join(super::EVERYTHING))?;
    let known: Vec<&str> = everything
        .split("\n---\n")
        .filter(|part| !own.iter().any(|group| part.contains(&format!("apiVersion: {group}/"))))
        .collect();
    let dry = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "-f",
        "-",
    ];
    cluster.kubectl_with(&dry, &known.join("\n---\n"))?;
    Ok(())
}
