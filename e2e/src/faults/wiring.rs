//! What stands between the programs of a stack whose faults are tested: a proxy before each operator's API server, a relay
//! before each operator's channel and one before PostgreSQL, and the places at which the programs can be held.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};

use super::api_proxy::ApiProxy;
use super::failpoints::Failpoints;
use super::relay::Relay;
use crate::kubeconfig::Endpoint;
use crate::places;
use crate::run_dir::RunDir;

/// Folder, below cargo's output folder, of the programs that were built with the feature `failpoints`.
const FOLDER: &str = "faults";

/// Everything that can be made to fail, from the outside.
pub struct Wiring {
    pub failpoints: Failpoints,
    clock: PathBuf,
    programs: PathBuf,
    api: Mutex<Vec<Arc<ApiProxy>>>,
    channel: Mutex<Vec<Arc<Relay>>>,
    database: Relay,
}

impl Wiring {
    /// Between nothing yet but PostgreSQL.
    pub async fn new(run: &RunDir, postgres: u16) -> Result<Self> {
        let folder = run.subfolder("failpoints")?;
        let programs = programs()?;
        Ok(Self {
            clock: folder.with_extension("clock"),
            failpoints: Failpoints::new(folder),
            programs,
            api: Mutex::default(),
            channel: Mutex::default(),
            database: Relay::start(SocketAddr::from((Ipv4Addr::LOCALHOST, postgres))).await?,
        })
    }

    /// A new proxy before the API server, for the next operator.
    pub async fn before_api(&self, endpoint: &Endpoint) -> Result<Endpoint> {
        let proxy = ApiProxy::start(endpoint).await?;
        let ours = proxy.endpoint().clone();
        lock(&self.api).push(Arc::new(proxy));
        Ok(ours)
    }

    /// A new relay before an operator's channel.
    pub async fn before_channel(&self, operator: SocketAddr) -> Result<SocketAddr> {
        let relay = Relay::start(operator).await?;
        let address = relay.address();
        lock(&self.channel).push(Arc::new(relay));
        Ok(address)
    }

    /// The proxies before the API server, one for each operator in their order.
    pub fn api(&self) -> Vec<Arc<ApiProxy>> {
        lock(&self.api).clone()
    }

    /// The relays before the operators' channels.
    pub fn channel(&self) -> Vec<Arc<Relay>> {
        lock(&self.channel).clone()
    }

    /// The relay before PostgreSQL.
    pub fn database(&self) -> &Relay {
        &self.database
    }

    /// A program with failpoints in it.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// What the environment of a program needs. `clock` names whose clock it has.
    pub fn environment(&self, clock: &str) -> [(String, String); 2] {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        [
            ("DSV_FAILPOINTS".to_owned(), text(self.failpoints.folder())),
            ("DSV_CLOCK".to_owned(), text(&self.clock_file(clock))),
        ]
    }

    fn clock_file(&self, clock: &str) -> PathBuf {
        self.clock.with_extension(format!("clock-{clock}"))
    }

    /// Sets a clock forward or back from what this machine's says.
    pub fn shift_clock(&self, clock: &str, seconds: i64) -> Result<()> {
        Ok(std::fs::write(self.clock_file(clock), seconds.to_string())?)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the programs with failpoints lie, which `make faults-programs` makes.
fn programs() -> Result<PathBuf> {
    let folder = places::target_dir()?.join(FOLDER);
    for name in ["dsv-operator", "dsv-engine"] {
        if !folder.join(name).is_file() {
            bail!(
                "{} is not built: run `make faults-programs`",
                folder.join(name).display()
            );
        }
    }
    Ok(folder)
}
