//! Text that must not be printed.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A secret value: wiped when dropped, and shown as `…` by `Debug`.
///
/// There is no `Display`, so a secret can reach a log or an error only through [`SecretText::reveal`], which is easy to
/// find in review. Comparison is for tests and change detection of values that we made or were given, never for
/// authenticating somebody: it is not constant in time.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes over a secret value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The value itself, for the one place that must have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::SecretText;

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", Some(SecretText::new("hunter2")));
        assert_eq!(shown, "Some(…)");
    }
}
