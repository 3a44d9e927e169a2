//! The one string that an engine is started with.

use super::x25519::PrivateKey;
use super::{EnginePublicKey, KeyError, RootHash, SecretText};
use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const PREFIX: &str = "dsvk1.";
const FIXED: usize = 32 + 32;
const CHECKSUM: usize = 4;
/// Longest name of a Kubernetes namespace.
const MAX_NAMESPACE: usize = 63;

/// An engine's private key, with the root hash it trusts and the namespace its Engine object lies in.
#[derive(Clone)]
pub struct EngineKey {
    private: PrivateKey,
    public: EnginePublicKey,
    root: RootHash,
    namespace: String,
}

/// Why a text is not an engine key. The text is never repeated, not even in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EngineKeyError {
    /// Something else was given.
    #[error(
        "an engine's private key starts with dsvk1. ; copy it whole from the engine's registration Secret or from dsv-engine keygen"
    )]
    Prefix,
    /// A character that base64url does not have.
    #[error(
        "the engine's private key has a character that does not belong there, or its last character is wrong; copy it again"
    )]
    Characters,
    /// Cut off.
    #[error("the engine's private key is too short, the end seems to be missing; copy it again")]
    TooShort,
    /// Altered.
    #[error("the engine's private key fails its checksum: a character was changed, lost or added; copy it again")]
    Checksum,
    /// The namespace in it cannot be one.
    #[error("a namespace is at most 63 lower-case letters, digits and dashes, and neither starts nor ends with a dash")]
    Namespace,
    /// No key could be made.
    #[error("no engine key can be made")]
    Key(#[source] KeyError),
}

impl EngineKey {
    /// Makes a key for an engine of that installation and namespace.
    pub fn generate(root: RootHash, namespace: &str) -> Result<Self, EngineKeyError> {
        Self::of(PrivateKey::generate().map_err(EngineKeyError::Key)?, root, namespace)
    }

    fn of(private: PrivateKey, root: RootHash, namespace: &str) -> Result<Self, EngineKeyError> {
        if !is_namespace(namespace) {
            return Err(EngineKeyError::Namespace);
        }
        let bytes = private.public().map_err(EngineKeyError::Key)?;
        let public = EnginePublicKey::from_bytes(bytes).map_err(|_| EngineKeyError::Key(KeyError::Random))?;
        Ok(Self {
            private,
            public,
            root,
            namespace: namespace.to_owned(),
        })
    }

    /// Reads the text form; white space around it is ignored.
    pub fn parse(text: &SecretText) -> Result<Self, EngineKeyError> {
        let body = text
            .reveal()
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(EngineKeyError::Prefix)?;
        let bytes = BASE64URL_NOPAD
            .decode(body.as_bytes())
            .map_err(|_| EngineKeyError::Characters)?;
        let bytes = Zeroizing::new(bytes);
        let length = bytes.len().checked_sub(CHECKSUM).ok_or(EngineKeyError::TooShort)?;
        let (content, checksum) = bytes.split_at_checked(length).ok_or(EngineKeyError::TooShort)?;
        let (fixed, namespace) = content.split_at_checked(FIXED).ok_or(EngineKeyError::TooShort)?;
        if checksum_of(content) != checksum {
            return Err(EngineKeyError::Checksum);
        }
        let (private, root) = fixed.split_at(FIXED / 2);
        let private = PrivateKey(Zeroizing::new(
            private.try_into().map_err(|_| EngineKeyError::TooShort)?,
        ));
        let root = root.try_into().map_err(|_| EngineKeyError::TooShort)?;
        let root = RootHash::from_bytes(root).map_err(|_| EngineKeyError::Checksum)?;
        let namespace = std::str::from_utf8(namespace).map_err(|_| EngineKeyError::Namespace)?;
        Self::of(private, root, namespace)
    }

    /// The text form: `dsvk1.` and base64url of private key, root hash, namespace and checksum.
    pub fn text(&self) -> SecretText {
        let mut bytes = Zeroizing::new(Vec::with_capacity(FIXED + MAX_NAMESPACE + CHECKSUM));
        bytes.extend_from_slice(self.private.0.as_slice());
        bytes.extend_from_slice(self.root.as_bytes());
        bytes.extend_from_slice(self.namespace.as_bytes());
        let checksum = checksum_of(&bytes);
        bytes.extend_from_slice(&checksum);
        let mut text = String::with_capacity(PREFIX.len() + BASE64URL_NOPAD.encode_len(bytes.len()));
        text.push_str(PREFIX);
        BASE64URL_NOPAD.encode_append(&bytes, &mut text);
        SecretText::new(text)
    }

    /// What `Engine.spec.publicKey` holds.
    pub fn public(&self) -> EnginePublicKey {
        self.public
    }

    /// The root that the engine trusts.
    pub fn root_hash(&self) -> &RootHash {
        &self.root
    }

    /// Where the Engine object lies.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn private_bytes(&self) -> &[u8] {
        self.private.0.as_slice()
    }
}

impl std::fmt::Debug for EngineKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EngineKey({} in {})", self.public, self.namespace)
    }
}

fn checksum_of(content: &[u8]) -> [u8; CHECKSUM] {
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(content).into();
    [a, b, c, d]
}

fn is_namespace(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=MAX_NAMESPACE).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::{EngineKey, EngineKeyError};
    use crate::keys::{RootHash, SecretText};
    use proptest::prelude::*;

    fn key() -> EngineKey {
        EngineKey::generate(RootHash::from_bytes([9; 32]).unwrap(), "databases").unwrap()
    }

    #[test]
    fn an_engine_key_comes_back_as_it_was_written() {
        let key = key();
        let read = EngineKey::parse(&SecretText::new(format!(" {}\n", key.text().reveal()))).unwrap();
        assert_eq!(read.public(), key.public());
        assert_eq!(read.root_hash(), key.root_hash());
        assert_eq!(read.namespace(), "databases");
        assert_eq!(read.text(), key.text());
    }

    #[test]
    fn a_mistyped_key_is_named_as_such_and_never_printed() {
        let text = key().text().reveal().to_owned();
        let mut typo = text.clone();
        typo.replace_range(20..21, if &text[20..21] == "x" { "y" } else { "x" });
        let cases = [
            ("hunter2".to_owned(), EngineKeyError::Prefix),
            (typo, EngineKeyError::Checksum),
            (text[..60].to_owned(), EngineKeyError::TooShort),
            (format!("{}*", &text[..text.len() - 1]), EngineKeyError::Characters),
        ];
        for (wrong, expected) in cases {
            let error = EngineKey::parse(&SecretText::new(wrong.clone())).unwrap_err();
            assert_eq!(error, expected);
            assert!(!error.to_string().contains(&wrong[7.min(wrong.len())..]) || wrong == "hunter2");
        }
    }

    #[test]
    fn debug_shows_the_public_half_only() {
        let key = key();
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.public().to_string()));
        assert!(!shown.contains(&key.text().reveal()[6..30]));
    }

    #[test]
    fn names_that_no_namespace_can_have_are_refused() {
        let root = RootHash::from_bytes([9; 32]).unwrap();
        let long = "a".repeat(64);
        for name in ["", "-a", "a-", "A", "a.b", "a b", long.as_str()] {
            assert_eq!(EngineKey::generate(root, name).unwrap_err(), EngineKeyError::Namespace);
        }
    }

    proptest! {
        #[test]
        fn any_change_of_one_character_is_noticed(position in 0usize..100, replacement in "[A-Za-z0-9_.-]") {
            let text = key().text().reveal().to_owned();
            let at = position % text.len();
            let mut changed = text.clone();
            changed.replace_range(at..=at, &replacement);
            prop_assume!(changed != text);
            prop_assert!(EngineKey::parse(&SecretText::new(changed)).is_err());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(dsvk1\\.)?.*") {
            let _ = EngineKey::parse(&SecretText::new(text));
        }
    }
}
