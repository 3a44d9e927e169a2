//! From an HTTP request to a session: upgrade, handshake, registration, hello.

use super::metrics::HandshakeResult;
use super::session::{Opening, Session};
use super::{EngineDirectory, Hub, Registration, serve};
use crate::channel::CONNECT_PATH;
use crate::channel::frames::{CloseCode, PROTOCOL_MAX, PROTOCOL_MIN, ToEngine, ToOperator, agreed};
use crate::channel::listener::Peer;
use crate::channel::noise::{Accepted, NoiseError, Responder};
use crate::channel::wire::{self, FrameReader, Socket, WireError};
use crate::keys::EnginePublicKey;
use axum::Router;
use axum::extract::ws::{WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::extract::{ConnectInfo, Extension, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use std::error::Error;
use std::net::SocketAddr;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

/// Longest list of task kinds, and longest text in it, that is kept from a hello.
const MAX_KINDS: usize = 64;
const MAX_TEXT: usize = 128;

pub(super) fn router(hub: Hub) -> Router {
    Router::new().route(CONNECT_PATH, get(upgrade)).with_state(hub)
}

async fn upgrade(
    State(hub): State<Hub>,
    peer: Option<Extension<ConnectInfo<Peer>>>,
    websocket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if !*hub.inner.leading.borrow() {
        hub.inner.metrics.handshake(HandshakeResult::NotLeading);
        return later("this replica of the operator does not lead; engines connect to the one that does");
    }
    let websocket = match websocket {
        Ok(websocket) => websocket,
        Err(rejection) => return rejection.into_response(),
    };
    let Ok(permit) = hub.inner.handshakes.clone().try_acquire_owned() else {
        hub.inner.metrics.handshake(HandshakeResult::Busy);
        return later("too many engines connect at this moment; try again in a second");
    };
    let remote = peer.map(|Extension(ConnectInfo(Peer(address)))| address);
    let (message, frame) = (wire::MAX_MESSAGE, wire::MAX_MESSAGE);
    websocket
        .read_buffer_size(wire::READ_BUFFER)
        .max_message_size(message)
        .max_frame_size(frame)
        .on_upgrade(move |socket| async move { hub.welcome(socket, permit, remote).await })
}

fn later(sentence: &'static str) -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        [(http::header::RETRY_AFTER, "1")],
        sentence,
    )
        .into_response()
}

/// Why an engine is turned away.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: CloseCode,
    pub(super) reason: String,
}

fn refuse(code: CloseCode, reason: impl Into<String>) -> Refusal {
    Refusal {
        code,
        reason: reason.into(),
    }
}

/// The Engine that a proven key and a claimed name belong to.
pub(super) fn admit(
    directory: &dyn EngineDirectory,
    key: &EnginePublicKey,
    namespace: &str,
    name: &str,
) -> Result<Registration, Refusal> {
    // One sentence for a missing Engine and for a foreign key, so that a stranger cannot ask which Engines exist.
    let stranger = || {
        let reason = format!(
            "no Engine {namespace}/{name} with this key is registered; check the engine's name, and that spec.publicKey of \
             the Engine is the public half of the key that the engine was started with"
        );
        refuse(CloseCode::NotRegistered, reason)
    };
    let found = directory.find(namespace, name).ok_or_else(stranger)?;
    if found.namespace != namespace || found.name != name || !found.public_keys.contains(key) {
        return Err(stranger());
    }
    if found.disabled {
        return Err(refuse(
            CloseCode::Disabled,
            format!("Engine {namespace}/{name} is disabled (spec.disabled)"),
        ));
    }
    Ok(found)
}

impl Hub {
    async fn welcome(self, socket: WebSocket, permit: OwnedSemaphorePermit, remote: Option<SocketAddr>) {
        let deadline = Instant::now() + self.inner.timing.handshake;
        let mut socket = Socket::of_axum(socket);
        let accepted = match timeout_at(deadline, self.shake_hands(&mut socket)).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => {
                self.inner.metrics.handshake(HandshakeResult::Failed);
                tracing::warn!(?remote, error = &error as &dyn Error, "an engine's handshake failed");
                return socket.close(&error.to_string()).await;
            }
            Err(_) => {
                self.inner.metrics.handshake(HandshakeResult::Failed);
                tracing::warn!(?remote, "an engine's handshake took too long");
                return socket.close("the handshake took too long").await;
            }
        };
        let Accepted {
            key,
            identity,
            sealer,
            opener,
        } = accepted;
        let (writer, mut reader) = socket.sealed(sealer, opener);
        let admitted = match admit(&*self.inner.directory, &key, &identity.namespace, &identity.name) {
            Ok(registration) => greet(&mut reader, deadline, key, registration, remote).await,
            Err(refusal) => Err(refusal),
        };
        drop(permit);
        match admitted {
            Ok((opening, protocol)) => {
                self.inner.metrics.handshake(HandshakeResult::Accepted);
                self.start(opening, protocol, writer, reader);
            }
            Err(refusal) => {
                self.inner.metrics.handshake(HandshakeResult::Refused);
                let (namespace, name) = (&identity.namespace, &identity.name);
                let Refusal { code, reason } = refusal;
                tracing::warn!(?remote, namespace, engine = name, %key, ?code, reason, "an engine was turned away");
                serve::part(writer, reader, code, reason).await;
            }
        }
    }

    async fn shake_hands(&self, socket: &mut Socket) -> Result<Accepted, HandshakeError> {
        let identity = &self.inner.identity;
        let mut responder = Responder::new(&identity.key)?;
        let first = socket.next().await?;
        let second = responder.second(&first, &identity.certificate())?;
        socket.send(second).await?;
        let third = socket.next().await?;
        Ok(responder.third(&third)?)
    }

    /// In a task of its own: that of a handshake is several times as large, and would live as long as the session.
    fn start(self, opening: Opening, protocol: u16, writer: wire::FrameWriter, reader: FrameReader) {
        let (session, outbox) = Session::open(opening);
        // Queued before the session can be found, so the welcome is the first frame whatever task comes at once.
        session.say(ToEngine::Welcome {
            protocol,
            session: session.name.clone(),
            installation: self.inner.identity.certificate().installation.clone(),
        });
        tokio::spawn(async move { self.serve(session, outbox, writer, reader).await });
    }
}

#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error(transparent)]
    Noise(#[from] NoiseError),
    #[error(transparent)]
    Wire(#[from] WireError),
}

async fn greet(
    reader: &mut FrameReader,
    deadline: Instant,
    key: EnginePublicKey,
    registration: Registration,
    remote: Option<SocketAddr>,
) -> Result<(Opening, u16), Refusal> {
    let hello = timeout_at(deadline, reader.parse::<ToOperator>()).await;
    let hello = hello.map_err(|_| refuse(CloseCode::Silent, "no hello came within the time for the handshake"))?;
    let (min, max, boot, version, tasks) = match hello {
        Ok(ToOperator::Hello {
            min,
            max,
            boot,
            version,
            tasks,
        }) => (min, max, boot, version, tasks),
        Ok(_) => return Err(refuse(CloseCode::BadFrame, "the first frame must be a hello")),
        Err(error) => {
            return Err(refuse(
                CloseCode::BadFrame,
                format!("the hello cannot be taken: {error}"),
            ));
        }
    };
    let Some(protocol) = agreed((PROTOCOL_MIN, PROTOCOL_MAX), (min, max)) else {
        let reason = format!(
            "the engine speaks protocol versions {min} to {max}, this operator {PROTOCOL_MIN} to {PROTOCOL_MAX}; use an \
             engine of the operator's version"
        );
        return Err(refuse(CloseCode::Protocol, reason));
    };
    let opening = Opening {
        name: uuid::Uuid::new_v4().simple().to_string().chars().take(12).collect(),
        key,
        registration,
        remote,
        boot: shortened(boot),
        version: shortened(version),
        tasks: tasks.into_iter().take(MAX_KINDS).map(shortened).collect(),
    };
    Ok((opening, protocol))
}

fn shortened(text: String) -> String {
    if text.len() <= MAX_TEXT {
        text
    } else {
        text.chars().take(MAX_TEXT / 4).collect()
    }
}
