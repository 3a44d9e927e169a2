//! Public halves and hashes: 32 or 64 bytes with one text form each, base64url without padding.

use super::x25519;
use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{VerifyingKey, verify_batch};
use ring::signature::{ED25519, UnparsedPublicKey};
use sha2::{Digest, Sha256};

/// A text that should be a public key, a hash or a signature is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// Not base64url, or of another length.
    #[error("{what} must be {length} bytes in base64url without padding")]
    Form {
        /// What was expected.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// A point that agrees on the same secret with everybody.
    #[error("{what} is a point of small order, which proves nothing; make a new key")]
    Weak {
        /// What was expected.
        what: &'static str,
    },
}

macro_rules! public_bytes {
    ($(#[$doc:meta])* $name:ident, $length:literal, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $length]);

        impl $name {
            /// Takes the raw bytes.
            pub fn from_bytes(bytes: [u8; $length]) -> Result<Self, KeyTextError> {
                let check: fn(&[u8; $length]) -> bool = $check;
                if check(&bytes) { Ok(Self(bytes)) } else { Err(KeyTextError::Weak { what: $what }) }
            }

            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = KeyTextError;
            fn from_str(text: &str) -> Result<Self, KeyTextError> {
                let form = KeyTextError::Form { what: $what, length: $length };
                let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| form)?;
                Self::from_bytes(bytes.try_into().map_err(|_| form)?)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&BASE64URL_NOPAD.encode(&self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

public_bytes!(
    /// An engine's public key: what `Engine.spec.publicKey` holds.
    EnginePublicKey, 32, "an engine's public key", x25519::is_strong
);
public_bytes!(
    /// The operator's public key on the channel; lives as long as the operator's process.
    ChannelPublicKey, 32, "the operator's channel key", x25519::is_strong
);
public_bytes!(
    /// The public half of the installation's root key.
    RootPublicKey, 32, "the root key's public half", |_| true
);
public_bytes!(
    /// SHA-256 of a [`RootPublicKey`]: what an engine key pins.
    RootHash, 32, "a root hash", |_| true
);
public_bytes!(
    /// The public half of the key that signs role comments.
    SigningPublicKey, 32, "a signing key's public half", |_| true
);
public_bytes!(
    /// An Ed25519 signature.
    Signature, 64, "a signature", |_| true
);

impl RootPublicKey {
    /// The hash that engine keys pin.
    pub fn hash(&self) -> RootHash {
        RootHash(Sha256::digest(self.0).into())
    }

    pub(super) fn signed(&self, message: &[u8], signature: &Signature) -> bool {
        verifies(&self.0, message, signature)
    }
}

impl SigningPublicKey {
    /// Short name of the key inside a role comment: the first 8 bytes of its SHA-256, in hex. Finds a key, proves nothing.
    pub fn short_id(&self) -> String {
        data_encoding::HEXLOWER
            .encode(&Sha256::digest(self.0))
            .chars()
            .take(16)
            .collect()
    }

    pub(super) fn signed(&self, message: &[u8], signature: &Signature) -> bool {
        verifies(&self.0, message, signature)
    }

    /// Whether it signed all of these: less than half the time of asking for each. False also where only one is wrong, and
    /// which one it does not say.
    pub(super) fn signed_all(&self, signed: &[(&[u8], &Signature)]) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else {
            return false;
        };
        let messages: Vec<&[u8]> = signed.iter().map(|(message, _)| *message).collect();
        let signatures: Vec<ed25519_dalek::Signature> =
            signed.iter().map(|(_, signature)| (&signature.0).into()).collect();
        verify_batch(&messages, &signatures, &vec![key; signed.len()]).is_ok()
    }
}

fn verifies(key: &[u8; 32], message: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, key)
        .verify(message, &signature.0)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::{EnginePublicKey, KeyTextError, RootHash, RootPublicKey};
    use proptest::prelude::*;

    #[test]
    fn a_public_key_that_would_admit_anybody_is_refused() {
        let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let one = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for text in [zero, one] {
            assert!(matches!(
                text.parse::<EnginePublicKey>(),
                Err(KeyTextError::Weak { .. })
            ));
        }
    }

    #[test]
    fn the_root_hash_is_the_sha256_of_the_public_key() {
        let root = RootPublicKey::from_bytes([7; 32]).unwrap();
        assert_eq!(root.hash().to_string(), "S7Bvjk46dxXSAdVz0KpCN2LlXavWGiwCJ4-lbMbSlOA");
    }

    proptest! {
        #[test]
        fn public_texts_come_back_as_they_were_written(bytes in any::<[u8; 32]>()) {
            let hash = RootHash::from_bytes(bytes).unwrap();
            prop_assert_eq!(hash.to_string().parse::<RootHash>(), Ok(hash));
            prop_assert_eq!(serde_json::from_str::<RootHash>(&serde_json::to_string(&hash).unwrap()).unwrap(), hash);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = text.parse::<EnginePublicKey>();
        }
    }
}
