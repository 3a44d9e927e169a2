//! `helm uninstall` with live leases: accounts, roles, Secrets and objects go, the definitions stay.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::disturbances;
use crate::install::NAMESPACE;
use crate::node::world::{RELEASE, SHOP, World};
use crate::places::own_program;
use crate::process::{Process, Spec};

pub async fn run(world: &World) -> Result<()> {
    ensure!(!world.roles().await?.is_empty(), "nothing lives that could be left");
    without_engines(world).await?;
    let start = Instant::now();
    world
        .machine
        .helm(&["uninstall", RELEASE, "-n", NAMESPACE, "--wait", "--timeout", "12m"])
        .inspect_err(|_| crate::say::say(world.report()))?;
    world.figure("helm uninstall with live leases", start.elapsed());
    let roles = world.roles().await?;
    ensure!(roles.is_empty(), "these roles are left in PostgreSQL: {roles:?}");
    let name = "-o=name";
    let (ours, labelled) = (
        "app.kubernetes.io/managed-by=dsv-operator",
        "app.kubernetes.io/name=dsv-operator",
    );
    let of_dsv = "enginepools,engines,dynamicsecrets,credentialleases,secretsyncs,dsvtenants";
    let here = "deployments,pods,leases.coordination.k8s.io,services,networkpolicies,jobs,serviceaccounts";
    let of_cluster = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings";
    nothing(world, &["get", of_dsv, "-A", name]).await?;
    nothing(world, &["get", "secrets", "-A", "-l", ours, name]).await?;
    nothing(
        world,
        &[
            "get",
            here,
            "-n",
            NAMESPACE,
            "--field-selector=metadata.name!=default",
            name,
        ],
    )
    .await?;
    nothing(world, &["get", of_cluster, "-l", labelled, name]).await?;
    nothing(world, &["get", "roles,rolebindings", "-A", "-l", labelled, name]).await?;
    let definitions = world.kubectl(&["get", "crd", name])?;
    ensure!(
        definitions.matches("dsv.dev").count() == 6,
        "the definitions must stay: {definitions}"
    );
    Ok(())
}

/// Until there is nothing of the kind: Kubernetes removes pods of what is gone in its own time.
async fn nothing(world: &World, arguments: &[&str]) -> Result<()> {
    let what = format!("`kubectl {}` shows nothing", arguments.join(" "));
    world.until(&what, arguments, "").await
}

/// With nobody there to take accounts back the uninstall fails, says what is left and forces nothing.
async fn without_engines(world: &World) -> Result<()> {
    let before = world.roles().await?;
    disturbances::scale(world, 0)?;
    world.until_connected(0).await?;
    let run = &world.machine.run;
    let spec = Spec::new("uninstall", own_program("dsv-operator")?, &run.subfolder("uninstall")?)
        .args(["uninstall", "--timeout", "5"])
        .env("KUBECONFIG", world.machine.cluster.kubeconfig().display().to_string());
    let refused = Process::run(&spec)
        .err()
        .context("the uninstall ended well without engines")?;
    // Long lists are shortened; this is the first by name.
    let (said, left) = (format!("{refused:#}"), format!("DynamicSecret {SHOP}/after-leader"));
    ensure!(said.contains(&left), "{left} is not said to be left:\n{said}");
    ensure!(world.roles().await? == before, "accounts went without an engine");
    disturbances::scale(world, 1)
}
