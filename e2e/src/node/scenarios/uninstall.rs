//! `helm uninstall` with live leases: accounts, roles, Secrets and objects go, the definitions stay.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::install::NAMESPACE;
use crate::node::world::{RELEASE, World};

pub async fn run(world: &World) -> Result<()> {
    ensure!(!world.roles().await?.is_empty(), "nothing lives that could be left");
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
    let of_dsv = "enginepools,engines,dynamicsecrets,credentialleases";
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
    let definitions = world.kubectl(&["get", "crd", name])?;
    ensure!(
        definitions.matches("dsv.dev").count() == 4,
        "the definitions must stay: {definitions}"
    );
    Ok(())
}

/// Until there is nothing of the kind: Kubernetes removes pods of what is gone in its own time.
async fn nothing(world: &World, arguments: &[&str]) -> Result<()> {
    let what = format!("`kubectl {}` shows nothing", arguments.join(" "));
    world.until(&what, arguments, "").await
}
