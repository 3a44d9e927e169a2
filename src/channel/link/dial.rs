//! From an endpoint to a websocket: proxy, TCP, TLS, upgrade.

use super::endpoint::Endpoint;
use super::trust::OuterTrust;
use crate::channel::wire::{self, Socket};
use http::header::USER_AGENT;
use http::{HeaderValue, StatusCode, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tower_service::Service;

/// A machine that does not answer must not hold up the next endpoint for long.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// As much of an HTTP error's text as belongs in a log line.
const MAX_ANSWER: usize = 200;

/// Which connections go through an HTTP proxy.
#[derive(Debug)]
pub struct Proxies(Matcher);

impl Proxies {
    /// As `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say (also in lower case).
    pub fn from_env() -> Self {
        Self(Matcher::from_env())
    }

    /// One proxy for everything except a comma-separated list of hosts, domains and networks.
    pub fn new(https_proxy: &str, no_proxy: &str) -> Self {
        Self(
            Matcher::builder()
                .https(https_proxy.to_owned())
                .no(no_proxy.to_owned())
                .build(),
        )
    }

    /// No proxy at all.
    pub fn none() -> Self {
        Self::new("", "")
    }
}

/// An operator cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No TCP connection.
    #[error("no connection to {to}")]
    Connect {
        /// The endpoint.
        to: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The proxy.
    #[error("the proxy {proxy} gives no connection to {to}")]
    Proxy {
        /// The proxy, without its login.
        proxy: String,
        /// The endpoint.
        to: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A proxy of another kind.
    #[error("the proxy {proxy} is not of a kind that can be used; HTTPS_PROXY must be http://host:port")]
    ProxyKind {
        /// The proxy, without its login.
        proxy: String,
    },
    /// No TLS.
    #[error("no TLS connection to {to}")]
    Tls {
        /// The endpoint.
        to: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another answer than a websocket.
    #[error("{to} answered with HTTP status {status} instead of a websocket{}", said(.answer))]
    Http {
        /// The endpoint.
        to: String,
        /// The status.
        status: StatusCode,
        /// What it said.
        answer: String,
    },
    /// Something that is not HTTP.
    #[error("{to} is no websocket server")]
    Upgrade {
        /// The endpoint.
        to: String,
        /// Why not.
        #[source]
        source: Box<WsError>,
    },
    /// The host's name cannot stand in a TLS handshake or an HTTP request.
    #[error("{to} is no host name")]
    Name {
        /// The endpoint.
        to: String,
    },
}

fn said(answer: &str) -> String {
    if answer.is_empty() {
        String::new()
    } else {
        format!(": {answer}")
    }
}

pub(super) async fn dial(
    endpoint: &Endpoint,
    trust: &OuterTrust,
    proxies: &Proxies,
    agent: &str,
) -> Result<Socket, DialError> {
    let to = || endpoint.to_string();
    let stream = secured(endpoint, trust, proxies).await?;
    let mut request = endpoint
        .websocket()
        .into_client_request()
        .map_err(|_| DialError::Name { to: to() })?;
    if let Ok(agent) = HeaderValue::from_str(agent) {
        request.headers_mut().insert(USER_AGENT, agent);
    }
    match tokio_tungstenite::client_async_with_config(request, stream, Some(wire::config())).await {
        Ok((socket, _)) => Ok(Socket::of_tungstenite(socket)),
        Err(WsError::Http(response)) => {
            let answer = response.body().as_deref().map(readable).unwrap_or_default();
            Err(DialError::Http {
                to: to(),
                status: response.status(),
                answer,
            })
        }
        Err(source) => Err(DialError::Upgrade {
            to: to(),
            source: Box::new(source),
        }),
    }
}

/// A TLS connection to the endpoint, through a proxy where there is one.
pub async fn secured(
    endpoint: &Endpoint,
    trust: &OuterTrust,
    proxies: &Proxies,
) -> Result<TlsStream<TcpStream>, DialError> {
    let to = || endpoint.to_string();
    let name = ServerName::try_from(endpoint.host().to_owned()).map_err(|_| DialError::Name { to: to() })?;
    let stream = connect(endpoint, proxies).await?;
    let connector = TlsConnector::from(trust.config.clone());
    let secured = connector.connect(name, stream).await;
    secured.map_err(|source| DialError::Tls { to: to(), source })
}

async fn connect(endpoint: &Endpoint, proxies: &Proxies) -> Result<TcpStream, DialError> {
    let to = endpoint.to_string();
    let target = endpoint.https().ok_or_else(|| DialError::Name { to: to.clone() })?;
    let mut direct = HttpConnector::new();
    direct.enforce_http(false);
    direct.set_nodelay(true);
    direct.set_connect_timeout(Some(CONNECT_LIMIT));
    let Some(proxy) = proxies.0.intercept(&target) else {
        let connected = direct.call(target).await;
        return connected.map(TokioIo::into_inner).map_err(|source| DialError::Connect {
            to,
            source: source.into(),
        });
    };
    let shown = shown(proxy.uri());
    if proxy.uri().scheme_str() != Some("http") {
        return Err(DialError::ProxyKind { proxy: shown });
    }
    let mut tunnel = Tunnel::new(proxy.uri().clone(), direct);
    if let Some(login) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(login.clone());
    }
    let connected = tunnel.call(target).await;
    connected.map(TokioIo::into_inner).map_err(|source| DialError::Proxy {
        proxy: shown,
        to,
        source: source.into(),
    })
}

fn shown(proxy: &Uri) -> String {
    let port = proxy.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", proxy.host().unwrap_or("?"))
}

fn readable(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.chars()
        .take(MAX_ANSWER)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}
