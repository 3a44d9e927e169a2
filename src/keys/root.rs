//! The installation's root key: the one thing that engines trust.

use super::certificate::{self, ChannelCertificate, RootLink, SigningCertificate};
use super::{ChannelPublicKey, RootHash, RootPublicKey, SecretText, Signature, SigningPublicKey};
use data_encoding::BASE64;
use jiff::Timestamp;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

/// A key cannot be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system gave no random bytes.
    #[error("the system's random generator failed, so no key can be made")]
    Random,
    /// The stored text is not a key.
    #[error("the stored key is not base64 of an Ed25519 key in PKCS#8 form; restore it from the backup")]
    Unreadable,
    /// The installation id cannot be signed.
    #[error("an installation id has 1 to 200 letters, digits, dots, colons, slashes, underscores or dashes")]
    Installation,
}

/// An Ed25519 key pair with the bytes it is stored as.
pub(super) struct Pair {
    pair: Ed25519KeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl Pair {
    pub(super) fn generate() -> Result<Self, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
        Self::from_pkcs8(Zeroizing::new(document.as_ref().to_vec()))
    }

    pub(super) fn load(stored: &SecretText) -> Result<Self, KeyError> {
        let bytes = BASE64
            .decode(stored.reveal().trim().as_bytes())
            .map_err(|_| KeyError::Unreadable)?;
        Self::from_pkcs8(Zeroizing::new(bytes))
    }

    fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| KeyError::Unreadable)?;
        Ok(Self { pair, pkcs8 })
    }

    pub(super) fn store(&self) -> SecretText {
        SecretText::new(BASE64.encode(&self.pkcs8))
    }

    pub(super) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    pub(super) fn public(&self) -> Result<[u8; 32], KeyError> {
        self.pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| KeyError::Unreadable)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Signature, KeyError> {
        let bytes = self
            .pair
            .sign(message)
            .as_ref()
            .try_into()
            .map_err(|_| KeyError::Unreadable)?;
        Signature::from_bytes(bytes).map_err(|_| KeyError::Unreadable)
    }
}

/// The installation's root key. Made once, kept for ever; whoever has it can pass for the operator.
pub struct RootKey {
    pair: Pair,
    public: RootPublicKey,
}

impl RootKey {
    /// Makes a new one.
    pub fn generate() -> Result<Self, KeyError> {
        Self::of(Pair::generate()?)
    }

    /// Reads what [`RootKey::store`] wrote.
    pub fn load(stored: &SecretText) -> Result<Self, KeyError> {
        Self::of(Pair::load(stored)?)
    }

    fn of(pair: Pair) -> Result<Self, KeyError> {
        let public = RootPublicKey::from_bytes(pair.public()?).map_err(|_| KeyError::Unreadable)?;
        Ok(Self { pair, public })
    }

    /// PKCS#8 in base64, for the Secret that holds it.
    pub fn store(&self) -> SecretText {
        self.pair.store()
    }

    /// A key for hashes of one purpose, always the same for the same purpose.
    pub fn hash_key(&self, purpose: &str) -> hmac::Key {
        let derived = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, self.pair.pkcs8()),
            purpose.as_bytes(),
        );
        hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
    }

    /// The public half.
    pub fn public(&self) -> RootPublicKey {
        self.public
    }

    /// What engine keys pin.
    pub fn hash(&self) -> RootHash {
        self.public.hash()
    }

    /// Vouches for the key that signs role comments.
    pub fn certify_signing_key(
        &self,
        signing_key: &SigningPublicKey,
        installation: &str,
    ) -> Result<SigningCertificate, KeyError> {
        let message = certificate::signing_message(signing_key, &self.public, installation)?;
        Ok(SigningCertificate {
            signing_key: *signing_key,
            root_key: self.public,
            installation: installation.to_owned(),
            signature: self.pair.sign(&message)?,
        })
    }

    /// Vouches for the operator's channel key, until `not_after` (see [`super::CERTIFICATE_LIFE`]).
    ///
    /// `chain` leads from the roots that older engine keys pin to this one, oldest first; empty before the first rotation.
    pub fn certify_channel(
        &self,
        channel_key: &ChannelPublicKey,
        signing_key: &SigningPublicKey,
        installation: &str,
        not_after: Timestamp,
        chain: Vec<RootLink>,
    ) -> Result<ChannelCertificate, KeyError> {
        let mut certificate = ChannelCertificate {
            channel_key: *channel_key,
            root_key: self.public,
            installation: installation.to_owned(),
            not_after,
            signing_key: *signing_key,
            chain,
            signature: Signature::from_bytes([0; 64]).map_err(|_| KeyError::Unreadable)?,
        };
        certificate.signature = self.pair.sign(&certificate.message()?)?;
        Ok(certificate)
    }

    /// Names the root key that follows this one, so that engines that pin this one accept it.
    pub fn succeeded_by(&self, next: &RootPublicKey) -> Result<RootLink, KeyError> {
        let signature = self.pair.sign(&certificate::link_message(&self.public, next))?;
        Ok(RootLink {
            old: self.public,
            new: *next,
            signature,
        })
    }
}

impl std::fmt::Debug for RootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RootKey({})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyError, RootKey};
    use crate::keys::{SecretText, SigningKey};

    #[test]
    fn a_stored_root_key_is_the_same_key_again() {
        let root = RootKey::generate().unwrap();
        let again = RootKey::load(&root.store()).unwrap();
        assert_eq!(again.hash(), root.hash());
        assert!(!format!("{root:?}").contains(root.store().reveal()));
    }

    #[test]
    fn a_damaged_root_key_is_refused_instead_of_replaced() {
        assert_eq!(
            RootKey::load(&SecretText::new("bm90IGEga2V5")).err(),
            Some(KeyError::Unreadable)
        );
    }

    #[test]
    fn a_signing_key_is_vouched_for_only_by_its_own_root() {
        let (root, other) = (RootKey::generate().unwrap(), RootKey::generate().unwrap());
        let signing = SigningKey::generate().unwrap().public();
        let certificate = root.certify_signing_key(&signing, "inst-1").unwrap();
        assert!(certificate.verify(&root.public()).is_ok());
        assert!(certificate.verify(&other.public()).is_err());
        let mut forged = certificate.clone();
        forged.installation = "inst-2".to_owned();
        assert!(forged.verify(&root.public()).is_err());
    }
}
