//! What the root key vouches for: the operator's channel key, the signing key, and the root that follows.

use super::x25519::PrivateKey;
use super::{ChannelPublicKey, KeyError, RootHash, RootPublicKey, Signature, SigningPublicKey};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long a channel certificate is good for. It is renewed weekly, so an engine's clock may be wrong by three weeks.
pub const CERTIFICATE_LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// More root rotations than any installation will see; bounds the work that a stranger's certificate can ask for.
const MAX_CHAIN: usize = 64;

/// The operator's X25519 key on the channel: made in memory, never stored, gone with the process.
pub struct ChannelKey {
    private: PrivateKey,
    public: ChannelPublicKey,
}

impl ChannelKey {
    /// Makes a new one.
    pub fn generate() -> Result<Self, KeyError> {
        let private = PrivateKey::generate()?;
        let public = ChannelPublicKey::from_bytes(private.public()?).map_err(|_| KeyError::Random)?;
        Ok(Self { private, public })
    }

    /// The public half.
    pub fn public(&self) -> ChannelPublicKey {
        self.public
    }

    pub(crate) fn private_bytes(&self) -> &[u8] {
        self.private.0.as_slice()
    }
}

impl std::fmt::Debug for ChannelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChannelKey({})", self.public)
    }
}

/// Why a certificate proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Another installation, or an impostor.
    #[error(
        "the operator's root key {found} is not the one that this engine key was made for ({pinned}); check the endpoint, or register the engine with this installation"
    )]
    WrongRoot {
        /// Hash of the certificate's root.
        found: RootHash,
        /// Hash that the engine key pins.
        pinned: RootHash,
    },
    /// Somebody else's certificate, shown by a machine in between.
    #[error(
        "the operator's certificate belongs to another channel key, so something between engine and operator poses as the operator"
    )]
    WrongChannelKey,
    /// Altered or forged.
    #[error("the signature on the operator's certificate is wrong")]
    BadSignature,
    /// Too old, or this machine's clock is wrong.
    #[error("the operator's certificate ended at {not_after}; check this machine's clock")]
    Expired {
        /// End of its validity.
        not_after: Timestamp,
    },
}

/// Ties the operator's channel key to the root key: the payload of the handshake's second message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelCertificate {
    /// The operator's key on the channel.
    pub channel_key: ChannelPublicKey,
    /// The root key that signed this.
    pub root_key: RootPublicKey,
    /// The installation.
    pub installation: String,
    /// End of validity.
    pub not_after: Timestamp,
    /// The key that signs role comments now.
    pub signing_key: SigningPublicKey,
    /// From older roots to this one, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<RootLink>,
    /// By the root key, over everything above except the chain, which carries its own signatures.
    pub signature: Signature,
}

impl ChannelCertificate {
    /// Whether this certificate, shown by the holder of `remote`, comes from the installation that `pinned` names.
    pub fn verify(&self, pinned: &RootHash, remote: &ChannelPublicKey, now: Timestamp) -> Result<(), CertificateError> {
        if !self.descends_from(pinned) {
            return Err(CertificateError::WrongRoot {
                found: self.root_key.hash(),
                pinned: *pinned,
            });
        }
        let message = self.message().map_err(|_| CertificateError::BadSignature)?;
        if !self.root_key.signed(&message, &self.signature) {
            return Err(CertificateError::BadSignature);
        }
        if self.channel_key != *remote {
            return Err(CertificateError::WrongChannelKey);
        }
        if self.not_after <= now {
            return Err(CertificateError::Expired {
                not_after: self.not_after,
            });
        }
        Ok(())
    }

    fn descends_from(&self, pinned: &RootHash) -> bool {
        if self.chain.len() > MAX_CHAIN {
            return false;
        }
        let mut trusted: Option<RootPublicKey> = None;
        for link in &self.chain {
            let follows = trusted.is_some_and(|root| root == link.old) || link.old.hash() == *pinned;
            if follows && link.verify() {
                trusted = Some(link.new);
            }
        }
        self.root_key.hash() == *pinned || trusted.is_some_and(|root| root == self.root_key)
    }

    pub(super) fn message(&self) -> Result<Vec<u8>, KeyError> {
        require_installation(&self.installation)?;
        let text = format!(
            "dsv-channel-certificate/1\n{}\n{}\n{}\n{}\n{}",
            self.channel_key, self.root_key, self.installation, self.not_after, self.signing_key
        );
        Ok(text.into_bytes())
    }
}

/// One rotation of the root key: the old one names the new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootLink {
    /// The root that engines pinned so far.
    pub old: RootPublicKey,
    /// The root that follows it.
    pub new: RootPublicKey,
    /// By the old root.
    pub signature: Signature,
}

impl RootLink {
    /// Whether the old root signed the new one.
    pub fn verify(&self) -> bool {
        self.old.signed(&link_message(&self.old, &self.new), &self.signature)
    }
}

/// Ties a signing key to the root key; stored beside the signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SigningCertificate {
    /// The key that signs role comments.
    pub signing_key: SigningPublicKey,
    /// The root that vouches for it.
    pub root_key: RootPublicKey,
    /// The installation.
    pub installation: String,
    /// By the root key.
    pub signature: Signature,
}

impl SigningCertificate {
    /// Whether `root` vouches for the signing key in that installation.
    pub fn verify(&self, root: &RootPublicKey) -> Result<(), CertificateError> {
        if self.root_key != *root {
            return Err(CertificateError::WrongRoot {
                found: self.root_key.hash(),
                pinned: root.hash(),
            });
        }
        let message = signing_message(&self.signing_key, &self.root_key, &self.installation)
            .map_err(|_| CertificateError::BadSignature)?;
        if root.signed(&message, &self.signature) {
            Ok(())
        } else {
            Err(CertificateError::BadSignature)
        }
    }
}

// Every signed message starts with a line of its own, so that a signature over one kind never passes for another,
// and no part can hold a line break, so that no two sets of parts give the same bytes.

pub(super) fn signing_message(
    signing_key: &SigningPublicKey,
    root_key: &RootPublicKey,
    installation: &str,
) -> Result<Vec<u8>, KeyError> {
    require_installation(installation)?;
    Ok(format!("dsv-signing-certificate/1\n{signing_key}\n{root_key}\n{installation}").into_bytes())
}

pub(super) fn link_message(old: &RootPublicKey, new: &RootPublicKey) -> Vec<u8> {
    format!("dsv-root-link/1\n{old}\n{new}").into_bytes()
}

fn require_installation(installation: &str) -> Result<(), KeyError> {
    if super::comment::is_token(installation, super::comment::INSTALLATION_LENGTH) {
        Ok(())
    } else {
        Err(KeyError::Installation)
    }
}

#[cfg(test)]
mod tests {
    use super::{CertificateError, ChannelCertificate, ChannelKey};
    use crate::keys::{RootKey, RootLink, SigningKey};
    use jiff::Timestamp;

    fn certified(root: &RootKey, key: &ChannelKey, chain: Vec<RootLink>) -> ChannelCertificate {
        let signing = SigningKey::generate().unwrap().public();
        root.certify_channel(
            &key.public(),
            &signing,
            "inst-1",
            now() + super::CERTIFICATE_LIFE,
            chain,
        )
        .unwrap()
    }

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    #[test]
    fn an_engine_accepts_only_the_installation_it_was_registered_with() {
        let (root, other) = (RootKey::generate().unwrap(), RootKey::generate().unwrap());
        let key = ChannelKey::generate().unwrap();
        let certificate = certified(&root, &key, vec![]);
        let read: ChannelCertificate = serde_json::from_str(&serde_json::to_string(&certificate).unwrap()).unwrap();
        assert_eq!(read.verify(&root.hash(), &key.public(), now()), Ok(()));
        assert!(matches!(
            certificate.verify(&other.hash(), &key.public(), now()),
            Err(CertificateError::WrongRoot { .. })
        ));
    }

    #[test]
    fn a_copied_certificate_is_useless_without_its_channel_key() {
        let root = RootKey::generate().unwrap();
        let certificate = certified(&root, &ChannelKey::generate().unwrap(), vec![]);
        let thief = ChannelKey::generate().unwrap();
        assert_eq!(
            certificate.verify(&root.hash(), &thief.public(), now()),
            Err(CertificateError::WrongChannelKey)
        );
    }

    #[test]
    fn a_certificate_ends() {
        let root = RootKey::generate().unwrap();
        let key = ChannelKey::generate().unwrap();
        let certificate = certified(&root, &key, vec![]);
        let late = certificate.not_after;
        assert!(matches!(
            certificate.verify(&root.hash(), &key.public(), late),
            Err(CertificateError::Expired { .. })
        ));
    }

    #[test]
    fn no_signed_part_of_a_certificate_can_be_changed() {
        let root = RootKey::generate().unwrap();
        let key = ChannelKey::generate().unwrap();
        let good = certified(&root, &key, vec![]);
        let mut longer = good.clone();
        longer.not_after = good.not_after + super::CERTIFICATE_LIFE;
        let mut elsewhere = good.clone();
        elsewhere.installation = "inst-2".to_owned();
        let mut injected = good.clone();
        injected.installation = "inst-1\nx".to_owned();
        let mut signer = good.clone();
        signer.signing_key = SigningKey::generate().unwrap().public();
        let mut channel = good.clone();
        channel.channel_key = ChannelKey::generate().unwrap().public();
        for forged in [longer, elsewhere, injected, signer, channel] {
            let remote = forged.channel_key;
            assert_eq!(
                forged.verify(&root.hash(), &remote, now()),
                Err(CertificateError::BadSignature)
            );
        }
    }

    #[test]
    fn engines_that_pin_an_older_root_follow_a_signed_rotation_and_no_other() {
        let roots: Vec<RootKey> = (0..3).map(|_| RootKey::generate().unwrap()).collect();
        let first = roots[0].succeeded_by(&roots[1].public()).unwrap();
        let second = roots[1].succeeded_by(&roots[2].public()).unwrap();
        let key = ChannelKey::generate().unwrap();
        let chained = certified(&roots[2], &key, vec![first.clone(), second.clone()]);
        for root in &roots {
            assert_eq!(chained.verify(&root.hash(), &key.public(), now()), Ok(()));
        }
        let gap = certified(&roots[2], &key, vec![first]);
        assert!(gap.verify(&roots[0].hash(), &key.public(), now()).is_err());
        let mut forged = second;
        forged.old = roots[0].public();
        let forged = certified(&roots[2], &key, vec![forged]);
        assert!(forged.verify(&roots[0].hash(), &key.public(), now()).is_err());
    }
}
