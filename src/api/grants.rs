//! `grantPermissions`: which privileges (`what`) on which objects (`where`).
//!
//! Text from users ends here: what leaves is a set of known words and of names that are only ever used quoted.
//! Source of the meaning: DSV's `grantPermissions` pair; PostgreSQL's GRANT.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Longest identifier in bytes; PostgreSQL cuts longer ones silently, so two names could become one.
pub const MAX_IDENTIFIER: usize = 63;

/// A privilege word of GRANT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Privilege {
    /// Everything that the kind of object offers.
    All,
    /// Tables, views and sequences.
    Select,
    /// Tables and views; with it USAGE on sequences, or serial columns fail.
    Insert,
    /// Tables, views; with it USAGE on sequences.
    Update,
    /// Tables and views.
    Delete,
    /// Tables.
    Truncate,
    /// Tables.
    References,
    /// Tables.
    Trigger,
    /// Tables, PostgreSQL 17 and later.
    Maintain,
    /// A schema for `schema.*`, a sequence for `schema.sequence`.
    Usage,
    /// Functions and procedures.
    Execute,
    /// A schema for `schema.*`, a database for `database.*.*`.
    Create,
    /// The database.
    Connect,
    /// The database.
    Temporary,
}

impl Privilege {
    /// Every word, in the order in which canonical text lists them.
    pub const EVERY: [Self; 14] = [
        Self::All,
        Self::Select,
        Self::Insert,
        Self::Update,
        Self::Delete,
        Self::Truncate,
        Self::References,
        Self::Trigger,
        Self::Maintain,
        Self::Usage,
        Self::Execute,
        Self::Create,
        Self::Connect,
        Self::Temporary,
    ];

    /// The word as PostgreSQL writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::All => "ALL",
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
            Self::References => "REFERENCES",
            Self::Trigger => "TRIGGER",
            Self::Maintain => "MAINTAIN",
            Self::Usage => "USAGE",
            Self::Execute => "EXECUTE",
            Self::Create => "CREATE",
            Self::Connect => "CONNECT",
            Self::Temporary => "TEMPORARY",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        let upper = word.to_ascii_uppercase();
        match upper.as_str() {
            "ALL PRIVILEGES" => Some(Self::All),
            "TEMP" => Some(Self::Temporary),
            known => Self::EVERY.into_iter().find(|p| p.word() == known),
        }
    }
}

/// One part of a `where`: everything, or one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// `*`
    Any,
    /// A name, unquoted and case-folded where it was written without quotes.
    Name(String),
}

impl Part {
    /// Whether every object that `self` means is also meant by `wider`. `*` lies only in `*`.
    pub fn lies_in(&self, wider: &Self) -> bool {
        matches!(wider, Self::Any) || self == wider
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Name(name) if is_plain(name) => f.write_str(name),
            Self::Name(name) => write!(f, "\"{}\"", name.replace('"', "\"\"")),
        }
    }
}

/// A `where`: `schema.object` or `database.schema.object`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// None: the base secret's database.
    pub database: Option<Part>,
    /// Schema.
    pub schema: Part,
    /// Table, view, sequence or routine.
    pub object: Part,
}

impl Target {
    /// The same with its database written out.
    #[must_use]
    pub fn complete(&self, database: &str) -> Self {
        let database = self.database.clone().unwrap_or_else(|| Part::Name(database.to_owned()));
        Self {
            database: Some(database),
            ..self.clone()
        }
    }

    /// Whether all that `self` means is also meant by `wider`. Both must be complete: a missing database lies in nothing.
    pub fn lies_in(&self, wider: &Self) -> bool {
        let database = match (&self.database, &wider.database) {
            (Some(narrow), Some(wide)) => narrow.lies_in(wide),
            _ => false,
        };
        database && self.schema.lies_in(&wider.schema) && self.object.lies_in(&wider.object)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(database) = &self.database {
            write!(f, "{database}.")?;
        }
        write!(f, "{}.{}", self.schema, self.object)
    }
}

/// One pair of `what` and `where`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// Never empty.
    pub privileges: BTreeSet<Privilege>,
    /// Which objects.
    pub target: Target,
}

impl Grant {
    /// Reads a pair as a user writes it.
    pub fn parse(what: &str, target: &str) -> Result<Self, GrantError> {
        Ok(Self {
            privileges: parse_what(what)?,
            target: target.parse()?,
        })
    }

    /// The `what` as canonical text: upper case, fixed order, no doubles.
    pub fn what(&self) -> String {
        let words: Vec<&str> = self.privileges.iter().map(|p| p.word()).collect();
        words.join(", ")
    }

    /// The same with its database written out.
    #[must_use]
    pub fn complete(&self, database: &str) -> Self {
        Self {
            privileges: self.privileges.clone(),
            target: self.target.complete(database),
        }
    }

    /// Whether `wider` gives all that `self` gives. ALL lies only in ALL, since what it covers differs between servers.
    pub fn lies_in(&self, wider: &Self) -> bool {
        let every_word = wider.privileges.contains(&Privilege::All) || self.privileges.is_subset(&wider.privileges);
        every_word && self.target.lies_in(&wider.target)
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.what(), self.target)
    }
}

/// Why a grant cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// An unknown word in `what`.
    #[error(
        "what: `{0}` is not a privilege; use words of SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER, MAINTAIN, USAGE, EXECUTE, CREATE, CONNECT, TEMPORARY or ALL, separated by commas"
    )]
    UnknownPrivilege(String),
    /// No word in `what`.
    #[error("what: no privilege is named; write for example SELECT")]
    NoPrivilege,
    /// A `where` that is not two or three parts.
    #[error("where: `{0}` is not [database.]schema.object; each part is a name, a \"quoted name\" or *")]
    NotATarget(String),
    /// A name that PostgreSQL would cut.
    #[error("where: `{0}` is longer than 63 bytes, which is PostgreSQL's limit for a name")]
    NameTooLong(String),
}

fn parse_what(what: &str) -> Result<BTreeSet<Privilege>, GrantError> {
    let mut privileges = BTreeSet::new();
    for word in what.split(',') {
        let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
        if word.is_empty() {
            return Err(GrantError::NoPrivilege);
        }
        privileges.insert(Privilege::parse(&word).ok_or(GrantError::UnknownPrivilege(word))?);
    }
    Ok(privileges)
}

impl FromStr for Target {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let wrong = || GrantError::NotATarget(text.to_owned());
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let (part, after) = take_part(rest).ok_or_else(wrong)?;
            if let Part::Name(name) = &part
                && name.len() > MAX_IDENTIFIER
            {
                return Err(GrantError::NameTooLong(name.clone()));
            }
            parts.push(part);
            match after.strip_prefix('.') {
                Some(more) => rest = more,
                None if after.is_empty() => break,
                None => return Err(wrong()),
            }
        }
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(schema), Some(object), None, None) => Ok(Self {
                database: None,
                schema,
                object,
            }),
            (Some(database), Some(schema), Some(object), None) => Ok(Self {
                database: Some(database),
                schema,
                object,
            }),
            _ => Err(wrong()),
        }
    }
}

/// Reads one part from the front; None where there is none.
fn take_part(text: &str) -> Option<(Part, &str)> {
    if let Some(rest) = text.strip_prefix('*') {
        return Some((Part::Any, rest));
    }
    if let Some(rest) = text.strip_prefix('"') {
        return take_quoted(rest);
    }
    let end = text.find(|c: char| !is_plain_char(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end)?;
    let first = name.chars().next()?;
    if first.is_ascii_digit() || first == '$' {
        return None;
    }
    Some((Part::Name(name.to_ascii_lowercase()), rest))
}

fn take_quoted(text: &str) -> Option<(Part, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '"' {
            if chars.next_if(|(_, next)| *next == '"').is_none() {
                let rest = text.get(at + 1..)?;
                return (!name.is_empty()).then_some((Part::Name(name), rest));
            }
        } else if c == '\0' {
            return None;
        }
        name.push(c);
    }
    None
}

fn is_plain_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
}

fn is_plain(name: &str) -> bool {
    name.chars().all(|c| is_plain_char(c) && !c.is_ascii_uppercase())
        && name.chars().next().is_some_and(|c| !c.is_ascii_digit() && c != '$')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grant(what: &str, target: &str) -> Grant {
        Grant::parse(what, target).unwrap().complete("orders")
    }

    #[test]
    fn words_are_read_in_any_case_and_written_in_one_order() {
        let parsed = Grant::parse("insert , Select,SELECT", "*.*").unwrap();
        assert_eq!(parsed.what(), "SELECT, INSERT");
        assert_eq!(Grant::parse("all privileges", "*.*").unwrap().what(), "ALL");
    }

    #[test]
    fn an_unknown_word_is_named() {
        let error = Grant::parse("SELECT, DROP", "*.*").unwrap_err();
        assert_eq!(error, GrantError::UnknownPrivilege("DROP".into()));
        assert!(Grant::parse("SELECT,", "*.*").is_err());
        assert!(Grant::parse("", "*.*").is_err());
    }

    #[test]
    fn unquoted_names_fold_and_quoted_ones_keep() {
        let target: Target = r#"Public."Odd ""Name"".x""#.parse().unwrap();
        assert_eq!(target.schema, Part::Name("public".into()));
        assert_eq!(target.object, Part::Name(r#"Odd "Name".x"#.into()));
        assert_eq!(target.to_string(), r#"public."Odd ""Name"".x""#);
    }

    #[test]
    fn what_is_not_two_or_three_parts_is_refused() {
        for wrong in [
            "", "a", "a.b.c.d", "a.", ".a", "a..b", "a.b;", "a.b c", "a.\"b", "a.\"\"", "1a.b", "a.*x", "ä.b",
            "a.\"\0\"",
        ] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong:?} was accepted");
        }
        assert!(format!("a.{}", "x".repeat(64)).parse::<Target>().is_err());
    }

    #[test]
    fn a_star_lies_only_in_a_star_and_all_only_in_all() {
        assert!(grant("SELECT", "public.orders").lies_in(&grant("SELECT, INSERT", "public.*")));
        assert!(!grant("SELECT", "public.*").lies_in(&grant("SELECT", "public.orders")));
        assert!(!grant("SELECT", "*.orders").lies_in(&grant("SELECT", "public.*")));
        assert!(!grant("ALL", "public.*").lies_in(&grant("SELECT, INSERT, UPDATE, DELETE", "public.*")));
        assert!(grant("DELETE", "public.t").lies_in(&grant("ALL", "*.*")));
        assert!(!grant("SELECT", "other.public.t").lies_in(&grant("SELECT", "*.*")));
        assert!(grant("SELECT", "other.public.t").lies_in(&grant("SELECT", "*.*.*")));
    }

    proptest! {
        #[test]
        fn canonical_text_reads_back_as_the_same(parts in proptest::collection::vec("[^\0]{1,15}", 2..4)) {
            let text = parts.iter().map(|p| format!("\"{}\"", p.replace('"', "\"\""))).collect::<Vec<_>>().join(".");
            let target: Target = text.parse().unwrap();
            prop_assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
        }

        #[test]
        fn any_text_is_read_or_refused_without_panic(text in ".{0,80}") {
            let _ = text.parse::<Target>();
            let _ = Grant::parse(&text, &text);
        }
    }
}
