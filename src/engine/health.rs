//! `/livez`, `/readyz` and `/metrics`, for whoever runs the engine.

use super::metrics::EngineMetrics;
use crate::channel::link::LinkStatus;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::sync::watch;

#[derive(Clone)]
struct Health {
    link: watch::Receiver<LinkStatus>,
    metrics: EngineMetrics,
}

/// Live as long as it answers; ready while there is a session with the operator.
pub fn router(link: watch::Receiver<LinkStatus>, metrics: EngineMetrics) -> Router {
    Router::new()
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(Health { link, metrics })
}

async fn ready(State(health): State<Health>) -> Response {
    let link = health.link.borrow().clone();
    match (link.connected, link.last_failure) {
        (Some(connected), _) => format!("connected to {}", connected.endpoint).into_response(),
        (None, Some(failure)) => (StatusCode::SERVICE_UNAVAILABLE, format!("not connected: {failure}")).into_response(),
        (None, None) => (StatusCode::SERVICE_UNAVAILABLE, "not connected yet").into_response(),
    }
}

async fn metrics_text(State(health): State<Health>) -> Response {
    let link = health.link.borrow().clone();
    match health.metrics.text(&link) {
        Ok(text) => (
            [(
                CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
