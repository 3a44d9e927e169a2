//! Names and values as SQL text. Nothing else in this module may put foreign text into a statement.

use jiff::Timestamp;
use std::fmt;

/// Why a text cannot become SQL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotSql {
    #[error("an empty name")]
    Empty,
    #[error("a name longer than 63 bytes, which PostgreSQL would cut")]
    TooLong,
    #[error("a name with a zero byte")]
    ZeroByte,
    #[error("a text with a control character or a backslash")]
    Unprintable,
    #[error("a time outside the years 2000 to 9998")]
    FarTime,
}

/// A quoted identifier. Whatever was in the name, it stays one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ident(String);

impl Ident {
    pub(super) fn new(name: &str) -> Result<Self, NotSql> {
        if name.is_empty() {
            return Err(NotSql::Empty);
        }
        if name.len() > crate::api::grants::MAX_IDENTIFIER {
            return Err(NotSql::TooLong);
        }
        if name.contains('\0') {
            return Err(NotSql::ZeroByte);
        }
        Ok(Self(format!("\"{}\"", name.replace('"', "\"\""))))
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A quoted string. Backslashes are refused, so it means the same whatever `standard_conforming_strings` says.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Literal(String);

impl Literal {
    pub(super) fn new(text: &str) -> Result<Self, NotSql> {
        if text.chars().any(|c| c.is_control() || c == '\\') {
            return Err(NotSql::Unprintable);
        }
        Ok(Self(format!("'{}'", text.replace('\'', "''"))))
    }

    /// A time, cut to the microseconds that PostgreSQL keeps, so that it is never rounded up past an expiry.
    pub(super) fn time(at: Timestamp) -> Result<Self, NotSql> {
        let cut = Timestamp::from_microsecond(at.as_microsecond()).map_err(|_| NotSql::FarTime)?;
        let year = cut.to_zoned(jiff::tz::TimeZone::UTC).year();
        if !(2000..9999).contains(&year) {
            return Err(NotSql::FarTime);
        }
        Ok(Self(format!("'{cut}'")))
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `ARRAY['a','b']::text[]`
pub(super) fn text_array(items: &[Literal]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("ARRAY[{}]::text[]", items.join(","))
}

/// `'{1,2}'::oid[]`
pub(super) fn oid_array(oids: &[u32]) -> String {
    let oids: Vec<String> = oids.iter().map(ToString::to_string).collect();
    format!("'{{{}}}'::oid[]", oids.join(","))
}

/// A remark for the person who runs SQL of ours. It ends where it should whatever is in it, and takes no line of its own:
/// tables of kubectl show a message up to its first line's end.
pub(super) fn remark(text: &str) -> String {
    let one_line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("/* {} */", one_line.replace("*/", "* /").replace("/*", "/ *"))
}

/// The entries of an ACL column, as a table expression.
///
/// Joined with an empty one, the ACL is a copy in memory: of a long one, which is kept compressed, `aclexplode` would unpack the
/// whole for each entry that it gives. An empty one joined with another has no dimension, which `aclexplode` refuses.
pub(super) fn acl_entries(column: &str) -> String {
    format!("aclexplode(CASE WHEN cardinality({column}) > 0 THEN {column} || '{{}}'::aclitem[] END)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_cannot_be_quoted_is_refused() {
        assert_eq!(Ident::new(""), Err(NotSql::Empty));
        assert_eq!(Ident::new("a\0b"), Err(NotSql::ZeroByte));
        assert_eq!(
            Ident::new(&"ä".repeat(32)),
            Err(NotSql::TooLong),
            "64 bytes in 32 characters"
        );
        for wrong in ["\0", "\n", "\\", "a\u{7f}"] {
            assert!(Literal::new(wrong).is_err(), "{wrong:?} was accepted");
        }
    }

    #[test]
    fn nothing_in_a_remark_is_run() {
        assert_eq!(remark("in database orders"), "/* in database orders */");
        for foreign in ["*/ DROP TABLE t; /*", "**/", "*/*", "/*/", "a\nDROP TABLE t;\r", "/**/"] {
            let remark = remark(foreign);
            let inside = remark
                .strip_prefix("/*")
                .and_then(|rest| rest.strip_suffix("*/"))
                .unwrap();
            let ends = inside.contains("*/") || inside.contains("/*") || inside.chars().any(char::is_control);
            assert!(!ends, "{foreign:?} became {remark:?}");
        }
    }

    #[test]
    fn a_time_is_cut_never_rounded_up() {
        let at: Timestamp = "2030-01-02T03:04:05.999999999Z".parse().unwrap();
        assert_eq!(Literal::time(at).unwrap().to_string(), "'2030-01-02T03:04:05.999999Z'");
        assert!(Literal::time(Timestamp::MIN).is_err());
        assert!(Literal::time(Timestamp::MAX).is_err());
    }

    proptest! {
        #[test]
        fn quoting_leaves_no_lone_quote(text in ".{1,20}") {
            if let Ok(quoted) = Ident::new(&text) {
                let quoted = quoted.to_string();
                prop_assert_eq!(quoted[1..quoted.len() - 1].replace("\"\"", "\""), text.clone());
                prop_assert!(!quoted[1..quoted.len() - 1].replace("\"\"", "").contains('"'));
            }
            if let Ok(quoted) = Literal::new(&text) {
                let quoted = quoted.to_string();
                prop_assert!(!quoted[1..quoted.len() - 1].replace("''", "").contains('\''));
            }
        }
    }
}
