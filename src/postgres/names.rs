//! The part of an account's name that finds it again.

use crate::api::names::{UID_CHARS, base32_uid};

/// `_` and the base32 of the lease's UID: every account's name ends so. None if the UID is not a UUID.
pub(super) fn suffix(lease_uid: &str) -> Option<String> {
    base32_uid(lease_uid).map(|text| format!("_{text}"))
}

/// Length of [`suffix`] in characters.
pub(super) const SUFFIX_CHARS: usize = UID_CHARS + 1;

/// The end of a role's name that can be such a suffix; None if it is shorter.
pub(super) fn suffix_of(role: &str) -> Option<&str> {
    role.len().checked_sub(SUFFIX_CHARS).and_then(|start| role.get(start..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::role_name;

    #[test]
    fn every_account_name_ends_with_the_suffix() {
        let uid = "00000000-0000-0000-0000-0000000000ff";
        let suffix = suffix(uid).unwrap();
        assert_eq!(suffix.chars().count(), SUFFIX_CHARS);
        assert!(role_name("shop_", "orders", uid).unwrap().ends_with(&suffix));
        assert_eq!(
            suffix_of(&role_name("shop_", "orders", uid).unwrap()),
            Some(suffix.as_str())
        );
        assert_eq!((suffix_of("short"), suffix_of(&"ü".repeat(17))), (None, None));
        assert_eq!(super::suffix("not-a-uid"), None);
    }
}
