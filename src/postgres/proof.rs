//! Who decides whether a role is ours.

use crate::channel::frames::{Group, Revocation};
use crate::keys::{KeyTextError, RoleComment, RoleKind, SigningPublicKey};

/// Reads role comments: only a role whose comment proves it ours is ever changed or dropped.
pub trait Proof: Send + Sync {
    /// Whether each comment, found on a role, is ours, genuine, and names the lease beside it.
    fn are_accounts(&self, found: &[(&str, &Revocation)]) -> Vec<bool>;
    /// Whether this comment, found on a role of this name, is ours, genuine, and says that it is a role of this kind.
    fn is_named(&self, comment: &str, kind: RoleKind, role: &str) -> bool;
}

/// An installation, and the keys that may have signed its role comments: the present one and those before it.
///
/// The keys alone prove nothing: a cluster that was restored from a backup of another one has the same keys, and its accounts
/// are not that one's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signers {
    installation: String,
    keys: Vec<SigningPublicKey>,
}

impl Signers {
    /// An installation with its keys.
    pub fn new(installation: &str, keys: &[SigningPublicKey]) -> Self {
        Self {
            installation: installation.to_owned(),
            keys: keys.to_vec(),
        }
    }

    /// Reads the keys as a task carries them (base64url). One that cannot be read is an error: with a key missing, an
    /// account of ours would be taken for a stranger's.
    pub fn parse(installation: &str, keys: &[String]) -> Result<Self, KeyTextError> {
        let keys: Vec<SigningPublicKey> = keys.iter().map(|key| key.parse()).collect::<Result<_, _>>()?;
        Ok(Self::new(installation, &keys))
    }

    /// Those of a group, by its own comment and the keys beside it; none where that is not genuine.
    pub fn of_group(group: &Group) -> Option<Self> {
        let keys: Vec<SigningPublicKey> = group
            .signers
            .iter()
            .map(|key| key.parse())
            .collect::<Result<_, _>>()
            .ok()?;
        let said = RoleComment::verify(&group.comment, &keys).ok()?;
        Some(Self::new(&said.installation, &keys))
    }

    /// Which installation.
    pub fn installation(&self) -> &str {
        &self.installation
    }

    /// What a comment says, if it is genuine and of this installation.
    pub fn read(&self, comment: &str) -> Option<RoleComment> {
        let said = RoleComment::verify(comment, &self.keys).ok()?;
        (said.installation == self.installation).then_some(said)
    }
}

impl Proof for Signers {
    fn are_accounts(&self, found: &[(&str, &Revocation)]) -> Vec<bool> {
        let comments: Vec<&str> = found.iter().map(|(comment, _)| *comment).collect();
        let read = RoleComment::verify_all(&comments, &self.keys);
        let names = |said: &RoleComment, revocation: &Revocation| {
            said.installation == self.installation
                && said.kind == RoleKind::Lease
                && said.subject == revocation.lease_uid
        };
        read.iter()
            .zip(found)
            .map(|(said, (_, revocation))| said.as_ref().is_ok_and(|said| names(said, revocation)))
            .collect()
    }

    fn is_named(&self, comment: &str, kind: RoleKind, role: &str) -> bool {
        self.read(comment)
            .is_some_and(|said| said.kind == kind && said.role == role)
    }
}

/// Whether a comment found on a role of the group's name is the group's own: byte for byte, or the same words signed by
/// another key of the installation, as after a rotation. Only the claim time may differ: nobody decides by it.
pub(super) fn is_this_group(comment: &str, group: &Group) -> Result<bool, KeyTextError> {
    if comment == group.comment {
        return Ok(true);
    }
    let keys: Vec<SigningPublicKey> = group.signers.iter().map(|key| key.parse()).collect::<Result<_, _>>()?;
    let read = |comment: &str| RoleComment::verify(comment, &keys).ok();
    let (Some(wanted), Some(found)) = (read(&group.comment), read(comment)) else {
        return Ok(false);
    };
    Ok(found.kind == RoleKind::Group
        && RoleComment {
            claimed_at: wanted.claimed_at,
            ..found
        } == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::frames::OwnedObjects;
    use crate::keys::SigningKey;

    const UID: &str = "0b2e0a32-5d7c-4a5c-9a6e-2d1f3c4b5a69";

    fn comment(kind: RoleKind, installation: &str, subject: &str) -> RoleComment {
        RoleComment {
            kind,
            installation: installation.to_owned(),
            subject: subject.to_owned(),
            role: "dsvg_x".to_owned(),
            claimed_at: "2026-11-22T10:00:00Z".parse().unwrap(),
            expires_at: None,
        }
    }

    fn group(key: &SigningKey, signers: &[&SigningKey]) -> Group {
        Group {
            name: "dsvg_x".to_owned(),
            comment: comment(RoleKind::Group, "ours", UID).sign(key).unwrap(),
            signers: signers.iter().map(|key| key.public().to_string()).collect(),
            grants: Vec::new(),
        }
    }

    #[test]
    fn the_same_key_in_another_installation_proves_nothing() {
        let key = SigningKey::generate().unwrap();
        let signers = Signers::new("ours", &[key.public()]);
        let revocation = Revocation {
            lease_uid: UID.to_owned(),
            role: "dsvg_x".to_owned(),
            issue_deadline: "2026-11-22T10:00:00Z".parse().unwrap(),
            role_oid: None,
            owned_objects: OwnedObjects::Reassign,
        };
        let lease = |installation| comment(RoleKind::Lease, installation, UID).sign(&key).unwrap();
        let (ours, clone) = (lease("ours"), lease("a-clone"));
        let found = [(ours.as_str(), &revocation), (clone.as_str(), &revocation)];
        assert_eq!(signers.are_accounts(&found), [true, false]);
        let group = group(&key, &[&key]);
        assert!(signers.is_named(&group.comment, RoleKind::Group, &group.name));
        let of_clone = comment(RoleKind::Group, "a-clone", UID).sign(&key).unwrap();
        assert!(!signers.is_named(&of_clone, RoleKind::Group, &group.name));
    }

    #[test]
    fn a_group_signed_by_a_former_key_is_this_group_and_nothing_else_is() {
        let (new, old, strange) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        let group = group(&new, &[&new, &old]);
        let ours = |comment: RoleComment, key: &SigningKey| is_this_group(&comment.sign(key).unwrap(), &group).unwrap();
        let said = comment(RoleKind::Group, "ours", UID);
        assert!(ours(said.clone(), &old) && ours(said.clone(), &new));
        let earlier = RoleComment {
            claimed_at: "2026-11-20T10:00:00Z".parse().unwrap(),
            ..said.clone()
        };
        assert!(ours(earlier, &old), "the claim time decides nothing");
        assert!(!ours(said.clone(), &strange));
        assert!(!ours(comment(RoleKind::Group, "a-clone", UID), &old));
        assert!(!ours(comment(RoleKind::Group, "ours", "another-subject"), &old));
        assert!(!ours(comment(RoleKind::Lease, "ours", UID), &old));
        let renamed = RoleComment {
            role: "dsvg_y".to_owned(),
            ..said
        };
        assert!(!ours(renamed, &old));
        assert!(!is_this_group("a comment of somebody's", &group).unwrap());
    }
}
