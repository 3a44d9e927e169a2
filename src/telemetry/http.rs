//! `/livez`, `/readyz` and `/metrics` on an address of their own, without authentication and without secrets.

use super::liveness::Beats;
use super::metrics;
use super::readiness::Readiness;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What the pages show.
#[derive(Clone)]
pub struct Health {
    /// Signs of life.
    pub beats: Beats,
    /// The table of parts.
    pub readiness: Readiness,
    /// Everything that is counted.
    pub registry: Arc<Registry>,
}

/// The health pages could not be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("cannot listen on {address} for health and metrics; choose a free address of this machine")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Serving ended.
    #[error("the health pages are not served any more")]
    Serve(#[source] std::io::Error),
}

/// Binds the address; done apart from serving, so that a program can fail before it starts anything else.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| Error::Listen { address, source })
}

/// Serves until the token is cancelled.
pub async fn serve(listener: TcpListener, health: Health, token: CancellationToken) -> Result<(), Error> {
    axum::serve(listener, router(health))
        .with_graceful_shutdown(token.cancelled_owned())
        .await
        .map_err(Error::Serve)
}

/// The pages.
pub fn router(health: Health) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(health)
}

async fn livez(State(health): State<Health>) -> Response {
    let stalled = health.beats.stalled();
    let line = |stalled: &super::liveness::Stalled| {
        format!(
            "{}: has worked on one object for {} s",
            stalled.name,
            stalled.since.as_secs()
        )
    };
    answer(&stalled.iter().map(line).collect::<Vec<_>>())
}

async fn readyz(State(health): State<Health>) -> Response {
    let missing = health.readiness.missing();
    let lines: Vec<_> = missing.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    answer(&lines)
}

fn answer(faults: &[String]) -> Response {
    if faults.is_empty() {
        return "ok\n".into_response();
    }
    let mut text = faults.join("\n");
    text.push('\n');
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics_text(State(health): State<Health>) -> Response {
    match metrics::text(&health.registry) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn page(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn the_pages_say_what_is_wrong_and_nothing_when_all_is_well() {
        let mut registry = metrics::registry();
        let counted = metrics::Metrics::new(&mut registry);
        counted.leading(true);
        let health = Health {
            beats: Beats::default(),
            readiness: Readiness::default(),
            registry: Arc::new(registry),
        };
        let (hub, beat) = (
            health.readiness.register("hub"),
            health.beats.register("leases", Duration::ZERO),
        );
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let token = CancellationToken::new();
        let server = tokio::spawn(serve(listener, health, token.clone()));

        let unready = page(address, "/readyz").await;
        assert!(
            unready.starts_with("HTTP/1.1 503") && unready.ends_with("hub: not started yet\n"),
            "{unready}"
        );
        hub.ready();
        assert!(page(address, "/readyz").await.ends_with("\r\n\r\nok\n"));

        assert!(page(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let busy = beat.busy();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let stalled = page(address, "/livez").await;
        assert!(
            stalled.starts_with("HTTP/1.1 503") && stalled.contains("leases: has worked"),
            "{stalled}"
        );
        drop(busy);
        assert!(page(address, "/livez").await.starts_with("HTTP/1.1 200"));

        let text = page(address, "/metrics").await;
        assert!(text.contains("content-type: application/openmetrics-text"), "{text}");
        assert!(text.contains("\ndsv_leader 1\n"), "{text}");
        assert!(page(address, "/").await.starts_with("HTTP/1.1 404"));

        token.cancel();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_taken_address_is_named() {
        let taken = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address).await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
    }
}
