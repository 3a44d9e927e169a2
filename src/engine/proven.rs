//! Groups whose signed comment was checked. Every issue names its group, mostly the same few, and a signature costs more
//! processor time than all else that an engine does for an issue.

use crate::channel::frames::Group;
use crate::postgres::Signers;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Most that are remembered; then it begins anew.
const MOST: usize = 256;

/// What was checked, by everything that the check depends on. What was refused is checked again.
#[derive(Debug, Default)]
pub(super) struct ProvenGroups(Mutex<HashMap<(String, Vec<String>), Signers>>);

impl ProvenGroups {
    /// As [`Signers::of_group`].
    pub(super) fn signers(&self, group: &Group) -> Option<Signers> {
        let asked = (group.comment.clone(), group.signers.clone());
        let known = |all: &HashMap<_, Signers>| all.get(&asked).cloned();
        if let Some(signers) = known(&self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Some(signers);
        }
        let signers = Signers::of_group(group)?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(asked, signers.clone());
        Some(signers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{RoleComment, RoleKind, SigningKey};

    #[test]
    fn only_what_was_checked_with_the_same_keys_is_taken_for_proven() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let comment = RoleComment {
            kind: RoleKind::Group,
            installation: "ours".to_owned(),
            subject: "0b2e0a32-5d7c-4a5c-9a6e-2d1f3c4b5a69".to_owned(),
            role: "dsvg_x".to_owned(),
            claimed_at: "2026-11-22T10:00:00Z".parse().unwrap(),
            expires_at: None,
        };
        let group = |signers: &[&SigningKey]| Group {
            name: "dsvg_x".to_owned(),
            comment: comment.sign(&key).unwrap(),
            signers: signers.iter().map(|key| key.public().to_string()).collect(),
            grants: Vec::new(),
        };
        let proven = ProvenGroups::default();
        assert_eq!(proven.signers(&group(&[&other])), None);
        let signers = proven.signers(&group(&[&key])).unwrap();
        assert_eq!(proven.signers(&group(&[&key])), Some(signers));
        assert_eq!(
            proven.signers(&group(&[&other])),
            None,
            "other keys are another question"
        );
        assert_eq!(proven.0.lock().unwrap().len(), 1);
    }
}
