//! Websocket messages in, frames out: the same for both sides and for both websocket libraries.

use super::noise::{MAX_SEALED, NoiseError, Opener, Sealer};
use axum::extract::ws;
use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode as WsCode};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use zeroize::Zeroizing;

/// Longer than any full frame, so that a frame just above the limit is refused by us, in words, and not by the library.
pub(super) const MAX_MESSAGE: usize = MAX_SEALED + 4096;
/// Kept by each connection as long as it lives. The library's 128 KiB would be most of what an idle engine costs; a frame
/// that is longer is read in parts.
pub(super) const READ_BUFFER: usize = 2 << 10;
/// A peer that takes nothing for this long is as dead as one that says nothing.
const SEND_LIMIT: Duration = Duration::from_secs(9);
/// What cannot be said within this time when a connection ends is not worth more.
const LINGER: Duration = Duration::from_secs(1);
/// A websocket close frame has room for 123 bytes of text.
const CLOSE_TEXT: usize = 123;
/// "Policy violation": the code for every close of ours. The exact one is in the sealed Close frame.
const CLOSE_CODE: u16 = 1008;

/// One websocket message, as far as the channel cares.
#[derive(Debug)]
pub(super) enum Wire {
    /// A handshake message or a sealed frame.
    Data(Bytes),
    /// The other side ends it.
    Close(String),
    /// Text, which the channel never uses.
    Text,
}

/// The connection ended or broke.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Closed by the other side.
    #[error("the other side closed the connection{}", said(.0))]
    Closed(String),
    /// Broken.
    #[error("the connection broke")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Bytes that are no websocket frame.
    #[error("the other side broke the rules of websockets")]
    Garbage(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing could be written for too long.
    #[error("the other side took nothing for {} s", SEND_LIMIT.as_secs())]
    Stalled,
    /// More than a frame.
    #[error("a message was larger than any frame")]
    TooLarge,
    /// Text instead of bytes.
    #[error("a text message came where only sealed frames belong")]
    Text,
    /// A frame that does not open, or cannot be sealed.
    #[error(transparent)]
    Noise(#[from] NoiseError),
    /// The content is not JSON, or not a frame.
    #[error("a frame is not readable as JSON of this protocol")]
    Json(#[source] serde_json::Error),
}

fn said(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

type Incoming = Pin<Box<dyn Stream<Item = Result<Wire, WireError>> + Send>>;
type Outgoing = Pin<Box<dyn Sink<Wire, Error = WireError> + Send>>;

/// A websocket, whichever library it comes from.
pub(super) struct Socket {
    inbox: Inbox,
    outgoing: Outgoing,
}

pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

impl Socket {
    /// The operator's side.
    pub(super) fn of_axum(socket: ws::WebSocket) -> Self {
        let (sink, stream) = socket.split();
        let incoming = stream.filter_map(|message| async {
            match message {
                Ok(ws::Message::Binary(data)) => Some(Ok(Wire::Data(data))),
                Ok(ws::Message::Text(_)) => Some(Ok(Wire::Text)),
                Ok(ws::Message::Close(frame)) => {
                    Some(Ok(Wire::Close(frame.map(|f| f.reason.to_string()).unwrap_or_default())))
                }
                Ok(ws::Message::Ping(_) | ws::Message::Pong(_)) => None,
                Err(error) => Some(Err(broken(error.into_inner()))),
            }
        });
        let outgoing = sink
            .sink_map_err(|error| broken(error.into_inner()))
            .with(|wire| async {
                Ok::<_, WireError>(match wire {
                    Wire::Data(data) => ws::Message::Binary(data),
                    Wire::Close(text) => ws::Message::Close(Some(ws::CloseFrame {
                        code: CLOSE_CODE,
                        reason: text.as_str().into(),
                    })),
                    Wire::Text => ws::Message::Text("".into()),
                })
            });
        Self {
            inbox: Inbox {
                incoming: Box::pin(incoming),
                deaf: false,
            },
            outgoing: Box::pin(outgoing),
        }
    }

    /// The engine's side.
    pub(super) fn of_tungstenite<S>(socket: WebSocketStream<S>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sink, stream) = socket.split();
        let incoming = stream.filter_map(|message| async {
            match message {
                Ok(Message::Binary(data)) => Some(Ok(Wire::Data(data))),
                Ok(Message::Text(_)) => Some(Ok(Wire::Text)),
                Ok(Message::Close(frame)) => {
                    Some(Ok(Wire::Close(frame.map(|f| f.reason.to_string()).unwrap_or_default())))
                }
                Ok(_) => None,
                Err(error) => Some(Err(broken(Box::new(error)))),
            }
        });
        let outgoing = sink.sink_map_err(|error| broken(Box::new(error))).with(|wire| async {
            Ok::<_, WireError>(match wire {
                Wire::Data(data) => Message::Binary(data),
                Wire::Close(text) => {
                    let code = WsCode::from(CLOSE_CODE);
                    Message::Close(Some(CloseFrame {
                        code,
                        reason: text.as_str().into(),
                    }))
                }
                Wire::Text => Message::Text("".into()),
            })
        });
        Self {
            inbox: Inbox {
                incoming: Box::pin(incoming),
                deaf: false,
            },
            outgoing: Box::pin(outgoing),
        }
    }

    /// Sends a handshake message.
    pub(super) async fn send(&mut self, message: Vec<u8>) -> Result<(), WireError> {
        self.outgoing.send(Wire::Data(message.into())).await
    }

    /// Waits for a handshake message.
    pub(super) async fn next(&mut self) -> Result<Bytes, WireError> {
        self.inbox.next().await
    }

    /// Ends a connection whose handshake failed.
    pub(super) async fn close(mut self, reason: &str) {
        let closing = self.outgoing.send(Wire::Close(cut(reason)));
        if let Ok(Ok(())) = tokio::time::timeout(LINGER, closing).await {
            self.inbox.rest().await;
        }
    }

    /// After the handshake: frames instead of messages.
    pub(super) fn sealed(self, sealer: Sealer, opener: Opener) -> (FrameWriter, FrameReader) {
        (
            FrameWriter {
                outgoing: self.outgoing,
                sealer,
            },
            FrameReader {
                inbox: self.inbox,
                opener,
            },
        )
    }
}

fn broken(error: Box<dyn std::error::Error + Send + Sync>) -> WireError {
    match error.downcast_ref::<WsError>() {
        Some(WsError::Capacity(_)) => WireError::TooLarge,
        Some(WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => WireError::Broken(error),
        Some(WsError::Protocol(_) | WsError::Utf8(_) | WsError::AttackAttempt) => WireError::Garbage(error),
        Some(WsError::ConnectionClosed | WsError::AlreadyClosed) => WireError::Closed(String::new()),
        _ => WireError::Broken(error),
    }
}

/// What comes in, and whether anything still can.
struct Inbox {
    incoming: Incoming,
    /// The library gave up on what the other side sends, so the rest stays unread.
    deaf: bool,
}

impl Inbox {
    async fn next(&mut self) -> Result<Bytes, WireError> {
        match self.incoming.next().await {
            Some(Ok(Wire::Data(data))) => Ok(data),
            Some(Ok(Wire::Text)) => Err(WireError::Text),
            Some(Ok(Wire::Close(text))) => Err(WireError::Closed(text)),
            Some(Err(error)) => {
                self.deaf = matches!(error, WireError::TooLarge | WireError::Garbage(_));
                Err(error)
            }
            None => Err(WireError::Closed(String::new())),
        }
    }

    /// Takes what still comes, for a moment, until the other side closes too: closing a socket with unread data would
    /// destroy our last words on their way. Where nothing can be read any more, only time lets them arrive.
    async fn rest(&mut self) {
        let rest = async {
            while self.incoming.next().await.is_some_and(|message| message.is_ok()) {}
            if self.deaf {
                std::future::pending::<()>().await;
            }
        };
        let _ = tokio::time::timeout(LINGER, rest).await;
    }
}

/// Reads and opens frames.
pub(super) struct FrameReader {
    inbox: Inbox,
    opener: Opener,
}

impl FrameReader {
    /// The next frame's text. May be dropped while waiting without losing a frame.
    pub(super) async fn next(&mut self) -> Result<Zeroizing<Vec<u8>>, WireError> {
        let sealed = self.inbox.next().await?;
        Ok(self.opener.open(&sealed)?)
    }

    /// Lets the last words arrive, for a moment; see [`Inbox::rest`].
    pub(super) async fn drain(&mut self) {
        self.inbox.rest().await;
    }

    /// The next frame.
    pub(super) async fn parse<T: DeserializeOwned>(&mut self) -> Result<T, WireError> {
        serde_json::from_slice(&self.next().await?).map_err(WireError::Json)
    }
}

/// Seals and sends frames.
pub(super) struct FrameWriter {
    outgoing: Outgoing,
    sealer: Sealer,
}

impl FrameWriter {
    /// Sends one frame's text.
    ///
    /// May be dropped while it waits: a frame is sealed only once there is room for it, so none is sealed and then lost,
    /// which would make every later frame unreadable.
    pub(super) async fn send_text(&mut self, text: &[u8]) -> Result<(), WireError> {
        let sending = async {
            std::future::poll_fn(|cx| self.outgoing.as_mut().poll_ready(cx)).await?;
            let sealed = self.sealer.seal(text)?;
            self.outgoing.as_mut().start_send(Wire::Data(sealed.into()))?;
            self.outgoing.flush().await
        };
        tokio::time::timeout(SEND_LIMIT, sending)
            .await
            .unwrap_or(Err(WireError::Stalled))
    }

    /// Sends one frame.
    pub(super) async fn send<T: Serialize>(&mut self, frame: &T) -> Result<(), WireError> {
        self.send_text(&encode(frame)?).await
    }

    /// Ends the connection without a last frame.
    pub(super) async fn finish(mut self, reason: &str) {
        let closing = async {
            self.outgoing.send(Wire::Close(cut(reason))).await?;
            self.outgoing.close().await
        };
        let _ = tokio::time::timeout(LINGER, closing).await;
    }

    /// Sends a last frame and ends the connection.
    pub(super) async fn close<T: Serialize>(mut self, last: &T, reason: &str) {
        let _ = tokio::time::timeout(LINGER, async {
            self.send(last).await?;
            self.outgoing.send(Wire::Close(cut(reason))).await?;
            self.outgoing.close().await
        })
        .await;
    }
}

/// A frame's text, wiped when dropped: it may hold an administrative password.
pub(super) fn encode<T: Serialize>(frame: &T) -> Result<Zeroizing<Vec<u8>>, WireError> {
    // Written twice, the first time only to learn how long it is: a buffer that grows leaves copies behind, and one that is
    // large enough for any frame would be wiped as a whole for each ping.
    let mut length = Length(0);
    serde_json::to_writer(&mut length, frame).map_err(WireError::Json)?;
    let mut text = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *text, frame).map_err(WireError::Json)?;
    Ok(text)
}

/// Counts what is written to it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn cut(reason: &str) -> String {
    let end = (0..=CLOSE_TEXT.min(reason.len()))
        .rev()
        .find(|&end| reason.is_char_boundary(end))
        .unwrap_or(0);
    reason.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{cut, encode};

    #[test]
    fn a_frame_is_written_into_a_buffer_of_its_length() {
        let text = encode(&["a password", "\"quoted\""]).unwrap();
        assert_eq!(text.as_slice(), br#"["a password","\"quoted\""]"#);
        assert_eq!(
            text.capacity(),
            text.len(),
            "a longer one was moved, and left a copy behind"
        );
    }

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"a".repeat(200)).len(), 123);
        assert_eq!(cut(&"ä".repeat(100)).len(), 122);
    }
}
