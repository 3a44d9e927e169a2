//! The operator process: health pages, leadership, and the plant that works while leading.

use super::context::Settings;
use super::run::{Channel, Plant, RunError};
use crate::channel::hub::HubMetrics;
use crate::cluster::leadership::Leadership;
use crate::telemetry::api_writes;
use crate::telemetry::http::{self as pages, Health};
use crate::telemetry::liveness::Beats;
use crate::telemetry::metrics::{self, Metrics};
use crate::telemetry::readiness::Readiness;
use futures::future::BoxFuture;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tower::util::MapRequestLayer;

/// How long one read from the API server may be silent. Watches send bookmarks more often than this.
const READ_TIMEOUT: Duration = Duration::from_secs(330);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Something else that the process serves, whether it leads or not, with the same client; its end is the process's.
pub type Beside = Box<dyn FnOnce(Client, CancellationToken) -> BoxFuture<'static, Result<(), BoxedError>> + Send>;

/// Any error, with its causes.
pub type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// One operator process.
pub struct Operator {
    /// Name of this replica.
    pub identity: String,
    /// What the installer decided.
    pub settings: Settings,
    /// Where engines are listened for.
    pub channel: Channel,
    /// Where health is served.
    pub health: SocketAddr,
    /// What else is served.
    pub beside: Option<Beside>,
}

/// Why the operator could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Health pages.
    #[error("could not serve the health pages")]
    Health(#[from] pages::Error),
    /// Where the API server is.
    #[error("could not find the API server; set KUBECONFIG or run in a cluster")]
    Config(#[from] kube::config::InferConfigError),
    /// The client.
    #[error("could not set up the client for the API server")]
    Client(#[source] Box<kube::Error>),
    /// The work itself.
    #[error("the operator stopped")]
    Run(#[from] RunError),
    /// What is served beside it.
    #[error("the operator stopped, since what it serves besides ended")]
    Beside(#[source] BoxedError),
}

impl Operator {
    /// Runs until `token` is cancelled, then hands leadership over.
    pub async fn run(self, token: CancellationToken) -> Result<(), OperatorError> {
        let mut registry = metrics::registry();
        let (metrics, hub_metrics) = (Metrics::new(&mut registry), HubMetrics::default());
        hub_metrics.register(&mut registry);
        let (beats, readiness) = (Beats::default(), Readiness::default());
        let api_server = readiness.register("api server");
        let health = Health {
            beats: beats.clone(),
            readiness: readiness.clone(),
            registry: Arc::new(registry),
        };
        let listener = pages::bind(self.health).await?;
        tokio::spawn(pages::serve(listener, health, token.clone()));
        let client = client(&metrics).await?;
        wait_for_api_server(&client, &api_server, &token).await;
        let identity = unique(&self.identity);
        let leadership = Leadership::start(client.clone(), &self.settings.home, &identity, token.clone());
        let beside = self.beside.map(|beside| beside(client.clone(), token.clone()));
        let plant = Plant::new(client, self.settings, (metrics, hub_metrics), &beats, &readiness);
        let plant = plant.run(leadership.watch(), leadership.handle(), self.channel, token.clone());
        let ended = Box::pin(together(plant, beside, &token)).await;
        token.cancel();
        leadership.ended().await;
        ended
    }
}

/// Runs both until one fails or both are told to stop.
async fn together(
    plant: impl Future<Output = Result<(), RunError>>,
    beside: Option<BoxFuture<'static, Result<(), BoxedError>>>,
    token: &CancellationToken,
) -> Result<(), OperatorError> {
    let beside = async {
        if let Some(beside) = beside {
            return beside.await;
        }
        token.cancelled().await;
        Ok(())
    };
    let plant = async { plant.await.map_err(OperatorError::from) };
    let beside = async { beside.await.map_err(OperatorError::Beside) };
    // Boxed: the whole plant is in it.
    Box::pin(async { futures::try_join!(plant, beside).map(|_| ()) }).await
}

/// Two starts of one replica are two holders: only the start that made a password ever had it.
fn unique(identity: &str) -> String {
    let start: u32 = rand::random();
    format!("{identity}_{start:08x}")
}

async fn client(metrics: &Metrics) -> Result<Client, OperatorError> {
    let mut config = Config::infer().await?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    let builder = ClientBuilder::try_from(config).map_err(|error| OperatorError::Client(Box::new(error)))?;
    let metrics = metrics.clone();
    let counted = MapRequestLayer::new(move |request: http::Request<Body>| {
        if let Some((kind, verb)) = api_writes::classify(request.method(), request.uri().path()) {
            metrics.api_write(kind, verb);
        }
        request
    });
    Ok(builder.with_layer(&counted).build())
}

async fn wait_for_api_server(client: &Client, part: &crate::telemetry::readiness::Part, token: &CancellationToken) {
    loop {
        match client.apiserver_version().await {
            Ok(version) => {
                tracing::info!(version = version.git_version, "the API server answers");
                part.ready();
                return;
            }
            Err(error) => {
                part.missing("the API server does not answer");
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the API server does not answer; trying again"
                );
            }
        }
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}
