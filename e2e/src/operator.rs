//! Processes of `dsv-operator`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::cluster::Cluster;
use crate::faults::wiring::Wiring;
use crate::health;
use crate::image::OPERATOR_ENV;
use crate::install::{NAMESPACE, SERVICE_ACCOUNT};
use crate::places;
use crate::ports;
use crate::process::Spec;
use crate::run_dir::RunDir;
use crate::service::Service;

/// Name of the installation under test.
pub const RELEASE: &str = "dsv";
const READY_LIMIT: Duration = Duration::from_mins(1);
const END_LIMIT: Duration = Duration::from_secs(15);

/// What operators of a stack have in common.
pub struct Outfit<'a> {
    pub replicas: usize,
    /// Further arguments.
    pub args: &'a [String],
    /// A log filter other than the usual one.
    pub log: Option<&'a str>,
    /// Where their faults are tested: what stands between them and everything else.
    pub wiring: Option<&'a Wiring>,
}

/// One replica. Dropping it kills it. Signals, log and process number come from [`Service`].
pub struct Operator {
    service: Service,
    health: SocketAddr,
    channel: SocketAddr,
    run: Arc<RunDir>,
}

impl Deref for Operator {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl Operator {
    /// Starts `outfit.replicas` of them for one installation; all are ready, one of them leads.
    pub async fn start_all(run: &Arc<RunDir>, cluster: &Cluster, outfit: &Outfit<'_>) -> Result<Vec<Self>> {
        let (mut channels, mut endpoints) = (Vec::new(), Vec::new());
        for _ in 0..outfit.replicas {
            let channel = loopback(ports::free()?);
            channels.push(channel);
            endpoints.push(match outfit.wiring {
                Some(wiring) => wiring.before_channel(channel).await?.to_string(),
                None => channel.to_string(),
            });
        }
        let endpoint = endpoints.join(",");
        let mut operators = Vec::new();
        for (number, channel) in channels.into_iter().enumerate() {
            let identity = format!("op-{}", number + 1);
            let dir = run.subfolder(&identity)?;
            let kubeconfig = dir.join("kubeconfig");
            let api = match outfit.wiring {
                Some(wiring) => wiring.before_api(cluster.endpoint()).await?,
                None => cluster.endpoint().clone(),
            };
            cluster
                .service_account_kubeconfig((NAMESPACE, SERVICE_ACCOUNT), &api, &kubeconfig)
                .await?;
            let health = loopback(ports::free()?);
            let mut spec = spec(&dir, &identity, channel, health, &endpoint)?.args(outfit.args);
            if let Some(filter) = outfit.log {
                spec = spec.env("RUST_LOG", filter);
            }
            if let Some(wiring) = outfit.wiring {
                spec.program = wiring.program("dsv-operator");
                spec.env.extend(wiring.environment(&identity));
            }
            let operator = Self {
                service: Service::new(spec),
                health,
                channel,
                run: Arc::clone(run),
            };
            operator.launch()?;
            operators.push(operator);
        }
        for operator in &operators {
            operator.wait_ready().await?;
        }
        Ok(operators)
    }

    /// One more replica of an installation that runs already, with further arguments.
    pub async fn start_another(run: &Arc<RunDir>, cluster: &Cluster, identity: &str, args: &[String]) -> Result<Self> {
        let channel = loopback(ports::free()?);
        let dir = run.subfolder(identity)?;
        let kubeconfig = dir.join("kubeconfig");
        cluster
            .service_account_kubeconfig((NAMESPACE, SERVICE_ACCOUNT), cluster.endpoint(), &kubeconfig)
            .await?;
        let health = loopback(ports::free()?);
        let spec = spec(&dir, identity, channel, health, &channel.to_string())?.args(args);
        let operator = Self {
            service: Service::new(spec),
            health,
            channel,
            run: Arc::clone(run),
        };
        operator.launch()?;
        operator.wait_ready().await?;
        Ok(operator)
    }

    /// The same replica at the same addresses with further arguments, after `stop`.
    pub async fn restart_with(&self, args: &[String]) -> Result<Self> {
        let operator = Self {
            service: self.service.with(args),
            health: self.health,
            channel: self.channel,
            run: Arc::clone(&self.run),
        };
        operator.restart().await?;
        Ok(operator)
    }

    pub async fn wait_ready(&self) -> Result<()> {
        health::wait_ready(&self.service, self.health, READY_LIMIT).await
    }

    /// Ends it in good order: it gives leadership back.
    pub fn stop(&self) -> bool {
        self.end(Signal::SIGTERM, END_LIMIT)
    }

    /// Starts it again under the same identity and addresses, after `stop` or `kill9`.
    pub async fn restart(&self) -> Result<()> {
        self.launch()?;
        self.wait_ready().await
    }

    /// Where engines connect.
    pub fn channel(&self) -> SocketAddr {
        self.channel
    }

    /// Where `/readyz`, `/livez` and `/metrics` are.
    pub fn health(&self) -> SocketAddr {
        self.health
    }

    /// Where it serves the REST API, as its log says.
    pub fn api(&self) -> Result<SocketAddr> {
        let log = self.log_text();
        let line = log.lines().find(|line| line.contains("the API listens"));
        let line = line.context("the operator does not say where its API listens")?;
        let rest = line.split("address=").nth(1).context("the line has no address")?;
        let word = rest.split_whitespace().next().unwrap_or_default();
        Ok(word.parse()?)
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> Result<String> {
        Ok(health::get(self.health, "/metrics").await?.1)
    }
}

fn spec(dir: &Path, identity: &str, channel: SocketAddr, health: SocketAddr, endpoint: &str) -> Result<Spec> {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info,dsv=debug".to_owned());
    // No home folder of ours: only the kubeconfig given here may count.
    fs::create_dir(dir.join("home"))?;
    let home = dir.join("home").to_string_lossy().into_owned();
    let mut spec = Spec::new(identity, places::own_program("dsv-operator")?, dir);
    for (name, value) in OPERATOR_ENV {
        spec = spec.env(name, *value);
    }
    Ok(spec
        .args([
            "run",
            "--namespace",
            NAMESPACE,
            "--release",
            RELEASE,
            "--identity",
            identity,
            "--log-format",
            "text",
        ])
        .args([
            "--channel-addr",
            &channel.to_string(),
            "--health-addr",
            &health.to_string(),
            "--engine-endpoint",
            endpoint,
        ])
        .env("KUBECONFIG", dir.join("kubeconfig").to_string_lossy())
        .env("HOME", home)
        .env("RUST_LOG", filter))
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
