//! Texts that are given away and that only this installation can read when they come back.

use super::SecretText;
use data_encoding::BASE64URL_NOPAD;
use rand::RngExt;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

/// What the key is derived for; another use gets another one.
const PURPOSE: &[u8] = b"dsv sealed text 1";

/// Seals a text. It opens only with the same `bound`, so what was sealed for one place opens at no other.
pub fn seal(key: &hmac::Key, text: &SecretText, bound: &str) -> Option<String> {
    let bytes: [u8; NONCE_LEN] = rand::rng().random();
    let mut sealed = text.reveal().as_bytes().to_vec();
    let nonce = Nonce::assume_unique_for_key(bytes);
    aead(key)?
        .seal_in_place_append_tag(nonce, Aad::from(bound.as_bytes()), &mut sealed)
        .ok()?;
    let whole: Vec<u8> = bytes.into_iter().chain(sealed).collect();
    Some(BASE64URL_NOPAD.encode(&whole))
}

/// What was sealed; none where it was touched, or is another installation's, or bound to something else.
pub fn unseal(key: &hmac::Key, sealed: &str, bound: &str) -> Option<SecretText> {
    let whole = BASE64URL_NOPAD.decode(sealed.as_bytes()).ok()?;
    let (nonce, rest) = whole.split_first_chunk::<NONCE_LEN>()?;
    let mut rest = rest.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let opened = aead(key)?
        .open_in_place(nonce, Aad::from(bound.as_bytes()), &mut rest)
        .ok()?;
    let text = std::str::from_utf8(opened).ok().map(SecretText::new);
    zeroize::Zeroize::zeroize(&mut rest);
    text
}

fn aead(key: &hmac::Key) -> Option<LessSafeKey> {
    let derived = hmac::sign(key, PURPOSE);
    UnboundKey::new(&CHACHA20_POLY1305, derived.as_ref())
        .ok()
        .map(LessSafeKey::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32])
    }

    #[test]
    fn what_was_sealed_opens_here_untouched_and_in_its_place_only() {
        let text = SecretText::new("a.b.c");
        let sealed = seal(&key(1), &text, "tenant").unwrap();
        assert!(!sealed.contains("a.b.c"));
        assert_eq!(unseal(&key(1), &sealed, "tenant"), Some(text.clone()));
        assert_eq!(unseal(&key(2), &sealed, "tenant"), None);
        assert_eq!(unseal(&key(1), &sealed, "other"), None);
        assert_ne!(seal(&key(1), &text, "tenant").unwrap(), sealed, "no two look alike");
        let mut touched = BASE64URL_NOPAD.decode(sealed.as_bytes()).unwrap();
        let last = touched.len() - 1;
        touched[last] ^= 1;
        assert_eq!(unseal(&key(1), &BASE64URL_NOPAD.encode(&touched), "tenant"), None);
        for short in ["", "AAAA", "!"] {
            assert_eq!(unseal(&key(1), short, "tenant"), None);
        }
    }
}
