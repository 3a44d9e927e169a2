//! A machine between engine and operator that ends the outer TLS, as company proxies do, and keeps every message it relays.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use dsv::channel::link::OuterTrust;
use futures::{Sink, SinkExt, Stream, StreamExt};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use e2e::certificates::Authority;

/// A relay to one address. Dropping it stops taking connections.
pub struct Tap {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
    accepting: JoinHandle<()>,
}

impl Tap {
    /// Listens on loopback and relays websockets to `upstream`.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (acceptor, connector) = (acceptor()?, connector()?);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let relay = relay(
                    stream,
                    upstream,
                    acceptor.clone(),
                    connector.clone(),
                    Arc::clone(&record),
                );
                // A connection that fails is tried again by the engine; its end is no end of the others.
                tokio::spawn(async move { drop(relay.await) });
            }
        });
        Ok(Self {
            address,
            seen,
            accepting,
        })
    }

    /// Where engines connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a text through it, as an engine would that does not encrypt; returns when it has been seen.
    pub async fn say(&self, text: &str) -> Result<()> {
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = connector()?
            .connect(name, TcpStream::connect(self.address).await?)
            .await?;
        let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{}/", self.address), stream).await?;
        socket.send(Message::binary(text.to_owned().into_bytes())).await?;
        // The operator ends such a session; until then it has been relayed.
        while let Some(Ok(_)) = socket.next().await {}
        Ok(())
    }

    /// The payload of every message of both directions so far, websocket masks taken off.
    pub fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn acceptor() -> Result<TlsAcceptor> {
    let signed = Authority::new("dsv-e2e-tap")?.server("tap", &[], &[])?;
    let certificate = CertificateDer::from_pem_slice(signed.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes())?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Takes every certificate, as engines do: the operator's is made anew at each start.
fn connector() -> Result<TlsConnector> {
    Ok(TlsConnector::from(OuterTrust::new(None, false)?.client_config()))
}

async fn relay(
    stream: TcpStream,
    upstream: SocketAddr,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    seen: Arc<Mutex<Vec<u8>>>,
) -> Result<()> {
    let engine = tokio_tungstenite::accept_async(acceptor.accept(stream).await?).await?;
    let name = ServerName::IpAddress(upstream.ip().into());
    let operator = connector.connect(name, TcpStream::connect(upstream).await?).await?;
    let url = format!("ws://{upstream}/v1/engines/connect");
    let (operator, _) = tokio_tungstenite::client_async(url, operator)
        .await
        .context("the operator takes no websocket")?;
    let (to_engine, from_engine) = engine.split();
    let (to_operator, from_operator) = operator.split();
    tokio::select! {
        end = pump(from_engine, to_operator, &seen) => end,
        end = pump(from_operator, to_engine, &seen) => end,
    }
}

async fn pump(
    mut from: impl Stream<Item = Result<Message, SocketError>> + Unpin,
    mut to: impl Sink<Message, Error = SocketError> + Unpin,
    seen: &Mutex<Vec<u8>>,
) -> Result<()> {
    while let Some(message) = from.next().await {
        let message = message?;
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(&message.clone().into_data());
        to.send(message).await?;
    }
    Ok(())
}
