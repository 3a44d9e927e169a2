//! The engine's life: link, health and housekeeping side by side, until a signal.

use super::accounts::Accounts;
use super::config::Settings;
use super::dead_man;
use super::dispatch::Dispatcher;
use super::health;
use super::metrics::EngineMetrics;
use crate::channel::Timing;
use crate::channel::link::{Link, LinkOptions, OuterTrust, Proxies, TrustError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

const TIDY_EVERY: Duration = Duration::from_mins(1);
/// An administrative login that was not needed for this long is forgotten; the next task brings it along again.
const FORGET_AFTER: Duration = Duration::from_mins(2);

/// The engine cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The outer connection's certificates.
    #[error("the engine cannot set up TLS")]
    Trust(#[source] TrustError),
    /// The health address.
    #[error("the engine cannot listen on {address} for health and metrics")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Signals.
    #[error("the engine cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT, then finishes what it works on.
pub async fn run<A: Accounts>(settings: Settings, accounts: A) -> Result<(), RunError> {
    let trust = OuterTrust::new(settings.ca_file.as_deref(), settings.require_trusted_tls).map_err(RunError::Trust)?;
    let (accounts, metrics) = (Arc::new(accounts), EngineMetrics::default());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        engine = settings.engine_name,
        namespace = settings.key.namespace(),
        public_key = %settings.key.public(),
        "engine starts"
    );
    let options = LinkOptions {
        endpoints: settings.endpoints,
        name: settings.engine_name,
        key: settings.key,
        trust,
        proxies: Proxies::from_env(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        timing: Timing::default(),
    };
    let link = Link::new(options, Dispatcher::new(accounts.clone(), metrics.clone()));
    let (stop, counts) = (CancellationToken::new(), metrics.clone());
    let watching = watch_signals(stop.clone())?;
    let health = match settings.health_addr {
        Some(address) => Some(serve_health(address, &link, metrics.clone()).await?),
        None => None,
    };
    let guarding = tokio::spawn(dead_man::stand_by(accounts.clone(), link.status(), metrics));
    let tidying = tokio::spawn(tidy(accounts.clone()));
    let sweeping = tokio::spawn(sweep(accounts, settings.sweep_every, counts));
    link.run(stop).await;
    for task in [Some(watching), Some(tidying), Some(guarding), Some(sweeping), health]
        .into_iter()
        .flatten()
    {
        task.abort();
    }
    tracing::info!("engine stopped");
    Ok(())
}

fn watch_signals(stop: CancellationToken) -> Result<tokio::task::JoinHandle<()>, RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("engine was asked to stop; it finishes what it works on");
        stop.cancel();
    }))
}

async fn serve_health<A: Accounts>(
    address: SocketAddr,
    link: &Link<Dispatcher<A>>,
    metrics: EngineMetrics,
) -> Result<tokio::task::JoinHandle<()>, RunError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen { address, source })?;
    let router = health::router(link.status(), metrics);
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "health and metrics are not served any more"
            );
        }
    }))
}

async fn tidy<A: Accounts>(accounts: Arc<A>) {
    let mut tick = interval(TIDY_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        accounts.forget_idle(FORGET_AFTER);
    }
}

/// Looks for sessions that outlived their account, whether or not the operator can be reached.
async fn sweep<A: Accounts>(accounts: Arc<A>, every: Duration, metrics: EngineMetrics) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let ended = accounts.end_zombies().await;
        metrics.zombies_ended(ended);
    }
}
