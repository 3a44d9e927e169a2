//! The signed comment that proves a database role to be ours.
//!
//! It is one line of printable ASCII without quotes or backslashes, so it can stand in any SQL literal.

use super::{KeyError, Signature, SigningKey, SigningPublicKey};
use jiff::Timestamp;

const PREFIX: &str = "dsv/";
const VERSION: &str = "1";
const MAX_COMMENT: usize = 1024;
pub(super) const INSTALLATION_LENGTH: usize = 200;
const SUBJECT_LENGTH: usize = 64;
/// PostgreSQL cuts longer names off.
const ROLE_LENGTH: usize = 63;

/// What a role of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoleKind {
    /// An issued account.
    Lease,
    /// The role that carries the grants of a dynamic secret.
    Group,
    /// The role that inherits what a revoked account owned.
    Keeper,
}

impl RoleKind {
    fn text(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Group => "group",
            Self::Keeper => "keeper",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Lease, Self::Group, Self::Keeper]
            .into_iter()
            .find(|kind| kind.text() == text)
    }
}

/// What a role comment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleComment {
    /// What the role is for.
    pub kind: RoleKind,
    /// The installation that made it.
    pub installation: String,
    /// UID of the lease or of the DynamicSecret.
    pub subject: String,
    /// Name that the role was made with.
    pub role: String,
    /// When it was claimed, in the database's clock.
    pub claimed_at: Timestamp,
    /// When it must be gone, in the database's clock; none for roles that stay.
    pub expires_at: Option<Timestamp>,
}

/// Why a role's comment proves nothing, or why none can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommentError {
    /// Somebody else's role, or one without a comment.
    #[error("the role has no comment of ours")]
    NotOurs,
    /// Signed by a key that was not given.
    #[error("the role's comment names the signing key {id}, which this server's record does not list")]
    UnknownKey {
        /// The key's short id.
        id: String,
    },
    /// Altered, or forged.
    #[error("the signature in the role's comment is wrong: it was altered or forged")]
    BadSignature,
    /// It starts like ours, but is not.
    #[error("the role's comment is malformed: {what}")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// The signing key failed.
    #[error("the role's comment cannot be signed")]
    Unsigned(#[source] KeyError),
}

impl RoleComment {
    /// The comment as text. The same comment and key give the same text, byte for byte.
    ///
    /// Fails if a part has characters that do not belong in a comment (see [`CommentError::Malformed`]).
    pub fn sign(&self, key: &SigningKey) -> Result<String, CommentError> {
        let body = self.body(&key.public().short_id())?;
        let signature = key.sign(body.as_bytes()).map_err(CommentError::Unsigned)?;
        Ok(format!("{body} sig={signature}"))
    }

    /// Reads a comment and checks who signed it. Which installation it names is for the caller to compare.
    pub fn verify(text: &str, keys: &[SigningPublicKey]) -> Result<Self, CommentError> {
        Claimed::read(text, keys)?.proven()
    }

    /// As [`RoleComment::verify`] for each of them, in their order. The signatures of one key are checked together, and one
    /// by one only where they do not all fit.
    pub fn verify_all(texts: &[&str], keys: &[SigningPublicKey]) -> Vec<Result<Self, CommentError>> {
        let read: Vec<_> = texts.iter().map(|text| Claimed::read(text, keys)).collect();
        let genuine: Vec<SigningPublicKey> = keys.iter().filter(|key| signed_all(key, &read)).copied().collect();
        let prove = |claimed: Claimed<'_>| {
            if genuine.contains(&claimed.key) {
                Ok(claimed.comment)
            } else {
                claimed.proven()
            }
        };
        read.into_iter().map(|claimed| claimed.and_then(prove)).collect()
    }

    fn body(&self, key: &str) -> Result<String, CommentError> {
        self.check()?;
        let expires = self.expires_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
        Ok(format!(
            "{PREFIX}{VERSION} kind={} inst={} subject={} role={} claimed={} expires={expires} key={key}",
            self.kind.text(),
            self.installation,
            self.subject,
            self.role,
            self.claimed_at,
        ))
    }

    fn check(&self) -> Result<(), CommentError> {
        let parts = [
            (
                &self.installation,
                INSTALLATION_LENGTH,
                "its installation id has other characters or is too long",
            ),
            (&self.subject, SUBJECT_LENGTH, "its subject is no UID"),
            (
                &self.role,
                ROLE_LENGTH,
                "its role name has other characters or is longer than 63 bytes",
            ),
        ];
        let wrong = parts.into_iter().find(|(part, longest, _)| !is_token(part, *longest));
        wrong.map_or(Ok(()), |(_, _, what)| Err(malformed(what)))
    }

    fn read(body: &str) -> Result<(Self, String), CommentError> {
        let mut words = body.split(' ');
        if words.next().and_then(|word| word.strip_prefix(PREFIX)) != Some(VERSION) {
            return Err(malformed("its version is not 1"));
        }
        let mut part = |name: &str, what| {
            let word = words.next().and_then(|word| word.strip_prefix(name));
            word.and_then(|word| word.strip_prefix('=')).ok_or(malformed(what))
        };
        let kind = part("kind", "it has no kind")?;
        let installation = part("inst", "it has no installation")?.to_owned();
        let subject = part("subject", "it has no subject")?.to_owned();
        let role = part("role", "it has no role")?.to_owned();
        let claimed = part("claimed", "it has no claim time")?;
        let expires = part("expires", "it has no expiry")?;
        let key = part("key", "it has no key id")?.to_owned();
        let comment = Self {
            kind: RoleKind::parse(kind).ok_or(malformed("its kind is unknown"))?,
            installation,
            subject,
            role,
            claimed_at: claimed
                .parse()
                .map_err(|_| malformed("its claim time cannot be read"))?,
            expires_at: match expires {
                "-" => None,
                at => Some(at.parse().map_err(|_| malformed("its expiry cannot be read"))?),
            },
        };
        // One comment has one spelling: anything that reads alike but is written otherwise is not ours.
        if comment.body(&key)? == body {
            Ok((comment, key))
        } else {
            Err(malformed("it is not written as we write it"))
        }
    }
}

/// A comment with a signature that nobody has checked yet.
struct Claimed<'a> {
    comment: RoleComment,
    body: &'a str,
    signature: Signature,
    /// By which it says that it was signed.
    key: SigningPublicKey,
}

impl<'a> Claimed<'a> {
    fn read(text: &'a str, keys: &[SigningPublicKey]) -> Result<Self, CommentError> {
        if !text.starts_with(PREFIX) {
            return Err(CommentError::NotOurs);
        }
        if text.len() > MAX_COMMENT {
            return Err(malformed("it is too long"));
        }
        let (body, signature) = text.rsplit_once(" sig=").ok_or(malformed("it has no signature"))?;
        let signature = signature
            .parse()
            .map_err(|_| malformed("its signature cannot be read"))?;
        let (comment, id) = RoleComment::read(body)?;
        let key = keys.iter().find(|key| key.short_id() == id);
        Ok(Self {
            comment,
            body,
            signature,
            key: *key.ok_or(CommentError::UnknownKey { id })?,
        })
    }

    fn proven(self) -> Result<RoleComment, CommentError> {
        if self.key.signed(self.body.as_bytes(), &self.signature) {
            Ok(self.comment)
        } else {
            Err(CommentError::BadSignature)
        }
    }
}

/// Whether this key signed everything that says so; also where that is nothing.
fn signed_all(key: &SigningPublicKey, read: &[Result<Claimed<'_>, CommentError>]) -> bool {
    let its = read.iter().flatten().filter(|claimed| claimed.key == *key);
    let signed: Vec<(&[u8], &Signature)> = its
        .map(|claimed| (claimed.body.as_bytes(), &claimed.signature))
        .collect();
    key.signed_all(&signed)
}

fn malformed(what: &'static str) -> CommentError {
    CommentError::Malformed { what }
}

/// Letters, digits and a few signs that mean nothing to SQL, to JSON or to a line of words.
pub(super) fn is_token(text: &str, longest: usize) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/');
    (1..=longest).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::{CommentError, RoleComment, RoleKind};
    use crate::keys::SigningKey;
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn comment() -> RoleComment {
        RoleComment {
            kind: RoleKind::Lease,
            installation: "3f0c/77aa/dsv".to_owned(),
            subject: "0b2e0a32-5d7c-4a5c-9a6e-2d1f3c4b5a69".to_owned(),
            role: "shop_orders-app_4qa7xkzv3mnsdw6yqk5b2t4rfe".to_owned(),
            claimed_at: "2026-11-22T10:00:00.123456Z".parse().unwrap(),
            expires_at: Some("2026-11-22T11:00:00Z".parse().unwrap()),
        }
    }

    #[test]
    fn a_signed_comment_reads_back_and_is_the_same_every_time() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::load(&key.store()).unwrap();
        for comment in [
            comment(),
            RoleComment {
                kind: RoleKind::Keeper,
                expires_at: None,
                ..comment()
            },
        ] {
            let text = comment.sign(&key).unwrap();
            assert_eq!(text, comment.sign(&again).unwrap());
            assert_eq!(RoleComment::verify(&text, &[key.public()]), Ok(comment));
        }
    }

    #[test]
    fn the_form_of_a_comment_never_changes() {
        let key = SigningKey::generate().unwrap();
        let text = comment().sign(&key).unwrap();
        let expected = format!(
            "dsv/1 kind=lease inst=3f0c/77aa/dsv subject=0b2e0a32-5d7c-4a5c-9a6e-2d1f3c4b5a69 \
             role=shop_orders-app_4qa7xkzv3mnsdw6yqk5b2t4rfe claimed=2026-11-22T10:00:00.123456Z \
             expires=2026-11-22T11:00:00Z key={} sig=",
            key.public().short_id()
        );
        assert!(text.starts_with(&expected), "{text}");
    }

    #[test]
    fn no_byte_of_a_comment_can_be_changed() {
        let key = SigningKey::generate().unwrap();
        let text = comment().sign(&key).unwrap();
        for at in 0..text.len() {
            for flip in [0x01, 0x02, 0x10, 0x20, 0x40] {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= flip;
                let changed = String::from_utf8(bytes).unwrap();
                assert!(RoleComment::verify(&changed, &[key.public()]).is_err(), "{changed}");
            }
        }
    }

    #[test]
    fn each_kind_of_stranger_is_told_apart() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let text = comment().sign(&key).unwrap();
        assert_eq!(
            RoleComment::verify("billing service", &[key.public()]),
            Err(CommentError::NotOurs)
        );
        assert_eq!(RoleComment::verify("", &[key.public()]), Err(CommentError::NotOurs));
        let id = key.public().short_id();
        assert_eq!(
            RoleComment::verify(&text, &[other.public()]),
            Err(CommentError::UnknownKey { id })
        );
        assert!(RoleComment::verify(&text, &[]).is_err());
        let swapped = text.replace("T11:", "T12:");
        assert_eq!(
            RoleComment::verify(&swapped, &[other.public(), key.public()]),
            Err(CommentError::BadSignature)
        );
        let newer = text.replace("dsv/1", "dsv/2");
        assert!(matches!(
            RoleComment::verify(&newer, &[key.public()]),
            Err(CommentError::Malformed { .. })
        ));
    }

    #[test]
    fn many_comments_are_told_apart_as_each_alone() {
        let keys = [(); 3].map(|()| SigningKey::generate().unwrap());
        let known = [keys[0].public(), keys[1].public()];
        let signed = |number: usize, key: usize| {
            let subject = number.to_string();
            RoleComment { subject, ..comment() }.sign(&keys[key]).unwrap()
        };
        let genuine: Vec<String> = (0..40).map(|number| signed(number, number % 2)).collect();
        let mut mixed = genuine.clone();
        // One that another key signed, one that was altered, one with another's signature, and none of ours.
        mixed[7] = signed(7, 2);
        mixed[20] = mixed[20].replace("T11:", "T12:");
        let (body, _) = genuine[31].rsplit_once(" sig=").unwrap();
        let (_, signature) = genuine[33].rsplit_once(" sig=").unwrap();
        mixed[31] = format!("{body} sig={signature}");
        mixed.push("billing service".to_owned());
        for texts in [genuine, mixed, Vec::new()] {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let alone: Vec<_> = texts.iter().map(|text| RoleComment::verify(text, &known)).collect();
            assert_eq!(RoleComment::verify_all(&texts, &known), alone);
        }
    }

    #[test]
    fn what_could_break_out_of_an_sql_literal_is_never_signed() {
        let key = SigningKey::generate().unwrap();
        for bad in ["a'b", "a\\b", "a\nb", "a b", "a\"b", "a$b", "a\u{0}b", "ä", "", "a=b"] {
            for comment in [
                RoleComment {
                    role: bad.to_owned(),
                    ..comment()
                },
                RoleComment {
                    subject: bad.to_owned(),
                    ..comment()
                },
                RoleComment {
                    installation: bad.to_owned(),
                    ..comment()
                },
            ] {
                assert!(
                    matches!(comment.sign(&key), Err(CommentError::Malformed { .. })),
                    "{bad:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn every_comment_that_can_be_signed_reads_back(
            installation in "[A-Za-z0-9._:/-]{1,200}", subject in "[a-f0-9-]{1,64}", role in "[A-Za-z0-9._-]{1,63}",
            claimed in 0i64..4_000_000_000, micros in 0i32..1_000_000, expires in proptest::option::of(0i64..4_000_000_000)
        ) {
            let key = SigningKey::generate().unwrap();
            let comment = RoleComment {
                kind: RoleKind::Group, installation, subject, role,
                claimed_at: Timestamp::new(claimed, micros * 1000).unwrap(),
                expires_at: expires.map(|at| Timestamp::from_second(at).unwrap()),
            };
            let text = comment.sign(&key).unwrap();
            prop_assert!(text.bytes().all(|b| b.is_ascii_graphic() || b == b' '));
            prop_assert!(!text.contains(['\'', '\\', '"']));
            prop_assert_eq!(RoleComment::verify(&text, &[key.public()]), Ok(comment));
        }

        #[test]
        fn no_comment_makes_the_parser_panic(text in "(dsv/1 )?.*( sig=)?.*") {
            let _ = RoleComment::verify(&text, &[]);
        }
    }
}
