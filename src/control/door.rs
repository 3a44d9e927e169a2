//! The way in for engines: open while this process leads.

use super::run::Channel;
use crate::channel::listener::{self, ServeLimits, TlsListener};
use axum::response::IntoResponse;
use http::StatusCode;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Leads to the hub while it is open; otherwise to a 503 with a sentence.
#[derive(Clone, Default)]
pub struct Door(Arc<RwLock<Option<axum::Router>>>);

impl Door {
    /// Lets engines in.
    pub fn open(&self, router: axum::Router) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(router);
    }

    /// Lets nobody in any more. Sessions that are open are the hub's to close.
    pub fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn router(&self) -> Option<axum::Router> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves until `token` is cancelled.
    pub async fn serve(
        self,
        listener: TcpListener,
        channel: Channel,
        token: CancellationToken,
    ) -> Result<(), std::io::Error> {
        let tls = TlsListener::new(listener, move || channel.tls.clone())?;
        let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
            let router = self.router();
            async move {
                match router {
                    Some(router) => router.oneshot(request).await.into_response(),
                    None => (
                        StatusCode::SERVICE_UNAVAILABLE,
                        "this replica does not lead; dial the next endpoint, or again in a moment\n",
                    )
                        .into_response(),
                }
            }
        });
        listener::serve(tls, app, ServeLimits::default(), token).await;
        Ok(())
    }
}
