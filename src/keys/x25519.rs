//! X25519 private keys, by the same implementation that the channel's handshake uses.

use super::KeyError;
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::Dh;
use zeroize::Zeroizing;

/// A private key; wiped when dropped.
#[derive(Clone)]
pub(super) struct PrivateKey(pub(super) Zeroizing<[u8; 32]>);

impl PrivateKey {
    pub(super) fn generate() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; 32]);
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), bytes.as_mut_slice())
            .map_err(|_| KeyError::Random)?;
        Ok(Self(bytes))
    }

    pub(super) fn public(&self) -> Result<[u8; 32], KeyError> {
        let mut dh = agreement().ok_or(KeyError::Random)?;
        dh.set(self.0.as_slice());
        dh.pubkey().try_into().map_err(|_| KeyError::Random)
    }
}

/// Whether a public key is not one of the few points with which every private key agrees on the same secret.
pub(super) fn is_strong(public: &[u8; 32]) -> bool {
    let mut shared = Zeroizing::new([0; 32]);
    let agreed = agreement().and_then(|mut dh| {
        dh.set(&[0x40; 32]);
        dh.dh(public, shared.as_mut_slice()).ok()
    });
    agreed.is_some() && shared.iter().any(|&byte| byte != 0)
}

fn agreement() -> Option<Box<dyn Dh>> {
    DefaultResolver.resolve_dh(&DHChoice::Curve25519)
}
