//! HTTPS to one tenant: connections, limits of time and size, the pace, and what failures mean.

use super::Login;
use super::guard::{Guarded, ResolveError};
use crate::plan::sync::destination::Allowed;
use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a request may take altogether.
const REQUEST: Duration = Duration::from_secs(12);
/// Most bytes of an answer: a secret and its history fit many times.
const MAX_ANSWER: usize = 2 * 1024 * 1024;
/// Longest wait that a tenant is granted at once.
const MOST_PATIENCE: Duration = Duration::from_mins(15);
/// Patience where a tenant names none.
const PATIENCE: Duration = Duration::from_secs(10);
/// Idle connections that are kept.
const IDLE: usize = 4;

/// How a tenant is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Such as https://acme.secretsvaultcloud.com.
    pub url: String,
    /// PEM authorities besides the web's.
    pub ca_bundle: Option<String>,
    /// HTTP proxy.
    pub proxy: Option<String>,
    /// What the proxy wants to know.
    pub proxy_login: Option<Login>,
    /// Most requests in a minute.
    pub requests_per_minute: u32,
    /// Addresses that may be connected to besides public ones.
    pub allowed: Arc<Allowed>,
}

/// Why something was not done at a tenant. What the tenant said is never repeated: it may hold a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// URL, proxy or authorities cannot be used.
    #[error("{0}")]
    Settings(String),
    /// An address that nothing is pushed to.
    #[error(
        "{0} leads to an address of this cluster, this machine or a private network; ask whoever installed the operator to allow it with --sync-allow-destinations"
    )]
    Destination(String),
    /// No answer. Whether a write was done is not known.
    #[error("the tenant does not answer: {0}")]
    Unreachable(String),
    /// The tenant asks for patience.
    #[error("the tenant asks to wait (HTTP status 429)")]
    Patience(Duration),
    /// The tenant fails by itself.
    #[error("the tenant failed by itself (HTTP status {0})")]
    Failed(u16),
    /// The login is refused.
    #[error("the tenant refused the login; correct the client id and client secret in the credentials Secret")]
    Login,
    /// The proxy is the one that refuses.
    #[error(
        "the proxy on the way to the tenant wants a login, or refuses this one; put the fields proxy-username and proxy-password into the credentials Secret"
    )]
    ProxyLogin,
    /// The login lacks a right.
    #[error("the tenant's policies do not let this login {0} that path; grant it there")]
    Forbidden(&'static str),
    /// Refused for good.
    #[error("the tenant refused to {0} that path (HTTP status {1})")]
    Refused(&'static str, u16),
    /// Something else than DSV answered.
    #[error("what answers is no DSV tenant: {0}")]
    Foreign(&'static str),
}

impl PushError {
    /// Nobody answered: the next one need not try either.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Failed(_))
    }
}

/// What came back.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Waiting and failing are the same for every call.
    pub fn usual(self) -> Result<Self, PushError> {
        match self.status.as_u16() {
            429 => Err(PushError::Patience(patience(&self.headers))),
            status @ (408 | 500..=599) => Err(PushError::Failed(status)),
            _ => Ok(self),
        }
    }
}

fn patience(headers: &HeaderMap) -> Duration {
    let text = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = text.and_then(|text| text.trim().parse::<u64>().ok());
    seconds.map_or(PATIENCE, Duration::from_secs).min(MOST_PATIENCE)
}

enum Http {
    Direct(Client<HttpsConnector<HttpConnector<Guarded>>, Full<Bytes>>),
    Proxied(Client<HttpsConnector<Tunnel<HttpConnector<Guarded>>>, Full<Bytes>>),
}

/// One tenant's connections.
pub struct Transport {
    http: Http,
    base: String,
    host: String,
    guard: Guarded,
    /// When the next request may be sent.
    pace: tokio::sync::Mutex<Instant>,
    between: Duration,
}

impl Transport {
    /// Nothing is connected yet.
    pub fn new(settings: &Settings) -> Result<Self, PushError> {
        let base = settings.url.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|_| wrong_url())?;
        let host = uri.host().ok_or_else(wrong_url)?.to_owned();
        let is_root = uri.path() == "/" && uri.query().is_none();
        if uri.scheme_str() != Some("https") || !is_root || base.contains('@') {
            return Err(wrong_url());
        }
        let guard = Guarded::new(settings.allowed.clone());
        let tls = tls(settings.ca_bundle.as_deref())?;
        let mut direct = HttpConnector::new_with_resolver(guard.clone());
        direct.enforce_http(false);
        direct.set_nodelay(true);
        direct.set_connect_timeout(Some(CONNECT));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1();
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(IDLE);
        let http = match &settings.proxy {
            None => Http::Direct(builder.build(https.wrap_connector(direct))),
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy_uri(proxy, &guard)?, direct);
                if let Some(login) = &settings.proxy_login {
                    tunnel = tunnel.with_auth(basic(login)?);
                }
                Http::Proxied(builder.build(https.wrap_connector(tunnel)))
            }
        };
        Ok(Self {
            http,
            base,
            host,
            guard,
            pace: tokio::sync::Mutex::new(Instant::now()),
            between: Duration::from_mins(1) / settings.requests_per_minute.max(1),
        })
    }

    /// Sends one request.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, PushError> {
        self.in_turn().await;
        self.check_host().await?;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::USER_AGENT, concat!("dsv-operator/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|_| wrong_url())?;
        match tokio::time::timeout(REQUEST, self.exchange(request)).await {
            Ok(answered) => answered,
            Err(_) => Err(PushError::Unreachable(format!(
                "nothing came within {} s",
                REQUEST.as_secs()
            ))),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, PushError> {
        let sent = match &self.http {
            Http::Direct(client) => client.request(request).await,
            Http::Proxied(client) => client.request(request).await,
        };
        let (head, body) = sent.map_err(|error| self.judge(&error))?.into_parts();
        let read = Limited::new(body, MAX_ANSWER).collect().await;
        let body = read.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                PushError::Foreign("its answer is too long")
            } else {
                PushError::Unreachable("its answer ended early".to_owned())
            }
        })?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }

    /// Requests are sent at even distances where there are many.
    async fn in_turn(&self) {
        let mine = {
            let mut next = self.pace.lock().await;
            let mine = (*next).max(Instant::now());
            *next = mine + self.between;
            mine
        };
        tokio::time::sleep_until(mine).await;
    }

    /// A literal address is not resolved by anybody, and a proxy resolves names by itself.
    async fn check_host(&self) -> Result<(), PushError> {
        let refused = |error: ResolveError| self.refusal(&error);
        self.guard.check_literal(&self.host).map_err(refused)?;
        if matches!(self.http, Http::Proxied(_)) {
            match self.guard.resolve(&self.host).await {
                Err(error @ ResolveError::Refused(_)) => return Err(refused(error)),
                // Behind a proxy it is common that a name means nothing here.
                Ok(_) | Err(ResolveError::Unknown(..)) => {}
            }
        }
        Ok(())
    }

    fn refusal(&self, error: &ResolveError) -> PushError {
        match error {
            ResolveError::Refused(host) => PushError::Destination(host.clone()),
            ResolveError::Unknown(..) => PushError::Unreachable(format!("the name {} has no address", self.host)),
        }
    }

    fn judge(&self, error: &(dyn StdError + 'static)) -> PushError {
        let mut cause = Some(error);
        let mut last = String::new();
        while let Some(one) = cause {
            if let Some(resolved) = one.downcast_ref::<ResolveError>() {
                return self.refusal(resolved);
            }
            last = one.to_string();
            cause = one.source();
        }
        // The library keeps the kind of this error to itself and gives its text only.
        if last.contains("proxy authorization required") {
            return PushError::ProxyLogin;
        }
        // The innermost cause is of the network or of TLS, such as a refused connection.
        PushError::Unreachable(last.chars().take(200).collect())
    }
}

fn wrong_url() -> PushError {
    PushError::Settings("the URL of the tenant must be https://host or https://host:port".to_owned())
}

fn proxy_uri(proxy: &str, guard: &Guarded) -> Result<Uri, PushError> {
    let wrong = || PushError::Settings("proxy must be http://host:port".to_owned());
    let uri: Uri = proxy.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?;
    guard
        .check_literal(host)
        .map_err(|_| PushError::Destination(host.to_owned()))?;
    if uri.scheme_str() != Some("http") {
        return Err(wrong());
    }
    Ok(uri)
}

/// RFC 7617. A name with a colon would be read as another name.
fn basic(login: &Login) -> Result<HeaderValue, PushError> {
    let user = login.id.reveal();
    if user.contains(':') {
        return Err(PushError::Settings("proxy-username must not hold a colon".to_owned()));
    }
    let pair = Zeroizing::new(format!("{user}:{}", login.secret.reveal()));
    let value = Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes())));
    let wrong = |_| PushError::Settings("the proxy's login cannot be sent".to_owned());
    HeaderValue::from_str(&value).map_err(wrong)
}

fn tls(ca_bundle: Option<&str>) -> Result<ClientConfig, PushError> {
    let mut roots = RootCertStore::empty();
    // What cannot be read of the system's is left out; the rest is enough or the handshake says so.
    for certificate in rustls_native_certs::load_native_certs().certs {
        let _ = roots.add(certificate);
    }
    if let Some(bundle) = ca_bundle {
        let wrong = || PushError::Settings("caBundle must be certificates in PEM form".to_owned());
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(certificate.map_err(|_| wrong())?).map_err(|_| wrong())?;
            count += 1;
        }
        if count == 0 {
            return Err(wrong());
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|_| PushError::Settings("TLS cannot be set up".to_owned()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SecretText;

    fn settings(url: &str) -> Settings {
        Settings {
            url: url.to_owned(),
            ca_bundle: None,
            proxy: None,
            proxy_login: None,
            requests_per_minute: 600,
            allowed: Arc::new(Allowed::default()),
        }
    }

    #[tokio::test]
    async fn only_https_roots_are_tenants_and_closed_addresses_are_not_asked() {
        for wrong in [
            "http://a.example",
            "https://u:p@a.example",
            "https://a.example/x",
            "https://",
            "a",
        ] {
            assert!(Transport::new(&settings(wrong)).is_err(), "{wrong}");
        }
        for closed in [
            "https://127.0.0.1:1",
            "https://[::1]:1",
            "https://localhost:1",
            "https://10.0.0.1",
        ] {
            let transport = Transport::new(&settings(closed)).unwrap();
            let refused = transport.send(Method::GET, "/v1/heartbeat", None, None).await.err();
            assert!(
                matches!(refused, Some(PushError::Destination(_))),
                "{closed}: {refused:?}"
            );
        }
        let mut proxied = settings("https://a.example");
        proxied.proxy = Some("http://127.0.0.1:3128".into());
        assert!(matches!(
            Transport::new(&proxied).err(),
            Some(PushError::Destination(_))
        ));
    }

    #[test]
    fn a_proxy_is_told_the_login_as_rfc_7617_has_it() {
        let login = |id: &str, secret: &str| Login {
            id: SecretText::new(id),
            secret: SecretText::new(secret),
        };
        // The example of the RFC.
        let header = basic(&login("Aladdin", "open sesame")).unwrap();
        assert_eq!(header, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(basic(&login("a:b", "c")).is_err());
    }

    #[test]
    fn patience_has_a_limit() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(text));
            patience(&headers)
        };
        assert_eq!(of("3"), Duration::from_secs(3));
        assert_eq!(of("999999"), MOST_PATIENCE);
        assert_eq!(of("Fri, 31 Dec 1999 23:59:59 GMT"), PATIENCE);
        assert_eq!(patience(&HeaderMap::new()), PATIENCE);
    }
}
