//! Hashes of what people and programs log in with: slow and salted for passwords, which people choose; quick and keyed for
//! client secrets, which are 256 random bits.

use super::SecretText;
use argon2::password_hash::{PasswordHash, SaltString};
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

/// 19 MiB and two rounds, the smallest setting that OWASP recommends: a login costs some 30 ms of one core.
const MEMORY_KIB: u32 = 19 * 1024;
const ROUNDS: u32 = 2;

/// The password could not be hashed, which a parameter out of range would be the cause of.
#[derive(Debug, thiserror::Error)]
#[error("the password cannot be hashed")]
pub struct HashError;

fn argon2() -> Result<Argon2<'static>, HashError> {
    let params = Params::new(MEMORY_KIB, ROUNDS, 1, None).map_err(|_| HashError)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The argon2id hash of a password with a fresh salt. Costs tens of milliseconds and 19 MiB.
pub fn hash_password(password: &SecretText) -> Result<SecretText, HashError> {
    let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).map_err(|_| HashError)?;
    let hash = argon2()?.hash_password(password.reveal().as_bytes(), &salt);
    hash.map(|hash| SecretText::new(hash.to_string()))
        .map_err(|_| HashError)
}

/// Whether the password is the one that was hashed. Costs what hashing costs, whatever the answer.
pub fn password_fits(password: &SecretText, hash: &SecretText) -> bool {
    let Ok(hash) = PasswordHash::new(hash.reveal()) else {
        return false;
    };
    argon2().is_ok_and(|argon2| argon2.verify_password(password.reveal().as_bytes(), &hash).is_ok())
}

/// A client secret or refresh token: 256 random bits in base64url.
pub fn random_secret() -> SecretText {
    SecretText::new(BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>()))
}

/// The keyed hash of a random secret, for the Secret that remembers it.
pub fn keyed_hash(key: &hmac::Key, secret: &SecretText) -> SecretText {
    SecretText::new(BASE64URL_NOPAD.encode(hmac::sign(key, secret.reveal().as_bytes()).as_ref()))
}

/// Whether the secret is the one that was hashed; compared in constant time.
pub fn keyed_hash_fits(key: &hmac::Key, secret: &SecretText, hash: &SecretText) -> bool {
    let hash = BASE64URL_NOPAD.decode(hash.reveal().as_bytes());
    hash.is_ok_and(|hash| hmac::verify(key, secret.reveal().as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_password_fits() {
        let password = SecretText::new("correct horse");
        let hash = hash_password(&password).unwrap();
        assert!(hash.reveal().starts_with("$argon2id$"));
        assert!(password_fits(&password, &hash));
        assert!(!password_fits(&SecretText::new("correct house"), &hash));
        assert!(!password_fits(&password, &SecretText::new("no hash")));
        assert_ne!(hash, hash_password(&password).unwrap(), "the salt is fresh");
    }

    #[test]
    fn only_the_same_secret_fits_under_the_same_key() {
        let key = |byte| hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32]);
        let secret = random_secret();
        let hash = keyed_hash(&key(1), &secret);
        assert!(keyed_hash_fits(&key(1), &secret, &hash));
        assert!(!keyed_hash_fits(&key(2), &secret, &hash));
        assert!(!keyed_hash_fits(&key(1), &random_secret(), &hash));
        assert_eq!(secret.reveal().len(), 43);
    }
}
