//! Secret paths as clients write them: with `/` or `:`, with a suffix that says what is asked, or a UUID instead.

use uuid::Uuid;

/// Longest path in characters.
pub const MAX_PATH: usize = 500;

/// A path in the one form in which it is kept and shown: segments joined by `:`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretPath(String);

/// A text that is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing is left of it.
    #[error("path is empty")]
    Empty,
    /// A character that a path cannot have.
    #[error("path must contain only letters, numbers, underscores, dashes, dots, @, + and the separators : and /")]
    Character,
    /// A segment such as `..`.
    #[error("every part of a path must contain a letter or a number")]
    Segment,
    /// Too long.
    #[error("path must not be longer than {MAX_PATH} characters")]
    Long,
}

impl SecretPath {
    /// Reads a path in either form; empty segments count as not there.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > MAX_PATH {
            return Err(PathError::Long);
        }
        let segments: Vec<&str> = text.split(['/', ':']).filter(|segment| !segment.is_empty()).collect();
        if segments.is_empty() {
            return Err(PathError::Empty);
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '@' | '+' | '.' | '_' | '-');
        if !segments.iter().all(|segment| segment.chars().all(fits)) {
            return Err(PathError::Character);
        }
        if !segments.iter().all(|s| s.chars().any(|c| c.is_ascii_alphanumeric())) {
            return Err(PathError::Segment);
        }
        Ok(Self(segments.join(":")))
    }

    /// With `:` between segments.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same below another path.
    pub fn below(&self, prefix: &str) -> Self {
        Self(format!("{prefix}:{}", self.0))
    }
}

impl std::fmt::Display for SecretPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands in the place of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locator {
    /// A path.
    Path(SecretPath),
    /// An id.
    Id(Uuid),
}

impl Locator {
    /// A lone UUID is an id, everything else a path.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let lone = text.trim_matches(['/', ':']);
        if lone.len() == 36
            && let Ok(id) = Uuid::parse_str(lone)
        {
            return Ok(Self::Id(id));
        }
        SecretPath::parse(text).map(Self::Path)
    }
}

/// What is asked of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Suffix {
    /// The thing itself.
    None,
    /// `::description`.
    Description,
    /// `::listpaths`.
    ListPaths,
    /// `/version/N`.
    Version(u64),
    /// `/rollback/N`.
    Rollback(u64),
    /// `/restore`.
    Restore,
}

/// Splits what is asked off the path. The last segments are a suffix only where `method` and body make them one: a secret
/// may be called `restore` itself, and then its own writes carry a body.
pub fn split<'a>(text: &'a str, method: &http::Method, has_body: bool) -> (&'a str, Suffix) {
    if let Some(path) = text.strip_suffix("::description") {
        return (path, Suffix::Description);
    }
    if let Some(path) = text.strip_suffix("::listpaths") {
        return (path, Suffix::ListPaths);
    }
    let Some((rest, last)) = cut(text) else {
        return (text, Suffix::None);
    };
    let numbered = |word: &str| {
        let (path, before) = cut(rest)?;
        let number = last.parse::<u64>().ok()?;
        (before == word).then_some((path, number))
    };
    if *method == http::Method::GET
        && let Some((path, number)) = numbered("version")
    {
        return (path, Suffix::Version(number));
    }
    let bare_put = *method == http::Method::PUT && !has_body;
    if bare_put && let Some((path, number)) = numbered("rollback") {
        return (path, Suffix::Rollback(number));
    }
    if bare_put && last == "restore" {
        return (rest, Suffix::Restore);
    }
    (text, Suffix::None)
}

/// The last segment, and what stands before it; none where nothing does.
fn cut(text: &str) -> Option<(&str, &str)> {
    let (rest, last) = text.rsplit_once(['/', ':'])?;
    (!rest.trim_matches(['/', ':']).is_empty()).then_some((rest, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use proptest::prelude::*;

    fn path(text: &str) -> String {
        SecretPath::parse(text).unwrap().to_string()
    }

    #[test]
    fn both_separators_and_empty_segments_make_the_same_path() {
        for text in ["a/b:c", "/a//b/c/", ":a:b::c", "a:b:c"] {
            assert_eq!(path(text), "a:b:c");
        }
        assert_eq!(path("db/o'n".replace('\'', "+").as_str()), "db:o+n");
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for (text, error) in [
            ("", PathError::Empty),
            ("//::", PathError::Empty),
            ("a b", PathError::Character),
            ("a/%2e", PathError::Character),
            ("a\r\nX: y", PathError::Character),
            ("ä", PathError::Character),
            ("a\u{202e}b", PathError::Character),
            ("a/../b", PathError::Segment),
            ("a/--/b", PathError::Segment),
        ] {
            assert_eq!(SecretPath::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(SecretPath::parse(&"a".repeat(501)), Err(PathError::Long));
    }

    #[test]
    fn a_lone_uuid_is_an_id_and_one_with_a_letter_more_is_a_path() {
        let id = "2cb9c0f8-0000-4000-8000-0123456789ab";
        assert_eq!(Locator::parse(id).unwrap(), Locator::Id(id.parse().unwrap()));
        assert!(matches!(Locator::parse(&format!("{id}x")).unwrap(), Locator::Path(_)));
        assert!(matches!(Locator::parse(&format!("a/{id}")).unwrap(), Locator::Path(_)));
        assert!(matches!(
            Locator::parse(&id.replace('-', "")).unwrap(),
            Locator::Path(_)
        ));
    }

    #[test]
    fn suffixes_are_told_apart_by_the_method() {
        let of = |text, method: Method, body| split(text, &method, body);
        assert_eq!(of("a/b::description", Method::GET, false), ("a/b", Suffix::Description));
        assert_eq!(of("a:b::listpaths", Method::GET, false), ("a:b", Suffix::ListPaths));
        assert_eq!(of("a/b/version/2", Method::GET, false), ("a/b", Suffix::Version(2)));
        assert_eq!(of("a:b/rollback/0", Method::PUT, false), ("a:b", Suffix::Rollback(0)));
        assert_eq!(of("a:b:rollback:0", Method::PUT, false), ("a:b", Suffix::Rollback(0)));
        assert_eq!(of("a:b/restore", Method::PUT, false), ("a:b", Suffix::Restore));
        assert_eq!(of("a/restore", Method::PUT, true), ("a/restore", Suffix::None));
        assert_eq!(of("a/restore", Method::GET, false), ("a/restore", Suffix::None));
        assert_eq!(of("restore", Method::PUT, false), ("restore", Suffix::None));
        assert_eq!(of("version/2", Method::GET, false), ("version/2", Suffix::None));
        assert_eq!(of("a/version/x", Method::GET, false), ("a/version/x", Suffix::None));
    }

    proptest! {
        #[test]
        fn a_path_is_in_its_own_form_already(text in "[a-c0/:@+._-]{0,20}|.{0,20}") {
            if let Ok(path) = SecretPath::parse(&text) {
                prop_assert_eq!(SecretPath::parse(path.as_str()).unwrap(), path.clone());
                prop_assert!(!path.as_str().contains('/') && !path.as_str().contains("::"));
            }
            let _ = (Locator::parse(&text), split(&text, &Method::PUT, false), split(&text, &Method::GET, false));
        }
    }
}
