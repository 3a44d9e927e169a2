//! Passwords of issued accounts and what may be shown of them: the SCRAM verifier.

use super::SecretText;
use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use rand::RngExt;
use rand::distr::Alphanumeric;
use serde::{Deserialize, Serialize};
use sha2::digest::KeyInit;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// 32 characters of 62 are 190 bits, and none of them needs quoting in a URL, a shell or a connection string.
pub const PASSWORD_LENGTH: usize = 32;

/// The password of one account, in plain text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Password(SecretText);

impl Password {
    /// Makes a new one from the thread's cryptographic generator.
    pub fn generate() -> Self {
        let mut rng = rand::rng();
        let mut text = String::with_capacity(PASSWORD_LENGTH);
        text.extend((0..PASSWORD_LENGTH).map(|_| char::from(rng.sample(Alphanumeric))));
        Self(SecretText::new(text))
    }

    /// The password itself, for the one place that must have it.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }
}

impl From<Password> for SecretText {
    fn from(password: Password) -> Self {
        password.0
    }
}

/// The form of a password that a PostgreSQL server stores: it admits nobody, but allows guessing offline.
///
/// `Debug` does not show it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Verifier(String);

impl Verifier {
    /// The only accepted form, as a regular expression that CEL, PostgreSQL and Rust read alike.
    ///
    /// The last character before each `=` is limited to those whose unused bits are zero, so one verifier has one spelling.
    pub const PATTERN: &str = "^SCRAM-SHA-256\\$4096:[A-Za-z0-9+/]{21}[AQgw]==\\$[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=:[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$";

    /// Computes the verifier of a password with a fresh salt. Costs milliseconds of processor time.
    pub fn of(password: &Password) -> Self {
        Self(scram_sha_256(password.reveal(), &rand::random()))
    }

    /// Accepts a verifier that somebody else made.
    ///
    /// PostgreSQL takes whatever is not exactly a verifier for a password in plain text, so nothing else may pass here.
    pub fn parse(text: &str) -> Result<Self, VerifierError> {
        let body = text.strip_prefix("SCRAM-SHA-256$").ok_or(VerifierError::Scheme)?;
        let body = body.strip_prefix("4096:").ok_or(VerifierError::Iterations)?;
        let (salt, keys) = body.split_once('$').ok_or(VerifierError::Shape)?;
        let (stored, server) = keys.split_once(':').ok_or(VerifierError::Shape)?;
        require(salt, 16, VerifierError::Salt)?;
        require(stored, 32, VerifierError::Keys)?;
        require(server, 32, VerifierError::Keys)?;
        Ok(Self(text.to_owned()))
    }

    /// The text, as PostgreSQL stores it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How often the hash is repeated: some clients refuse less, and the server and each client pay for more at every login.
const ITERATIONS: u32 = 4096;

/// RFC 5802, section 3, with the hash of RFC 7677. Only for passwords of printable ASCII: nothing prepares it (SASLprep).
fn scram_sha_256(password: &str, salt: &[u8; 16]) -> String {
    let salted: Zeroizing<[u8; 32]> = Zeroizing::new(pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(
        password.as_bytes(),
        salt,
        ITERATIONS,
    ));
    let client_key = Zeroizing::new(mac(&salted, b"Client Key"));
    let (stored_key, server_key) = (Sha256::digest(client_key.as_slice()), mac(&salted, b"Server Key"));
    let [salt, stored_key, server_key] = [salt.as_slice(), &stored_key, &server_key].map(|bytes| BASE64.encode(bytes));
    format!("SCRAM-SHA-256${ITERATIONS}:{salt}${stored_key}:{server_key}")
}

fn mac(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    // A key of the block's size is taken as it is; one of 32 bytes is filled up with zeros (RFC 2104).
    let mut block = Zeroizing::new([0; 64]);
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let mut mac = <Hmac<Sha256> as KeyInit>::new((&*block).into());
    mac.update(text);
    mac.finalize().into_bytes().into()
}

fn require(base64: &str, length: usize, otherwise: VerifierError) -> Result<(), VerifierError> {
    let bytes = BASE64.decode(base64.as_bytes()).map(Zeroizing::new);
    if bytes.is_ok_and(|bytes| bytes.len() == length) {
        Ok(())
    } else {
        Err(otherwise)
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(…)")
    }
}

impl TryFrom<String> for Verifier {
    type Error = VerifierError;
    fn try_from(text: String) -> Result<Self, VerifierError> {
        Self::parse(&text)
    }
}

impl From<Verifier> for String {
    fn from(verifier: Verifier) -> Self {
        verifier.0
    }
}

/// Why a text is not a verifier. The text itself is never repeated: it may be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// Another scheme, or a password in plain text.
    #[error("a verifier starts with SCRAM-SHA-256$; give the SCRAM form of the password, never the password")]
    Scheme,
    /// Another iteration count.
    #[error("the verifier must be made with exactly 4096 iterations")]
    Iterations,
    /// A separator is missing.
    #[error("the verifier must have the form SCRAM-SHA-256$4096:<salt>$<stored key>:<server key>")]
    Shape,
    /// The salt.
    #[error("the verifier's salt must be 16 bytes in base64")]
    Salt,
    /// One of the keys.
    #[error("the verifier's stored key and server key must be 32 bytes each in base64")]
    Keys,
}

#[cfg(test)]
mod tests {
    use super::{Password, Verifier, VerifierError};
    use proptest::prelude::*;

    #[test]
    fn generated_passwords_are_long_plain_and_never_repeat() {
        let (one, two) = (Password::generate(), Password::generate());
        assert_eq!(one.reveal().len(), 32);
        assert!(one.reveal().bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_ne!(one, two);
        assert!(!format!("{one:?}").contains(one.reveal()));
    }

    #[test]
    fn the_example_of_rfc_7677_has_the_keys_that_others_compute() {
        let salt = data_encoding::BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        assert_eq!(
            super::scram_sha_256("pencil", salt.as_slice().try_into().unwrap()),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn a_computed_verifier_is_accepted_and_matches_the_published_pattern() {
        let verifier = Verifier::of(&Password::generate());
        assert_eq!(Verifier::parse(verifier.as_str()).as_ref(), Ok(&verifier));
        assert!(
            regex::Regex::new(Verifier::PATTERN)
                .unwrap()
                .is_match(verifier.as_str())
        );
        assert!(!format!("{verifier:?}").contains("SCRAM"));
    }

    #[test]
    fn what_postgresql_would_take_for_a_plain_password_is_refused() {
        let good = Verifier::of(&Password::generate()).as_str().to_owned();
        let cases = [
            (String::new(), VerifierError::Scheme),
            ("hunter2".to_owned(), VerifierError::Scheme),
            ("md5c3fcd3d76192e4007dfb496cca67e13b".to_owned(), VerifierError::Scheme),
            (good.to_lowercase(), VerifierError::Scheme),
            (format!(" {good}"), VerifierError::Scheme),
            (good.replace("4096", "40960"), VerifierError::Iterations),
            (good.replace("4096", "1"), VerifierError::Iterations),
            ("SCRAM-SHA-256$4096:".to_owned(), VerifierError::Shape),
            ("SCRAM-SHA-256$4096:AAAA$x:y".to_owned(), VerifierError::Salt),
            (format!("{good} "), VerifierError::Keys),
            (format!("{good}\n"), VerifierError::Keys),
            (good[..good.len() - 1].to_owned(), VerifierError::Keys),
        ];
        for (text, error) in cases {
            assert_eq!(Verifier::parse(&text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_and_the_published_pattern_agree(
            position in 0usize..133, byte in 0x20u8..0x7f, cut in 0usize..133, damage in 0u8..3
        ) {
            let mut text = "SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$9ckEfL4R8L+XXlkmMF1f5pcyhZTYIoE+3jpLmUlkeMA=:\
                ilyvV9T5MG7UZT0DtTUwHgKFFTtCPl5YDGrR+ieBj2E=".as_bytes().to_vec();
            match damage {
                0 => { let at = position % text.len(); text[at] = byte; }
                1 => text.truncate(cut),
                _ => text.insert(position.min(text.len()), byte),
            }
            let text = String::from_utf8(text).unwrap();
            let matches = regex::Regex::new(Verifier::PATTERN).unwrap().is_match(&text);
            prop_assert_eq!(Verifier::parse(&text).is_ok(), matches, "{}", text);
        }
    }
}
