//! Engines and operators written by hand, to say what ours never would.

use axum::serve::Listener;
use dsv::channel::frames::{PROTOCOL_MAX, PROTOCOL_MIN, Task, ToEngine, ToOperator};
use dsv::channel::listener::{TlsListener, self_signed};
use dsv::channel::noise::{Identity, Initiator, Opener, Responder, Sealer};
use dsv::keys::{CERTIFICATE_LIFE, ChannelKey, EngineKey, RootKey, SigningKey};
use futures::{SinkExt, StreamExt};
use jiff::Timestamp;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const LIMIT: Duration = Duration::from_secs(8);

/// A websocket to the operator's port without the outer TLS.
pub async fn dial(address: SocketAddr) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    let url = format!("ws://{address}/v1/engines/connect");
    tokio_tungstenite::client_async(url, stream).await.unwrap().0
}

/// One side of a sealed session.
pub struct Raw<S> {
    pub socket: WebSocketStream<S>,
    pub sealer: Sealer,
    pub opener: Opener,
}

/// How the other side ended it: the sealed Close frame if there was one, and the text of the websocket's close.
#[derive(Debug)]
pub struct Ended {
    pub frame: Option<ToEngine>,
    pub text: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub async fn send_bytes(&mut self, frame: &[u8]) {
        let sealed = self.sealer.seal(frame).unwrap();
        self.socket.send(Message::Binary(sealed.into())).await.unwrap();
    }

    pub async fn send<T: serde::Serialize>(&mut self, frame: &T) {
        self.send_bytes(&serde_json::to_vec(frame).unwrap()).await;
    }

    async fn message(&mut self) -> Message {
        tokio::time::timeout(LIMIT, self.socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    }

    /// The next frame that is no ping or pong.
    pub async fn next<T: serde::de::DeserializeOwned>(&mut self) -> T {
        loop {
            let Message::Binary(sealed) = self.message().await else {
                panic!("not a frame")
            };
            let text = self.opener.open(&sealed).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let kind = value.get("type").and_then(serde_json::Value::as_str);
            if !matches!(kind, Some("ping" | "pong")) {
                return serde_json::from_value(value).unwrap();
            }
        }
    }

    /// The number of the next pong.
    pub async fn pong(&mut self) -> u64 {
        loop {
            let Message::Binary(sealed) = self.message().await else {
                panic!("not a frame")
            };
            let text = self.opener.open(&sealed).unwrap();
            if let ToEngine::Pong { n } = serde_json::from_slice(&text).unwrap() {
                return n;
            }
        }
    }

    /// Reads until the other side ends it.
    pub async fn ended(&mut self) -> Ended {
        let mut ended = Ended {
            frame: None,
            text: String::new(),
        };
        let reading = async {
            while let Some(Ok(message)) = self.socket.next().await {
                match message {
                    Message::Binary(sealed) => {
                        if let Ok(text) = self.opener.open(&sealed)
                            && let Ok(frame @ ToEngine::Close { .. }) = serde_json::from_slice(&text)
                        {
                            ended.frame = Some(frame);
                        }
                    }
                    Message::Close(Some(close)) => ended.text = close.reason.to_string(),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(LIMIT, reading).await.unwrap();
        ended
    }
}

/// The engine's half of the handshake, without a hello.
pub async fn shake(address: SocketAddr, key: &EngineKey, name: &str) -> Raw<TcpStream> {
    let mut socket = dial(address).await;
    let mut initiator = Initiator::new(key).unwrap();
    socket
        .send(Message::Binary(initiator.first().unwrap().into()))
        .await
        .unwrap();
    let second = socket.next().await.unwrap().unwrap().into_data();
    initiator.second(&second, Timestamp::now()).unwrap();
    let identity = Identity {
        namespace: key.namespace().to_owned(),
        name: name.to_owned(),
    };
    let (third, sealer, opener) = initiator.third(&identity).unwrap();
    socket.send(Message::Binary(third.into())).await.unwrap();
    Raw { socket, sealer, opener }
}

pub fn hello() -> ToOperator {
    ToOperator::Hello {
        min: PROTOCOL_MIN,
        max: PROTOCOL_MAX,
        boot: uuid::Uuid::new_v4().to_string(),
        version: "by hand".to_owned(),
        tasks: Task::KINDS.map(str::to_owned).to_vec(),
    }
}

/// An engine that was welcomed.
pub async fn join(address: SocketAddr, key: &EngineKey, name: &str) -> Raw<TcpStream> {
    let mut raw = shake(address, key, name).await;
    raw.send(&hello()).await;
    assert!(matches!(
        raw.next().await,
        ToEngine::Welcome {
            protocol: PROTOCOL_MAX,
            ..
        }
    ));
    raw
}

/// An operator written by hand.
pub struct RawOperator {
    pub root: RootKey,
    pub address: SocketAddr,
    listener: TlsListener,
}

impl RawOperator {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = self_signed(&["dsv.test".to_owned()]).unwrap();
        let listener = TlsListener::new(listener, move || config.clone()).unwrap();
        Self {
            root: RootKey::generate().unwrap(),
            address,
            listener,
        }
    }

    /// Accepts one engine up to its hello.
    pub async fn accept(&mut self) -> Raw<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let (stream, _) = self.listener.accept().await;
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let key = ChannelKey::generate().unwrap();
        let signing = SigningKey::generate().unwrap().public();
        let end = Timestamp::now() + CERTIFICATE_LIFE;
        let certificate = self
            .root
            .certify_channel(&key.public(), &signing, "inst-1", end, vec![])
            .unwrap();
        let mut responder = Responder::new(&key).unwrap();
        let first = socket.next().await.unwrap().unwrap().into_data();
        let second = responder.second(&first, &certificate).unwrap();
        socket.send(Message::Binary(second.into())).await.unwrap();
        let third = socket.next().await.unwrap().unwrap().into_data();
        let accepted = responder.third(&third).unwrap();
        let mut raw = Raw {
            socket,
            sealer: accepted.sealer,
            opener: accepted.opener,
        };
        assert!(matches!(raw.next().await, ToOperator::Hello { .. }));
        raw
    }

    /// Accepts one engine and welcomes it.
    pub async fn welcome(&mut self) -> Raw<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        let mut raw = self.accept().await;
        let (session, installation) = ("s1".to_owned(), "inst-1".to_owned());
        raw.send(&ToEngine::Welcome {
            protocol: PROTOCOL_MAX,
            session,
            installation,
        })
        .await;
        raw
    }
}
