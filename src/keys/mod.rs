//! Keys, passwords, verifiers and signatures. The only place that sees private key bytes.
//!
//! No input or output here: who stores a key, and where, is decided elsewhere.

mod secret_text;

pub use secret_text::SecretText;
