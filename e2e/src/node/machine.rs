//! The running node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::inside::ADDRESS;
use super::joining::NAME;
use super::parts::{Parts, SOCKET};
use crate::cluster::Cluster;
use crate::control_plane::ControlPlane;
use crate::places;
use crate::programs::{self, Node};
use crate::run_dir::RunDir;
use crate::say::say;
use crate::service::Service;

const POLL: Duration = Duration::from_millis(100);
const READY_LIMIT: Duration = Duration::from_mins(2);

/// A control plane with one node.
pub struct Machine {
    // In the order in which they end.
    pub kubelet: Service,
    pub scheduler: Service,
    pub proxy: Service,
    pub dns: Service,
    pub containerd: Service,
    pub cluster: Cluster,
    pub programs: Node,
    pub run: Arc<RunDir>,
    images: PathBuf,
}

impl Machine {
    /// Starts all of it. `images` is the folder with the image layouts.
    pub async fn start(images: &Path) -> Result<Self> {
        let run = RunDir::of_this_process()?;
        let programs = programs::node()?;
        say("starting the control plane");
        let plane = ControlPlane::start_for(Arc::clone(&run), Some(ADDRESS)).await?;
        let dir = run.subfolder("node")?;
        let parts = Parts {
            programs: &programs,
            plane: plane.dir(),
            dir: &dir,
        };
        let machine = Self {
            kubelet: Service::new(parts.kubelet()?),
            scheduler: Service::new(parts.scheduler()),
            proxy: Service::new(parts.proxy()?),
            dns: Service::new(parts.dns()?),
            containerd: Service::new(parts.containerd()?),
            cluster: Cluster::own(plane),
            programs,
            run,
            images: images.to_owned(),
        };
        say("starting the node");
        fs::create_dir_all("/run/dsv")?;
        machine.containerd.launch()?;
        machine.import()?;
        for service in [&machine.kubelet, &machine.scheduler, &machine.proxy, &machine.dns] {
            service.launch()?;
        }
        machine.wait_ready().await?;
        Ok(machine)
    }

    /// Puts the images where containerd finds them.
    fn import(&self) -> Result<()> {
        wait_until(READY_LIMIT, "containerd answers", || {
            self.containerd.check()?;
            ctr(&["version"])
        })?;
        for entry in fs::read_dir(&self.images)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tar") {
                ctr(&["images", "import", &path.display().to_string()])?;
            }
        }
        Ok(())
    }

    async fn wait_ready(&self) -> Result<()> {
        let start = Instant::now();
        let ready = r#"-o=jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        while self.cluster.kubectl(&["get", "node", NAME, ready]).ok().as_deref() != Some("True") {
            for service in self.services() {
                service.check()?;
            }
            if start.elapsed() > READY_LIMIT {
                bail!(
                    "the node is not ready after {READY_LIMIT:?}; the end of kubelet's log:\n{}",
                    self.kubelet.log_tail(40)
                );
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    pub fn services(&self) -> [&Service; 5] {
        [&self.containerd, &self.kubelet, &self.scheduler, &self.proxy, &self.dns]
    }

    /// Ends containerd and starts it again; pods live on without it.
    pub fn restart_containerd(&self) -> Result<()> {
        self.containerd.end(Signal::SIGTERM, Duration::from_secs(10));
        self.containerd.launch()?;
        wait_until(READY_LIMIT, "containerd answers", || ctr(&["version"]))
    }

    /// Runs helm as the administrator.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(self.programs.helm())
            .args(arguments)
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("HELM_CACHE_HOME", self.run.path().join("helm"))
            .env("HELM_CONFIG_HOME", self.run.path().join("helm"))
            .env("HELM_DATA_HOME", self.run.path().join("helm"))
            .current_dir(places::workspace())
            .output()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            bail!("`helm {}` failed: {}", arguments.join(" "), why.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn ctr(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ctr")
        .args(["--address", SOCKET, "--namespace", "k8s.io"])
        .args(arguments)
        .output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("`ctr {}` failed: {}", arguments.join(" "), why.trim());
    }
    Ok(())
}

fn wait_until(limit: Duration, what: &str, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    loop {
        match check() {
            Ok(()) => return Ok(()),
            Err(error) if start.elapsed() > limit => {
                return Err(error.context(format!("waited {limit:?} for this: {what}")));
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}
