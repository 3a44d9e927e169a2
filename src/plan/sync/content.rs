//! What the secret at the tenant is to be: its path, its values, its description; and the keyed hash by which two of them
//! are compared without keeping either.

use super::source::Field;
use crate::api::SecretSyncSpec;
use data_encoding::BASE64URL_NOPAD;
use ring::hmac;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// Longest path in characters, as DSV has it.
const MAX_PATH: usize = 500;
/// Slug of the field that becomes the description.
const NOTES: &str = "notes";
/// Fields that never stand in a path: paths are shown.
const NEVER_IN_A_PATH: [&str; 9] = [
    "password",
    "passwd",
    "secret",
    "client-secret",
    "token",
    "api-key",
    "private-key",
    "passphrase",
    "tls-key",
];

/// What the tenant is to hold.
#[derive(Clone, PartialEq)]
pub struct Content {
    /// Where, with colons.
    pub path: String,
    /// The values.
    pub data: Map<String, Value>,
    /// The description; empty: none.
    pub description: String,
    /// The attributes; empty: whatever the tenant has.
    pub attributes: BTreeMap<String, String>,
}

/// No values.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({})", self.path)
    }
}

/// A spec that cannot be followed for this source. No text holds a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// No such field.
    #[error("the source has no field with the slug {slug}; it has {known}")]
    Unknown {
        /// What was asked for.
        slug: String,
        /// What there is.
        known: String,
    },
    /// A hidden field in a path.
    #[error("the path must not hold the field {0}: paths are shown in status and lists")]
    Hidden(String),
    /// A value that does not fit a path.
    #[error(
        "the value of the field {0} does not fit a path: a part has letters, digits, @, +, dots, underscores and dashes, and one letter or digit at least"
    )]
    Illegal(String),
    /// A part that does not fit a path.
    #[error(
        "part {0} of the path does not fit: a part has letters, digits, @, +, dots, underscores and dashes, and one letter or digit at least"
    )]
    Part(usize),
    /// Too long.
    #[error("the path is longer than {MAX_PATH} characters")]
    Long,
    /// Nothing to push.
    #[error("nothing is left to be pushed: all fields of the source are hidden, or it has none")]
    Nothing,
}

/// What the spec makes of the source.
pub fn compose(spec: &SecretSyncSpec, fields: &[Field]) -> Result<Content, ContentError> {
    let path = path(&spec.path, fields)?;
    let pushed: Vec<&Field> = fields
        .iter()
        .filter(|field| !field.hidden || spec.push_hidden == Some(true))
        .collect();
    let mut data = Map::new();
    if spec.fields.is_empty() {
        let all = pushed.iter().filter(|field| field.slug != NOTES);
        data.extend(all.map(|field| (field.name.clone(), field.value.clone())));
    } else {
        for (name, what) in &spec.fields {
            let value = match lookup(what) {
                Some(slug) => find(slug, &pushed)?.value.clone(),
                None => json!(what),
            };
            data.insert(name.clone(), value);
        }
    }
    if data.is_empty() {
        return Err(ContentError::Nothing);
    }
    let notes = || pushed.iter().find(|field| field.slug == NOTES).and_then(|f| f.text());
    Ok(Content {
        path,
        data,
        description: spec.description.clone().or_else(notes).unwrap_or_default(),
        attributes: spec.attributes.clone(),
    })
}

/// The slug that a word such as `$user-name` asks for. A backslash before it counts as not there: documents have one.
pub fn lookup(word: &str) -> Option<&str> {
    word.strip_prefix('\\').unwrap_or(word).strip_prefix('$')
}

fn find<'a>(slug: &str, fields: &[&'a Field]) -> Result<&'a Field, ContentError> {
    let wanted = slug.to_ascii_lowercase();
    let found = fields.iter().find(|field| field.slug == wanted);
    found.copied().ok_or_else(|| ContentError::Unknown {
        slug: wanted,
        known: known(fields),
    })
}

fn known(fields: &[&Field]) -> String {
    let all: Vec<String> = fields.iter().map(|field| format!("${}", field.slug)).collect();
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    }
}

fn path(parts: &[String], fields: &[Field]) -> Result<String, ContentError> {
    let all: Vec<&Field> = fields.iter().collect();
    let mut path = Vec::with_capacity(parts.len());
    for (at, part) in parts.iter().enumerate() {
        let Some(slug) = lookup(part) else {
            if !fits(part) {
                return Err(ContentError::Part(at + 1));
            }
            path.push(part.clone());
            continue;
        };
        let field = find(slug, &all)?;
        if field.hidden || NEVER_IN_A_PATH.contains(&field.slug.as_str()) {
            return Err(ContentError::Hidden(field.slug.clone()));
        }
        let text = field.text().filter(|text| fits(text));
        path.push(text.ok_or_else(|| ContentError::Illegal(field.slug.clone()))?);
    }
    let path = path.join(":");
    if path.len() > MAX_PATH {
        return Err(ContentError::Long);
    }
    Ok(path)
}

fn fits(part: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '@' | '+' | '.' | '_' | '-');
    part.chars().all(legal) && part.chars().any(|c| c.is_ascii_alphanumeric())
}

/// What a tenant has at a path.
#[derive(Clone, Default, PartialEq)]
pub struct Held {
    /// The values.
    pub data: Map<String, Value>,
    /// The description.
    pub description: String,
    /// The attributes.
    pub attributes: Map<String, Value>,
}

/// The keyed hash of what is to be pushed. `uid` is the sync's: equal secrets have equal hashes in one sync only.
pub fn hash(key: &hmac::Key, uid: &str, content: &Content) -> String {
    let attributes: Map<String, Value> = content
        .attributes
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    sign(key, uid, &content.data, &content.description, &attributes)
}

/// The same of what a tenant has. Attributes count only where the sync sets some.
pub fn hash_held(key: &hmac::Key, uid: &str, held: &Held, with_attributes: bool) -> String {
    let none = Map::new();
    let attributes = if with_attributes { &held.attributes } else { &none };
    sign(key, uid, &held.data, &held.description, attributes)
}

fn sign(
    key: &hmac::Key,
    uid: &str,
    data: &Map<String, Value>,
    description: &str,
    attributes: &Map<String, Value>,
) -> String {
    let mut text = String::new();
    for part in [
        &json!(uid),
        &Value::Object(data.clone()),
        &json!(description),
        &Value::Object(attributes.clone()),
    ] {
        canonical(part, &mut text);
        text.push('\n');
    }
    let text = zeroize::Zeroizing::new(text);
    BASE64URL_NOPAD.encode(hmac::sign(key, text.as_bytes()).as_ref())
}

/// JSON with sorted keys, whatever order a map keeps.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            text.push('{');
            for (key, value) in sorted {
                text.push_str(&Value::String(key.clone()).to_string());
                text.push(':');
                canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(all) => {
            text.push('[');
            for value in all {
                canonical(value, text);
                text.push(',');
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::secret_sync::SyncSource;

    fn field(name: &str, value: &str) -> Field {
        Field {
            name: name.into(),
            slug: crate::plan::sync::source::slug(name),
            hidden: name == "pin",
            value: json!(value),
        }
    }

    fn fields() -> Vec<Field> {
        vec![
            field("Domain", "corp.example"),
            field("User Name", "svc@corp"),
            field("password", "hunter2"),
            field("notes", "the old one"),
            field("pin", "1234"),
            field("folder", "a/b"),
        ]
    }

    fn spec(path: &[&str]) -> SecretSyncSpec {
        SecretSyncSpec {
            source: SyncSource {
                kind: None,
                name: "s".into(),
            },
            tenant: "t".into(),
            path: path.iter().map(|part| (*part).to_owned()).collect(),
            fields: BTreeMap::new(),
            push_hidden: None,
            attributes: BTreeMap::new(),
            description: None,
            active: None,
            drift: None,
            deletion_policy: None,
        }
    }

    #[test]
    fn parts_of_a_path_are_texts_and_fields() {
        for (parts, path) in [
            (vec!["Demo", "$domain", "qa"], "Demo:corp.example:qa"),
            (vec!["Demo", "\\$domain"], "Demo:corp.example"),
            (vec!["$User-Name"], "svc@corp"),
        ] {
            assert_eq!(compose(&spec(&parts), &fields()).unwrap().path, path);
        }
    }

    #[test]
    fn what_is_no_path_is_refused_without_a_value() {
        let unknown = compose(&spec(&["$nobody"]), &fields()).unwrap_err().to_string();
        assert!(
            unknown.contains("nobody") && unknown.contains("$user-name") && unknown.contains("$domain"),
            "{unknown}"
        );
        for (parts, error) in [
            (vec!["$password"], ContentError::Hidden("password".into())),
            (vec!["$pin"], ContentError::Hidden("pin".into())),
            (vec!["$folder"], ContentError::Illegal("folder".into())),
            (vec!["ok", "a/b"], ContentError::Part(2)),
            (vec![".."], ContentError::Part(1)),
        ] {
            let found = compose(&spec(&parts), &fields()).unwrap_err();
            assert!(!found.to_string().contains("hunter2") && !found.to_string().contains("1234"));
            assert_eq!(found, error);
        }
        let long = "x".repeat(120);
        let parts = [long.as_str(); 5];
        assert_eq!(compose(&spec(&parts), &fields()), Err(ContentError::Long));
    }

    #[test]
    fn hidden_fields_stay_and_notes_become_the_description() {
        let content = compose(&spec(&["a"]), &fields()).unwrap();
        assert_eq!(content.description, "the old one");
        let names: Vec<_> = content.data.keys().map(String::as_str).collect();
        assert_eq!(names, ["Domain", "User Name", "folder", "password"]);
        let mut asked = spec(&["a"]);
        asked.push_hidden = Some(true);
        assert_eq!(compose(&asked, &fields()).unwrap().data["pin"], "1234");
    }

    #[test]
    fn a_field_map_names_fields_and_texts() {
        let mut mapped = spec(&["a"]);
        mapped.fields = [("login", "$user-name"), ("env", "qa")]
            .map(|(name, what)| (name.to_owned(), what.to_owned()))
            .into();
        let content = compose(&mapped, &fields()).unwrap();
        assert_eq!(Value::Object(content.data), json!({"login": "svc@corp", "env": "qa"}));
        mapped.fields.insert("x".into(), "$pin".into());
        assert!(matches!(compose(&mapped, &fields()), Err(ContentError::Unknown { .. })));
    }

    #[test]
    fn a_hash_tells_contents_apart_and_holds_for_what_the_tenant_has() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"k");
        let content = compose(&spec(&["a"]), &fields()).unwrap();
        let mine = hash(&key, "u", &content);
        let held = Held {
            data: content.data.clone(),
            description: content.description.clone(),
            attributes: json!({"added": "by the tenant"}).as_object().unwrap().clone(),
        };
        assert_eq!(hash_held(&key, "u", &held, false), mine);
        assert_ne!(
            hash(&key, "v", &content),
            mine,
            "equal secrets of two syncs look different"
        );
        let mut other = content.clone();
        other.data.insert("password".into(), json!("changed"));
        assert_ne!(hash(&key, "u", &other), mine);
        assert!(!format!("{content:?}").contains("hunter2"));
    }
}
