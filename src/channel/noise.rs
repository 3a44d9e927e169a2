//! The Noise handshake and the sealed frames that follow it. Bytes in, bytes out: nothing here reads a socket.
//!
//! `Noise_XX_25519_ChaChaPoly_SHA256`, the engine starts. Message 2 carries the operator's [`ChannelCertificate`], which the
//! engine checks against the root that its key pins; message 3 carries the engine's [`Identity`], readable by that operator
//! only. Afterwards both directions count their frames, so one that was altered, dropped, repeated or moved does not open.

use super::frames::MAX_FRAME;
use crate::keys::{CertificateError, ChannelCertificate, ChannelKey, ChannelPublicKey, EngineKey, EnginePublicKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use snow::{Builder, HandshakeState, StatelessTransportState};
use std::sync::Arc;
use zeroize::Zeroizing;

const PATTERN: &str = "Noise_XX_25519_ChaChaPoly_SHA256";
/// Mixed into the handshake, so that a key of ours never talks to another protocol that uses the same pattern.
const PROLOGUE: &[u8] = b"dsv engine channel, version 1";
/// Noise's own limit for one message.
const MAX_MESSAGE: usize = 65_535;
const TAG: usize = 16;

/// Largest websocket message that can be of use: a full frame and its tag.
pub const MAX_SEALED: usize = MAX_FRAME + TAG;

/// Who an engine says it is; believed only if the Engine object of that name holds its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Namespace of the Engine object.
    pub namespace: String,
    /// Name of the Engine object.
    pub name: String,
}

/// The channel cannot be opened or continued.
#[derive(Debug, thiserror::Error)]
pub enum NoiseError {
    /// A handshake message that does not fit: another protocol, another version, or altered on the way.
    #[error(
        "the other side's handshake message {number} could not be read; it is no engine channel, or something in between altered it"
    )]
    Handshake {
        /// 1 to 3.
        number: u8,
        /// What the cipher suite said.
        #[source]
        source: snow::Error,
    },
    /// A handshake message was readable, but its content was not.
    #[error("the content of handshake message {number} is not what belongs there")]
    Content {
        /// 1 to 3.
        number: u8,
    },
    /// Not the operator that the engine key was made for.
    #[error("the operator could not prove that it belongs to this engine's installation")]
    Certificate(#[source] CertificateError),
    /// A frame does not open.
    #[error("a frame was altered, repeated, dropped or out of order on the way")]
    Frame,
    /// A frame is too large.
    #[error("a frame has {bytes} bytes, more than the {MAX_FRAME} that fit")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The cipher suite itself failed.
    #[error("the channel's cipher failed")]
    Cipher(#[source] snow::Error),
}

/// The engine's half of the handshake.
pub struct Initiator {
    state: HandshakeState,
    pinned: crate::keys::RootHash,
}

impl Initiator {
    /// Starts a handshake with the engine's key.
    pub fn new(key: &EngineKey) -> Result<Self, NoiseError> {
        let state = builder(key.private_bytes())?
            .build_initiator()
            .map_err(NoiseError::Cipher)?;
        Ok(Self {
            state,
            pinned: *key.root_hash(),
        })
    }

    /// Message 1, to be sent.
    pub fn first(&mut self) -> Result<Vec<u8>, NoiseError> {
        write(&mut self.state, &[])
    }

    /// Reads message 2. The certificate in it was verified, so the other side is the operator.
    pub fn second(&mut self, message: &[u8], now: Timestamp) -> Result<ChannelCertificate, NoiseError> {
        let content = read(&mut self.state, message, 2)?;
        let certificate: ChannelCertificate =
            serde_json::from_slice(&content).map_err(|_| NoiseError::Content { number: 2 })?;
        let remote = remote(&self.state).and_then(|key| ChannelPublicKey::from_bytes(key).ok());
        let remote = remote.ok_or(NoiseError::Content { number: 2 })?;
        certificate
            .verify(&self.pinned, &remote, now)
            .map_err(NoiseError::Certificate)?;
        Ok(certificate)
    }

    /// Message 3, to be sent, and what seals and opens the frames after it.
    pub fn third(mut self, identity: &Identity) -> Result<(Vec<u8>, Sealer, Opener), NoiseError> {
        let content = serde_json::to_vec(identity).map_err(|_| NoiseError::Content { number: 3 })?;
        let message = write(&mut self.state, &content)?;
        let (sealer, opener) = transport(self.state)?;
        Ok((message, sealer, opener))
    }
}

/// The operator's half of the handshake.
pub struct Responder {
    state: HandshakeState,
}

/// What the operator knows after a handshake.
pub struct Accepted {
    /// The key that the engine holds; that it holds it is proven.
    pub key: EnginePublicKey,
    /// Who it says it is.
    pub identity: Identity,
    /// Seals frames to the engine.
    pub sealer: Sealer,
    /// Opens frames from the engine.
    pub opener: Opener,
}

impl Responder {
    /// Starts a handshake with the operator's channel key.
    pub fn new(key: &ChannelKey) -> Result<Self, NoiseError> {
        let state = builder(key.private_bytes())?
            .build_responder()
            .map_err(NoiseError::Cipher)?;
        Ok(Self { state })
    }

    /// Reads message 1 and gives message 2.
    pub fn second(&mut self, first: &[u8], certificate: &ChannelCertificate) -> Result<Vec<u8>, NoiseError> {
        read(&mut self.state, first, 1)?;
        let content = serde_json::to_vec(certificate).map_err(|_| NoiseError::Content { number: 2 })?;
        write(&mut self.state, &content)
    }

    /// Reads message 3.
    pub fn third(mut self, message: &[u8]) -> Result<Accepted, NoiseError> {
        let content = read(&mut self.state, message, 3)?;
        let identity = serde_json::from_slice(&content).map_err(|_| NoiseError::Content { number: 3 })?;
        let key = remote(&self.state).and_then(|key| EnginePublicKey::from_bytes(key).ok());
        let key = key.ok_or(NoiseError::Content { number: 3 })?;
        let (sealer, opener) = transport(self.state)?;
        Ok(Accepted {
            key,
            identity,
            sealer,
            opener,
        })
    }
}

/// Seals the frames of one direction, in order.
pub struct Sealer {
    state: Arc<StatelessTransportState>,
    count: u64,
}

impl Sealer {
    /// Seals the next frame.
    pub fn seal(&mut self, frame: &[u8]) -> Result<Vec<u8>, NoiseError> {
        if frame.len() > MAX_FRAME {
            return Err(NoiseError::TooLarge { bytes: frame.len() });
        }
        let mut sealed = vec![0; frame.len() + TAG];
        let length = self
            .state
            .write_message(self.count, frame, &mut sealed)
            .map_err(NoiseError::Cipher)?;
        sealed.truncate(length);
        self.count += 1;
        Ok(sealed)
    }
}

/// Opens the frames of one direction, in order.
pub struct Opener {
    state: Arc<StatelessTransportState>,
    count: u64,
}

impl Opener {
    /// Opens the next frame.
    pub fn open(&mut self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NoiseError> {
        if sealed.len() > MAX_SEALED {
            return Err(NoiseError::TooLarge {
                bytes: sealed.len() - TAG,
            });
        }
        let mut frame = Zeroizing::new(vec![0; sealed.len()]);
        let length = self
            .state
            .read_message(self.count, sealed, &mut frame)
            .map_err(|_| NoiseError::Frame)?;
        frame.truncate(length);
        self.count += 1;
        Ok(frame)
    }
}

fn builder(private: &[u8]) -> Result<Builder<'_>, NoiseError> {
    let params = PATTERN.parse().map_err(NoiseError::Cipher)?;
    let builder = Builder::new(params)
        .local_private_key(private)
        .map_err(NoiseError::Cipher)?;
    builder.prologue(PROLOGUE).map_err(NoiseError::Cipher)
}

fn write(state: &mut HandshakeState, content: &[u8]) -> Result<Vec<u8>, NoiseError> {
    let mut message = vec![0; MAX_MESSAGE];
    let length = state.write_message(content, &mut message).map_err(NoiseError::Cipher)?;
    message.truncate(length);
    Ok(message)
}

fn read(state: &mut HandshakeState, message: &[u8], number: u8) -> Result<Vec<u8>, NoiseError> {
    let mut content = vec![0; message.len()];
    let length = state
        .read_message(message, &mut content)
        .map_err(|source| NoiseError::Handshake { number, source })?;
    content.truncate(length);
    Ok(content)
}

fn remote(state: &HandshakeState) -> Option<[u8; 32]> {
    state.get_remote_static().and_then(|key| key.try_into().ok())
}

fn transport(state: HandshakeState) -> Result<(Sealer, Opener), NoiseError> {
    let state = Arc::new(state.into_stateless_transport_mode().map_err(NoiseError::Cipher)?);
    Ok((
        Sealer {
            state: state.clone(),
            count: 0,
        },
        Opener { state, count: 0 },
    ))
}

#[cfg(test)]
mod tests {
    use super::{Accepted, Identity, Initiator, MAX_SEALED, NoiseError, Opener, Responder, Sealer};
    use crate::channel::frames::MAX_FRAME;
    use crate::keys::{CERTIFICATE_LIFE, ChannelCertificate, ChannelKey, EngineKey, RootKey, SigningKey};
    use jiff::Timestamp;

    struct Side {
        root: RootKey,
        key: ChannelKey,
        certificate: ChannelCertificate,
    }

    fn operator() -> Side {
        let (root, key) = (RootKey::generate().unwrap(), ChannelKey::generate().unwrap());
        let signing = SigningKey::generate().unwrap().public();
        let end = Timestamp::now() + CERTIFICATE_LIFE;
        let certificate = root
            .certify_channel(&key.public(), &signing, "inst", end, vec![])
            .unwrap();
        Side { root, key, certificate }
    }

    fn identity() -> Identity {
        Identity {
            namespace: "databases".to_owned(),
            name: "one".to_owned(),
        }
    }

    fn joined(side: &Side, engine: &EngineKey) -> (Sealer, Opener, Accepted) {
        let (mut initiator, mut responder) = (Initiator::new(engine).unwrap(), Responder::new(&side.key).unwrap());
        let second = responder
            .second(&initiator.first().unwrap(), &side.certificate)
            .unwrap();
        initiator.second(&second, Timestamp::now()).unwrap();
        let (third, sealer, opener) = initiator.third(&identity()).unwrap();
        (sealer, opener, responder.third(&third).unwrap())
    }

    #[test]
    fn both_sides_know_each_other_after_three_messages() {
        let side = operator();
        let engine = EngineKey::generate(side.root.hash(), "databases").unwrap();
        let (mut sealer, mut opener, mut accepted) = joined(&side, &engine);
        assert_eq!((accepted.key, &accepted.identity), (engine.public(), &identity()));
        let frame = sealer.seal(b"to the operator").unwrap();
        assert!(!frame.windows(8).any(|w| w == b"operator"));
        assert_eq!(accepted.opener.open(&frame).unwrap().as_slice(), b"to the operator");
        let frame = accepted.sealer.seal(b"to the engine").unwrap();
        assert_eq!(opener.open(&frame).unwrap().as_slice(), b"to the engine");
    }

    #[test]
    fn an_engine_tells_an_impostor_nothing_about_itself() {
        let (side, impostor) = (operator(), operator());
        let engine = EngineKey::generate(side.root.hash(), "databases").unwrap();
        let mut initiator = Initiator::new(&engine).unwrap();
        let mut responder = Responder::new(&impostor.key).unwrap();
        let second = responder
            .second(&initiator.first().unwrap(), &impostor.certificate)
            .unwrap();
        assert!(matches!(
            initiator.second(&second, Timestamp::now()),
            Err(NoiseError::Certificate(_))
        ));
        // Even with the true operator's certificate: its key is missing.
        let mut initiator = Initiator::new(&engine).unwrap();
        let mut responder = Responder::new(&impostor.key).unwrap();
        let second = responder
            .second(&initiator.first().unwrap(), &side.certificate)
            .unwrap();
        assert!(matches!(
            initiator.second(&second, Timestamp::now()),
            Err(NoiseError::Certificate(_))
        ));
    }

    #[test]
    fn a_frame_that_was_altered_repeated_dropped_or_reordered_does_not_open() {
        let side = operator();
        let engine = EngineKey::generate(side.root.hash(), "databases").unwrap();
        let (mut sealer, _, mut accepted) = joined(&side, &engine);
        let frames: Vec<_> = (0..3)
            .map(|n| sealer.seal(format!("frame {n}").as_bytes()).unwrap())
            .collect();
        let mut altered = frames[0].clone();
        altered[3] ^= 1;
        assert!(matches!(accepted.opener.open(&altered), Err(NoiseError::Frame)));
        assert!(accepted.opener.open(&frames[0]).is_ok());
        assert!(
            matches!(accepted.opener.open(&frames[0]), Err(NoiseError::Frame)),
            "repeated"
        );
        assert!(
            matches!(accepted.opener.open(&frames[2]), Err(NoiseError::Frame)),
            "one dropped"
        );
        assert!(accepted.opener.open(&frames[1]).is_ok());
        assert!(matches!(accepted.opener.open(&[]), Err(NoiseError::Frame)), "empty");
    }

    #[test]
    fn a_frame_above_the_limit_is_neither_sealed_nor_opened() {
        let side = operator();
        let engine = EngineKey::generate(side.root.hash(), "databases").unwrap();
        let (mut sealer, _, mut accepted) = joined(&side, &engine);
        let full = sealer.seal(&vec![7; MAX_FRAME]).unwrap();
        assert_eq!(accepted.opener.open(&full).unwrap().len(), MAX_FRAME);
        assert!(matches!(
            sealer.seal(&vec![7; MAX_FRAME + 1]),
            Err(NoiseError::TooLarge { .. })
        ));
        assert!(matches!(
            accepted.opener.open(&vec![7; MAX_SEALED + 1]),
            Err(NoiseError::TooLarge { .. })
        ));
    }

    #[test]
    fn no_handshake_message_can_be_altered() {
        let side = operator();
        let engine = EngineKey::generate(side.root.hash(), "databases").unwrap();
        let start = || (Initiator::new(&engine).unwrap(), Responder::new(&side.key).unwrap());
        for at in [0, 31] {
            let (mut initiator, mut responder) = start();
            let mut first = initiator.first().unwrap();
            first[at] ^= 1;
            let second = responder.second(&first, &side.certificate).unwrap();
            assert!(
                initiator.second(&second, Timestamp::now()).is_err(),
                "message 1, byte {at}"
            );
        }
        for at in [0, 40, 200] {
            let (mut initiator, mut responder) = start();
            let mut second = responder
                .second(&initiator.first().unwrap(), &side.certificate)
                .unwrap();
            second[at] ^= 1;
            assert!(
                initiator.second(&second, Timestamp::now()).is_err(),
                "message 2, byte {at}"
            );
        }
        for at in [0, 40, 70] {
            let (mut initiator, mut responder) = start();
            let second = responder
                .second(&initiator.first().unwrap(), &side.certificate)
                .unwrap();
            initiator.second(&second, Timestamp::now()).unwrap();
            let (mut third, ..) = initiator.third(&identity()).unwrap();
            third[at] ^= 1;
            assert!(responder.third(&third).is_err(), "message 3, byte {at}");
        }
    }
}
