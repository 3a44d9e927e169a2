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
    let nothing = |arguments: &[&str]| {
        let found = world.kubectl(arguments)?;
        ensure!(found.trim().is_empty(), "left after the uninstall:\n{found}");
        Ok(())
    };
    let name = "-o=name";
    nothing(&["get", "enginepools,engines,dynamicsecrets,credentialleases", "-A", name])?;
    nothing(&[
        "get",
        "secrets",
        "-A",
        "-l",
        "app.kubernetes.io/managed-by=dsv-operator",
        name,
    ])?;
    nothing(&[
        "get",
        "deployments,pods,leases.coordination.k8s.io,services,networkpolicies,jobs",
        "-n",
        NAMESPACE,
        name,
    ])?;
    let labelled = "app.kubernetes.io/name=dsv-operator";
    let kinds = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings";
    nothing(&["get", kinds, "-l", labelled, name])?;
    let definitions = world.kubectl(&["get", "crd", name])?;
    ensure!(
        definitions.matches("dsv.dev").count() == 4,
        "the definitions must stay: {definitions}"
    );
    Ok(())
}
