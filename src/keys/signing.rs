//! The key that signs role comments.

use super::root::Pair;
use super::{KeyError, SecretText, Signature, SigningPublicKey};
use std::sync::Arc;

/// Signs role comments, and with them the claim that a database role is ours. Cheap to clone.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<Pair>,
    public: SigningPublicKey,
}

impl SigningKey {
    /// Makes a new one.
    pub fn generate() -> Result<Self, KeyError> {
        Self::of(Pair::generate()?)
    }

    /// Reads what [`SigningKey::store`] wrote.
    pub fn load(stored: &SecretText) -> Result<Self, KeyError> {
        Self::of(Pair::load(stored)?)
    }

    fn of(pair: Pair) -> Result<Self, KeyError> {
        let public = SigningPublicKey::from_bytes(pair.public()?).map_err(|_| KeyError::Unreadable)?;
        Ok(Self {
            pair: Arc::new(pair),
            public,
        })
    }

    /// PKCS#8 in base64, for the Secret that holds it.
    pub fn store(&self) -> SecretText {
        self.pair.store()
    }

    /// The public half, by which every engine recognises our roles.
    pub fn public(&self) -> SigningPublicKey {
        self.public
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Signature, KeyError> {
        self.pair.sign(message)
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}
