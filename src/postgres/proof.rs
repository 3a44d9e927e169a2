//! Who decides whether a role is ours.

use crate::channel::frames::Revocation;
use crate::keys::{KeyTextError, RoleComment, RoleKind, SigningPublicKey};

/// Reads role comments: only a role whose comment proves it ours is ever changed or dropped.
pub trait Proof: Send + Sync {
    /// Whether this comment, found on a role, is ours, genuine, and names this lease.
    fn is_account(&self, comment: &str, revocation: &Revocation) -> bool;
    /// Whether this comment, found on a role of this name, is ours, genuine, and says that it is a role of this kind.
    fn is_named(&self, comment: &str, kind: RoleKind, role: &str) -> bool;
}

/// The keys that may have signed an installation's role comments, the present one and those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signers(Vec<SigningPublicKey>);

impl Signers {
    /// The keys of a task, already read.
    pub fn new(keys: &[SigningPublicKey]) -> Self {
        Self(keys.to_vec())
    }

    /// Reads the keys as a task carries them (base64url). One that cannot be read is an error: with a key missing, an
    /// account of ours would be taken for a stranger's.
    pub fn parse(keys: &[String]) -> Result<Self, KeyTextError> {
        keys.iter().map(|key| key.parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl Proof for Signers {
    fn is_account(&self, comment: &str, revocation: &Revocation) -> bool {
        RoleComment::verify(comment, &self.0)
            .is_ok_and(|said| said.kind == RoleKind::Lease && said.subject == revocation.lease_uid)
    }

    fn is_named(&self, comment: &str, kind: RoleKind, role: &str) -> bool {
        RoleComment::verify(comment, &self.0).is_ok_and(|said| said.kind == kind && said.role == role)
    }
}
