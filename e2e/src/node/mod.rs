//! A real node: kubelet, containerd, kube-proxy and DNS, in namespaces of their own on this machine. Images are made,
//! the chart is installed, and pods mount Secrets and log in.
//!
//! It needs root and some packages; everything else of this crate does without.

pub mod inside;
pub mod joining;
mod machine;
mod needs;
mod parts;
mod scenarios;
mod world;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::run_dir::RunDir;
use crate::say::say;
use crate::{image, programs};
use world::World;

/// The command that is run inside of the namespaces.
pub const INSIDE: &str = "e2e-inside";

/// Whether this machine can run a node; an error says in a sentence what it lacks.
pub fn can_run() -> Result<()> {
    needs::check()
}

/// Builds what is needed and runs all scenarios. An error if one fails.
pub fn run() -> Result<()> {
    needs::check()?;
    programs::cluster()?;
    programs::node()?;
    say("building the images");
    let images = image::make_all()?;
    let folder = images.first().and_then(|image| image.file.parent());
    let folder = folder.map(|folder| folder.display().to_string()).unwrap_or_default();
    let status = inside::enter(&[INSIDE.to_owned(), folder])?;
    // What swept the folder of the run in there ended with the rest; a new run sweeps what dead ones left.
    drop(RunDir::fresh()?);
    if !status.success() {
        bail!("not all scenarios on the node passed ({status})");
    }
    Ok(())
}

/// The part that runs inside.
pub async fn run_inside(images: &Path) -> Result<()> {
    inside::furnish()?;
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    // The first process of its namespace ends by no signal that it does not listen to.
    tokio::select! {
        done = scenarios_on_a_node(images) => done,
        _ = stop.recv() => bail!("stopped"),
        _ = tokio::signal::ctrl_c() => bail!("stopped"),
    }
}

async fn scenarios_on_a_node(images: &Path) -> Result<()> {
    let start = Instant::now();
    let world = World::start(images).await?;
    world.figure("from nothing until the node is ready", start.elapsed());
    let passed = scenarios::run(&world).await?;
    let figures = world.figures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    say("what was measured:");
    for figure in figures.iter() {
        say(format!("  {figure}"));
    }
    say(format!(
        "{passed} passed, 0 failed: scenarios on a node, in {} s",
        start.elapsed().as_secs()
    ));
    Ok(())
}
