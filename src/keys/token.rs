//! Access tokens: signed with Ed25519 by a key of the installation, checked against that key and no other algorithm.

use super::root::Pair;
use super::{KeyError, SecretText};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a token says. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// `users:<name>` or `roles:<name>`.
    pub sub: String,
    /// The installation.
    pub iss: String,
    /// UID of the tenant's namespace: a token of one tenant is none of another.
    pub aud: String,
    /// When it was made, in seconds since 1970.
    pub iat: i64,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
    /// Its own random name.
    pub jti: String,
    /// Which login it came from: the id of the client credentials, or of the user. It is void when that is gone.
    pub via: String,
    /// Somebody else's token that this one stands for, sealed: it is void as soon as that one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
}

/// A token that cannot be taken. The token itself is never repeated.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is not signed by this key, is altered, is for somebody else, or has ended.
    #[error("the access token is not valid here or has ended; log in again")]
    Refused(#[source] jsonwebtoken::errors::Error),
    /// It could not be made.
    #[error("no access token can be made")]
    Unsigned(#[source] jsonwebtoken::errors::Error),
    /// Its head cannot be read, or names no key.
    #[error("this is no access token of ours; log in again")]
    Shape,
}

/// The key that signs access tokens.
pub struct TokenKey {
    id: String,
    stored: SecretText,
    sign: EncodingKey,
    check: DecodingKey,
}

impl TokenKey {
    /// Makes a new one.
    pub fn generate() -> Result<Self, KeyError> {
        Self::of(&Pair::generate()?)
    }

    /// Reads what [`TokenKey::store`] wrote.
    pub fn load(stored: &SecretText) -> Result<Self, KeyError> {
        Self::of(&Pair::load(stored)?)
    }

    fn of(pair: &Pair) -> Result<Self, KeyError> {
        let public = pair.public()?;
        let mut id = data_encoding::BASE64URL_NOPAD.encode(&Sha256::digest(public));
        id.truncate(16);
        Ok(Self {
            id,
            stored: pair.store(),
            sign: EncodingKey::from_ed_der(pair.pkcs8()),
            check: DecodingKey::from_ed_der(&public),
        })
    }

    /// PKCS#8 in base64, for the Secret that holds it.
    pub fn store(&self) -> SecretText {
        self.stored.clone()
    }

    /// Names the key in the tokens that it signed.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A signed token.
    pub fn sign(&self, claims: &Claims) -> Result<SecretText, TokenError> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.id.clone());
        let token = jsonwebtoken::encode(&header, claims, &self.sign).map_err(TokenError::Unsigned)?;
        Ok(SecretText::new(token))
    }

    /// What a token of this key says, if it is for `audience`, from `issuer`, and has not ended.
    pub fn check(&self, token: &str, issuer: &str, audience: &str) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = 0;
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        jsonwebtoken::decode(token, &self.check, &validation)
            .map(|data| data.claims)
            .map_err(TokenError::Refused)
    }

    /// Which key a token says that it was signed by. It proves nothing.
    pub fn named_by(token: &str) -> Result<String, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Shape)?;
        header.kid.ok_or(TokenError::Shape)
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenKey({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claims(exp: i64) -> Claims {
        Claims {
            sub: "users:admin".into(),
            iss: "here".into(),
            aud: "tenant-uid".into(),
            iat: 0,
            exp,
            jti: "j".into(),
            via: "v".into(),
            sealed: None,
        }
    }

    fn later() -> i64 {
        jiff::Timestamp::now().as_second() + 600
    }

    #[test]
    fn a_token_comes_back_from_its_own_key_only() {
        let (key, other) = (TokenKey::generate().unwrap(), TokenKey::generate().unwrap());
        let token = key.sign(&claims(later())).unwrap();
        let token = token.reveal();
        let again = TokenKey::load(&key.store()).unwrap();
        assert_eq!(again.check(token, "here", "tenant-uid").unwrap().sub, "users:admin");
        assert_eq!(TokenKey::named_by(token).unwrap(), again.id());
        assert!(other.check(token, "here", "tenant-uid").is_err());
        assert!(key.check(token, "there", "tenant-uid").is_err(), "another installation");
        assert!(key.check(token, "here", "other-uid").is_err(), "another tenant");
        let ended = key.sign(&claims(jiff::Timestamp::now().as_second() - 1)).unwrap();
        assert!(key.check(ended.reveal(), "here", "tenant-uid").is_err(), "it has ended");
        assert!(!format!("{key:?}").contains(key.store().reveal()));
    }

    #[test]
    fn a_token_without_signature_or_of_another_kind_is_refused() {
        let key = TokenKey::generate().unwrap();
        let encode = |text: &str| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
        let body = encode(&serde_json::to_string(&claims(later())).unwrap());
        let none = format!("{}.{body}.", encode(r#"{"alg":"none","typ":"JWT"}"#));
        assert!(key.check(&none, "here", "tenant-uid").is_err());
        // Signed with the public half as the secret of a symmetric algorithm.
        let public = Pair::load(&key.store()).unwrap().public().unwrap();
        let confused = jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            &claims(later()),
            &EncodingKey::from_secret(&public),
        );
        assert!(key.check(&confused.unwrap(), "here", "tenant-uid").is_err());
        let token = key.sign(&claims(later())).unwrap();
        let mut parts: Vec<&str> = token.reveal().split('.').collect();
        let forged = encode(
            &serde_json::to_string(&claims(later()))
                .unwrap()
                .replace("admin", "chief"),
        );
        parts[1] = &forged;
        assert!(key.check(&parts.join("."), "here", "tenant-uid").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-zA-Z0-9._-]*|.*") {
            let _ = TokenKey::named_by(&text);
        }
    }
}
