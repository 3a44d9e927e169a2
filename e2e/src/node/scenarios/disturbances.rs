//! What happens to pods on real nodes: leaders and engines are deleted, the container runtime restarts, engines are away while
//! a ttl ends.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::application;
use super::install::REPLICAS;
use crate::install::NAMESPACE;
use crate::node::world::{SHOP, World, dynamic_secret, secret_of};

const ENGINES: &str = "app.kubernetes.io/name=dsv-engine";

/// The next leader goes on; what lives is not issued again.
pub async fn leader_deleted(world: &World) -> Result<()> {
    let before = world.account(application::NAME)?;
    let leader = leader(world)?;
    let start = Instant::now();
    world.kubectl(&["delete", "-n", NAMESPACE, &leader, "--wait=false"])?;
    world.apply(&[dynamic_secret("after-leader", &json!({}))])?;
    world.until_ready("after-leader")?;
    world.figure(
        "from deleting the leader's pod until the next one has issued",
        start.elapsed(),
    );
    ensure!(self::leader(world)? != leader, "the deleted pod still leads");
    ensure!(
        world.account(application::NAME)? == before,
        "a live credential was issued again"
    );
    world.until_connected(REPLICAS).await
}

/// The leading process is killed where it stands, so nobody hands leadership over.
pub async fn leader_killed(world: &World) -> Result<()> {
    let before = world.account(application::NAME)?;
    let pod = leader(world)?;
    let process = operator_in(pod.trim_start_matches("pod/"))?;
    let start = Instant::now();
    kill(process, Signal::SIGKILL)?;
    world.apply(&[dynamic_secret("killed-leader", &json!({}))])?;
    world.until_ready("killed-leader")?;
    world.figure(
        "from killing the leading process until the next one has issued",
        start.elapsed(),
    );
    ensure!(
        world.account(application::NAME)? == before,
        "a live credential was issued again"
    );
    world.until_connected(REPLICAS).await
}

/// The pod that is labelled as leader.
fn leader(world: &World) -> Result<String> {
    let labelled = ["get", "pods", "-n", NAMESPACE, "-l", "dsv.dev/leader=true", "-o=name"];
    let leader = world.kubectl(&labelled)?.trim().to_owned();
    ensure!(leader.starts_with("pod/"), "no pod is labelled as leader: {leader:?}");
    Ok(leader)
}

/// The operator's process in a pod, as our own table of processes has it.
fn operator_in(pod: &str) -> Result<Pid> {
    let variable = format!("POD_NAME={pod}");
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        let variables = fs::read(folder.join("environ")).unwrap_or_default();
        let is_there = variables.split(|byte| *byte == 0).any(|one| one == variable.as_bytes());
        if let (true, Some(number)) = (name.trim() == "dsv-operator" && is_there, folder.file_name()) {
            return Ok(Pid::from_raw(number.to_string_lossy().parse()?));
        }
    }
    bail!("no process runs in {pod}")
}

/// Killed engines come back as the same ones, and what was asked meanwhile is done.
pub async fn engines_deleted(world: &World) -> Result<()> {
    let identities = ["get", "engines", "-A", "-o=jsonpath={.items[*].metadata.uid}"];
    let before = world.kubectl(&identities)?;
    world.apply(&[dynamic_secret("without-engines", &json!({}))])?;
    let start = Instant::now();
    world.kubectl(&[
        "delete",
        "pods",
        "-n",
        NAMESPACE,
        "-l",
        ENGINES,
        "--grace-period=0",
        "--force",
    ])?;
    world.until_ready("without-engines")?;
    world.until_connected(REPLICAS).await?;
    world.figure(
        "from killing both engine pods until both are connected again",
        start.elapsed(),
    );
    ensure!(
        world.kubectl(&identities)? == before,
        "the engines that came back are others"
    );
    Ok(())
}

/// Pods run on without it, and new ones start after it.
pub async fn containerd_restarted(world: &World) -> Result<()> {
    world.machine.restart_containerd()?;
    let pod = application::follower("after-leader");
    world.apply(&[pod])?;
    world
        .eventually("a pod that starts after it reads rows", || async {
            Ok(world.printed("after-leader")?.into_iter().next())
        })
        .await?;
    application::never_failed(world, application::NAME).map(drop)
}

/// With all engines away the Secret goes at the ttl, and the account as soon as one is back.
pub async fn away_over_a_ttl(world: &World) -> Result<()> {
    let name = "short";
    world.apply(&[dynamic_secret(name, &json!({"ttl": "45s"}))])?;
    let account = world.until_ready(name)?;
    scale(world, 0)?;
    world.until_connected(0).await?;
    world
        .eventually("the Secret goes at its ttl", || async {
            let found = world.kubectl(&["get", "secret", &secret_of(name), "-n", SHOP, "--ignore-not-found"])?;
            Ok(found.trim().is_empty().then_some(()))
        })
        .await?;
    let session = world.postgres.connect("postgres").await?;
    world
        .eventually("the account cannot log in any more, by its own end", || async {
            let ask = "SELECT rolvaliduntil <= now() FROM pg_roles WHERE rolname = $1";
            let row = session.query_opt(ask, &[&account]).await?;
            let row = row.context("the account went although no engine was there")?;
            Ok(row.try_get::<_, bool>(0)?.then_some(()))
        })
        .await?;
    let start = Instant::now();
    scale(world, 1)?;
    world.until_role_is_gone(&account).await?;
    world.figure(
        "from scaling the engines back until the late account is gone",
        start.elapsed(),
    );
    world.until_connected(REPLICAS).await
}

/// Runs so many pods of each engine's Deployment, as somebody might by hand.
pub fn scale(world: &World, replicas: u32) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    world
        .kubectl(&["scale", "deployment", "-n", NAMESPACE, "-l", ENGINES, &replicas])
        .map(drop)
}
