//! A proxy in front of the real API server that loses, refuses, delays and interrupts as it is told.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::api_rules::{Answer, Rule, Rules, is_watch, refusal};
use crate::certificates::Authority;
use crate::kubeconfig::Endpoint;

type Body = UnsyncBoxBody<Bytes, anyhow::Error>;

/// How the whole connection behaves, rules aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// As it should.
    Up,
    /// Nobody answers: connections are ended as they come.
    Down,
    /// Events of watches come this much later. Everything else is as it should.
    Stale(Duration),
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    line: Line,
    /// Connections of an older generation end.
    generation: u64,
}

/// A proxy to one API server. Dropping it ends it.
pub struct ApiProxy {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    upstream: SocketAddr,
    connector: TlsConnector,
    rules: Mutex<Rules>,
    state: watch::Sender<State>,
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ApiProxy {
    /// Listens on loopback, in front of the API server of `endpoint`.
    pub async fn start(endpoint: &Endpoint) -> Result<Self> {
        let address = endpoint.url.trim_start_matches("https://").trim_end_matches('/');
        let authority = Authority::new("dsv-e2e-api-proxy")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let ours = Endpoint {
            url: format!("https://{}", listener.local_addr()?),
            authority: authority.pem().to_owned(),
        };
        let shared = Arc::new(Shared {
            upstream: address
                .parse()
                .with_context(|| format!("{address} is no address and port"))?,
            connector: connector(&endpoint.authority)?,
            rules: Mutex::default(),
            state: watch::Sender::new(State {
                line: Line::Up,
                generation: 0,
            }),
        });
        let acceptor = acceptor(&authority)?;
        let accepting = tokio::spawn(accept(listener, acceptor, shared.clone()));
        Ok(Self {
            endpoint: ours,
            shared,
            accepting,
        })
    }

    /// What a kubeconfig needs to go through here.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Adds a rule; the first one that fits a request counts.
    pub fn rule(&self, rule: Rule) {
        self.shared.rules().add(rule);
    }

    /// How many requests met a rule since the last clearing.
    pub fn met(&self) -> u64 {
        self.shared.rules().met
    }

    /// From now on no rule, and the line is up.
    pub fn clear(&self) {
        *self.shared.rules() = Rules::default();
        self.behave(Line::Up);
    }

    pub fn behave(&self, line: Line) {
        self.shared.state.send_modify(|state| {
            state.line = line;
            if line == Line::Down {
                state.generation += 1;
            }
        });
    }

    /// Ends all connections, watches among them.
    pub fn cut(&self) {
        self.shared.state.send_modify(|state| state.generation += 1);
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

fn acceptor(authority: &Authority) -> Result<TlsAcceptor> {
    let signed = authority.server("api-proxy", &[], &[])?;
    let certificate = CertificateDer::from_pem_slice(signed.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn connector(authority: &str) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        if shared.state.borrow().line == Line::Down {
            continue;
        }
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        // A connection that fails is made again by the client; its end is no end of the others.
        tokio::spawn(async move { drop(serve(stream, acceptor, shared).await) });
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) -> Result<()> {
    let mut state = shared.state.subscribe();
    let generation = state.borrow().generation;
    let _ = stream.set_nodelay(true);
    let client = TokioIo::new(acceptor.accept(stream).await?);
    let upstream = Arc::new(tokio::sync::Mutex::new(None));
    let answer = service_fn(|request| {
        let (shared, upstream) = (shared.clone(), upstream.clone());
        async move { respond(&shared, &upstream, request).await }
    });
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(client, answer);
    tokio::select! {
        ended = serving => Ok(ended?),
        _ = state.wait_for(|now| now.generation != generation) => Ok(()),
    }
}

type Upstream = tokio::sync::Mutex<Option<SendRequest<Incoming>>>;

/// An error ends the connection without an answer.
async fn respond(shared: &Shared, upstream: &Upstream, request: Request<Incoming>) -> Result<Response<Body>> {
    let met = shared.rules().meet(&request);
    match met {
        None => forward(shared, upstream, request).await,
        Some(Answer::Refuse { code, retry_after }) => Ok(refusal(code, retry_after)?.map(full)),
        Some(Answer::Lost) => {
            drop(forward(shared, upstream, request).await?);
            anyhow::bail!("the answer is lost")
        }
        Some(Answer::Cut) => anyhow::bail!("the request is lost"),
        Some(Answer::Late(pause)) => {
            sleep(pause).await;
            forward(shared, upstream, request).await
        }
    }
}

async fn forward(shared: &Shared, upstream: &Upstream, request: Request<Incoming>) -> Result<Response<Body>> {
    let watch = is_watch(&request);
    let mut sender = upstream.lock().await;
    let ready = match sender.as_mut() {
        Some(sender) => sender.ready().await.is_ok(),
        None => false,
    };
    if !ready {
        *sender = Some(connect(shared).await?);
    }
    let answer = match sender.as_mut() {
        Some(sender) => sender.send_request(request).await?,
        None => anyhow::bail!("no connection to the API server"),
    };
    let (head, body) = answer.into_parts();
    let body = if watch {
        delayed(body, shared.state.subscribe())
    } else {
        body.map_err(anyhow::Error::from).boxed_unsync()
    };
    Ok(Response::from_parts(head, body))
}

async fn connect(shared: &Shared) -> Result<SendRequest<Incoming>> {
    let stream = TcpStream::connect(shared.upstream).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::IpAddress(shared.upstream.ip().into());
    let stream = shared.connector.connect(name, stream).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// The body of a watch: each piece waits as long as the line says when it arrives, and the order stays.
fn delayed(body: Incoming, state: watch::Receiver<State>) -> Body {
    let (queue, mut queued) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut body = body;
        while let Some(frame) = body.frame().await {
            let pause = match state.borrow().line {
                Line::Stale(pause) => pause,
                _ => Duration::ZERO,
            };
            if queue.send((Instant::now() + pause, frame)).is_err() {
                return;
            }
        }
    });
    let stream = futures::stream::poll_fn(move |context| queued.poll_recv(context));
    let stream = futures::StreamExt::then(stream, |(due, frame)| async move {
        sleep_until(due).await;
        frame.map_err(anyhow::Error::from)
    });
    BodyExt::boxed_unsync(StreamBody::new(stream))
}

fn full(text: Bytes) -> Body {
    let never = |never: Infallible| match never {};
    Full::new(text).map_err(never).boxed_unsync()
}
