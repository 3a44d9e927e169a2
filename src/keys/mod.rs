//! Keys, passwords, verifiers and signatures. The only place that sees private key bytes.
//!
//! No input or output here: who stores a key, and where, is decided elsewhere.

mod certificate;
mod comment;
mod engine_key;
mod login_hash;
mod password;
mod public;
mod root;
mod sealed;
mod secret_text;
mod signing;
mod token;
mod x25519;

pub use certificate::{
    CERTIFICATE_LIFE, CertificateError, ChannelCertificate, ChannelKey, RootLink, SigningCertificate,
};
pub use comment::{CommentError, RoleComment, RoleKind};
pub use engine_key::{EngineKey, EngineKeyError};
pub use login_hash::{HashError, hash_password, keyed_hash, keyed_hash_fits, password_fits, random_secret};
pub use password::{PASSWORD_LENGTH, Password, Verifier, VerifierError};
pub use public::{
    ChannelPublicKey, EnginePublicKey, KeyTextError, RootHash, RootPublicKey, Signature, SigningPublicKey,
};
pub use root::{KeyError, RootKey};
pub use sealed::{seal, unseal};
pub use secret_text::SecretText;
pub use signing::SigningKey;
pub use token::{Claims, TokenError, TokenKey};
