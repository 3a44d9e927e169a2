//! What a source holds, field by field, whichever kind of Secret it is.

use crate::api::names::{HIDDEN_FIELDS, SLUGS};
use data_encoding::BASE64;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// Type of the Secrets of the REST API, whose values stand as JSON under one key.
const KEPT_TYPE: &str = "dsv.dev/secret";
/// That key.
const HEAD: &str = ".head";

/// One field.
#[derive(Clone, PartialEq)]
pub struct Field {
    /// Its name, as the source has it.
    pub name: String,
    /// What it is called in paths.
    pub slug: String,
    /// Whether it is left out unless asked for.
    pub hidden: bool,
    /// Its value.
    pub value: Value,
}

/// Names and no value.
impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Field({})", self.slug)
    }
}

impl Field {
    /// The value as text, where it is one.
    pub fn text(&self) -> Option<String> {
        match &self.value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(value) => Some(value.to_string()),
            _ => None,
        }
    }
}

/// A source that cannot be pushed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Two fields of one slug.
    #[error(
        "the fields {0} and {1} of the source have the same slug {2}; give one of them another with the annotation {SLUGS}: key=slug"
    )]
    SameSlug(String, String, String),
    /// A slug that is none.
    #[error(
        "the annotation {SLUGS} of the source must be key=slug, separated by commas; a slug has letters, digits and dashes"
    )]
    Slugs,
    /// Values that cannot be read.
    #[error("the values of the source cannot be read; write them again through the API")]
    Unreadable,
}

/// The slug of a name: lower case, with a dash for whatever is neither letter nor digit.
pub fn slug(name: &str) -> String {
    let mut slug = String::with_capacity(name.len());
    for c in name.chars() {
        match c.to_ascii_lowercase() {
            c if c.is_ascii_alphanumeric() => slug.push(c),
            _ if slug.is_empty() || slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    slug.trim_end_matches('-').to_owned()
}

/// Reads the fields of a Secret: its type, its data and its annotations.
pub fn fields(
    type_: Option<&str>,
    data: &BTreeMap<String, Vec<u8>>,
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<Field>, SourceError> {
    let values = if type_ == Some(KEPT_TYPE) {
        kept(data)?
    } else {
        plain(data)
    };
    let own = own_slugs(annotations)?;
    let hidden: Vec<String> = listed(annotations, HIDDEN_FIELDS).map(slug).collect();
    let mut fields: Vec<Field> = Vec::new();
    for (name, value) in values {
        let slug = own.get(&name).cloned().unwrap_or_else(|| slug(&name));
        if let Some(other) = fields.iter().find(|field| field.slug == slug) {
            return Err(SourceError::SameSlug(other.name.clone(), name, slug));
        }
        let hidden = hidden.contains(&slug);
        fields.push(Field {
            name,
            slug,
            hidden,
            value,
        });
    }
    Ok(fields)
}

/// As the REST API keeps them: what stands beside the values, written with kubectl, counts.
fn kept(data: &BTreeMap<String, Vec<u8>>) -> Result<Map<String, Value>, SourceError> {
    let mut values: Map<String, Value> = match data.get(HEAD) {
        None => Map::new(),
        Some(head) => serde_json::from_slice(head).map_err(|_| SourceError::Unreadable)?,
    };
    for (key, bytes) in data.iter().filter(|(key, _)| !key.starts_with('.')) {
        let text = String::from_utf8_lossy(bytes);
        let same = values.get(key).is_some_and(|value| match value {
            Value::String(known) => *known == text,
            other => other.to_string() == text,
        });
        if !same {
            values.insert(key.clone(), Value::String(text.into_owned()));
        }
    }
    Ok(values)
}

/// Text as it is, everything else as base64.
fn plain(data: &BTreeMap<String, Vec<u8>>) -> Map<String, Value> {
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => BASE64.encode(bytes),
    };
    data.iter()
        .map(|(key, bytes)| (key.clone(), Value::String(text(bytes))))
        .collect()
}

fn own_slugs(annotations: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, SourceError> {
    listed(annotations, SLUGS)
        .map(|pair| {
            let (key, own) = pair.split_once('=').ok_or(SourceError::Slugs)?;
            let (key, own) = (key.trim(), own.trim());
            if own.is_empty() || slug(own) != own {
                return Err(SourceError::Slugs);
            }
            Ok((key.to_owned(), own.to_owned()))
        })
        .collect()
}

fn listed<'a>(annotations: &'a BTreeMap<String, String>, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let text = annotations.get(name).map(String::as_str).unwrap_or_default();
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn data(pairs: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
        pairs
            .iter()
            .map(|(key, bytes)| ((*key).to_owned(), bytes.to_vec()))
            .collect()
    }

    fn notes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
            .collect()
    }

    #[test]
    fn slugs_are_names_in_lower_case_with_dashes() {
        for (name, expected) in [
            ("User Name", "user-name"),
            ("client_id", "client-id"),
            ("tls.crt", "tls-crt"),
            ("Tenant URL", "tenant-url"),
            ("--a  b--", "a-b"),
            ("domain", "domain"),
        ] {
            assert_eq!(slug(name), expected, "{name}");
        }
    }

    #[test]
    fn text_stays_text_and_the_rest_becomes_base64() {
        let found = fields(
            Some("Opaque"),
            &data(&[("user", b"a"), ("key.bin", &[0xff, 0])]),
            &notes(&[(HIDDEN_FIELDS, "user, other")]),
        )
        .unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|field| (field.slug.as_str(), field.value.clone(), field.hidden))
            .collect();
        assert_eq!(shown, [("key-bin", json!("/wA="), false), ("user", json!("a"), true)]);
        assert_eq!(format!("{found:?}"), "[Field(key-bin), Field(user)]");
    }

    #[test]
    fn secrets_of_the_api_keep_their_json_and_kubectl_wins() {
        let all = data(&[
            (".head", br#"{"Client ID": "x", "port": 22}"#),
            (".v0", b"{}"),
            ("port", b"23"),
        ]);
        let found = fields(Some(KEPT_TYPE), &all, &notes(&[])).unwrap();
        let shown: Vec<_> = found.iter().map(|f| (f.slug.as_str(), f.value.clone())).collect();
        assert_eq!(shown, [("client-id", json!("x")), ("port", json!("23"))]);
    }

    #[test]
    fn a_slug_means_one_field() {
        let two = data(&[("user-name", b"a"), ("user_name", b"b")]);
        let error = fields(None, &two, &notes(&[])).unwrap_err();
        assert!(matches!(error, SourceError::SameSlug(..)), "{error}");
        let found = fields(None, &two, &notes(&[(SLUGS, "user_name=login")])).unwrap();
        assert_eq!(found[1].slug, "login");
        for wrong in ["user_name", "user_name=Not A Slug", "user_name="] {
            assert_eq!(
                fields(None, &two, &notes(&[(SLUGS, wrong)])),
                Err(SourceError::Slugs),
                "{wrong}"
            );
        }
    }
}
