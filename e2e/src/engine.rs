//! Processes of `dsv-engine`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::faults::wiring::Wiring;
use crate::health;
use crate::operator::loopback;
use crate::places;
use crate::ports;
use crate::process::Spec;
use crate::run_dir::RunDir;
use crate::service::Service;

const READY_LIMIT: Duration = Duration::from_mins(1);
const END_LIMIT: Duration = Duration::from_secs(15);

/// One agent. Dropping it kills it. Signals, log and process number come from [`Service`].
pub struct Engine {
    service: Service,
    health: SocketAddr,
    _run: Arc<RunDir>,
}

impl Deref for Engine {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl Engine {
    /// Starts one with the environment of its registration Secret, and where faults are tested with what that needs; does not
    /// wait.
    pub fn start(
        run: &Arc<RunDir>,
        name: &str,
        registration: &BTreeMap<String, String>,
        wiring: Option<&Wiring>,
    ) -> Result<Self> {
        let dir = run.subfolder(name)?;
        let health = loopback(ports::free()?);
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info,dsv=debug".to_owned());
        let program = match wiring {
            Some(wiring) => wiring.program("dsv-engine"),
            None => places::own_program("dsv-engine")?,
        };
        let mut spec = Spec::new(name, program, &dir)
            .args(["run", "--health-addr", &health.to_string()])
            .env("RUST_LOG", filter);
        for (key, value) in registration {
            spec = spec.env(key, value);
        }
        if let Some(wiring) = wiring {
            spec.env.extend(wiring.environment("engines"));
        }
        let engine = Self {
            service: Service::new(spec),
            health,
            _run: Arc::clone(run),
        };
        engine.launch()?;
        Ok(engine)
    }

    /// Waits until it is connected to the operator.
    pub async fn wait_ready(&self) -> Result<()> {
        health::wait_ready(&self.service, self.health, READY_LIMIT).await
    }

    /// Ends it in good order.
    pub fn stop(&self) -> bool {
        self.end(Signal::SIGTERM, END_LIMIT)
    }

    /// Starts it again under the same key, after `stop` or `kill9`.
    pub async fn restart(&self) -> Result<()> {
        self.launch()?;
        self.wait_ready().await
    }

    /// Where `/readyz`, `/livez` and `/metrics` are.
    pub fn health(&self) -> SocketAddr {
        self.health
    }
}
