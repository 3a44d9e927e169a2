//! A static secret and its Secret: the present values, the versions before them, and for a base secret the keys that the
//! operator itself reads.

use super::Space;
use super::item::{Item, Stamp};
use crate::api::names::{MANAGED_BY, OPERATOR, POSTGRESQL, TYPE_LABEL};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Type of the Secrets that hold secrets of this API; no other Secret is ever read for a DSV client.
pub const SECRET_TYPE: &str = "dsv.dev/secret";
/// Label by which they are watched; its value is the space.
pub const SECRET_LABEL: &str = "dsv.dev/secret";
/// Key of the data: the present values, as JSON.
const HEAD: &str = ".head";
/// Beginning of the keys of former versions.
const VERSION: &str = ".v";
/// Versions that are kept besides the present one.
const KEPT: usize = 9;
/// Keys of a base secret that the operator reads from the data itself.
const BASE_KEYS: [&str; 9] = [
    "host", "port", "username", "password", "database", "sslmode", "ca.crt", "tls.crt", "tls.key",
];

/// A static secret with its values. `Debug` is left out: it would show them.
pub struct Kept {
    /// All but the values.
    pub item: Item,
    /// The values.
    pub data: Map<String, Value>,
    /// Versions before, oldest first.
    pub history: Vec<Former>,
    /// The object that was read.
    pub object: Secret,
}

/// Attributes, description and values of a version.
pub type Content = (Map<String, Value>, String, Map<String, Value>);

/// A version that was replaced.
#[derive(Clone, Serialize, Deserialize)]
pub struct Former {
    attributes: Map<String, Value>,
    description: String,
    data: Map<String, Value>,
    record: Stamp,
}

impl Kept {
    /// A new one, not written yet.
    pub fn new(item: Item, data: Map<String, Value>, namespace: &str) -> Self {
        let object = Secret {
            metadata: ObjectMeta {
                name: Some(item.id.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        };
        Self {
            item,
            data,
            history: Vec::new(),
            object,
        }
    }

    /// Reads a Secret; none where it is of another type.
    pub fn of(object: Secret) -> Option<Self> {
        if object.type_.as_deref() != Some(SECRET_TYPE) {
            return None;
        }
        let mut item = Item::of(&object);
        if let Some(kind) = object.labels().get(TYPE_LABEL)
            && !item.attributes.contains_key("type")
        {
            item.attributes.insert("type".to_owned(), Value::String(kind.clone()));
        }
        let all = object.data.clone().unwrap_or_default();
        let head = all.get(HEAD).and_then(|bytes| serde_json::from_slice(&bytes.0).ok());
        let mut data: Map<String, Value> = head.unwrap_or_default();
        for (key, bytes) in all.iter().filter(|(key, _)| !key.starts_with('.')) {
            // What somebody wrote with kubectl counts; where it says the same, the value keeps its JSON type.
            let text = String::from_utf8_lossy(&bytes.0).into_owned();
            if data.get(key).map(plain) != Some(text.clone()) {
                data.insert(key.clone(), Value::String(text));
            }
        }
        let former = all.iter().filter(|(key, _)| key.starts_with(VERSION));
        let mut history: Vec<Former> = former
            .filter_map(|(_, bytes)| serde_json::from_slice(&bytes.0).ok())
            .collect();
        history.sort_by_key(|former| former.record.version);
        Some(Self {
            item,
            data,
            history,
            object,
        })
    }

    /// What the present version becomes when the next one replaces it.
    pub fn push_history(&mut self) {
        self.history.push(Former {
            attributes: self.item.attributes.clone(),
            description: self.item.description.clone(),
            data: self.data.clone(),
            record: self.item.record.clone(),
        });
        let surplus = self.history.len().saturating_sub(KEPT);
        self.history.drain(..surplus);
    }

    /// A former or the present version's content.
    pub fn version(&self, number: u64) -> Option<Content> {
        if self.item.record.version == number {
            let item = &self.item;
            return Some((item.attributes.clone(), item.description.clone(), self.data.clone()));
        }
        let former = self.history.iter().find(|former| former.record.version == number)?;
        Some((
            former.attributes.clone(),
            former.description.clone(),
            former.data.clone(),
        ))
    }

    /// The most recent versions, newest first, as `SecretResponse`s.
    pub fn versions(&self, count: usize) -> Vec<Value> {
        let former = self.history.iter().rev().map(|former| {
            let item = Item {
                attributes: former.attributes.clone(),
                description: former.description.clone(),
                record: former.record.clone(),
                ..self.item.clone()
            };
            item.with(&former.data)
        });
        std::iter::once(self.item.with(&self.data))
            .chain(former)
            .take(count)
            .collect()
    }

    /// Whether it is the login of a database server.
    pub fn is_base(&self) -> bool {
        is_base(&self.item.attributes)
    }

    /// The Secret as it is to be written.
    pub fn compose(&self, space: Space) -> Secret {
        let mut object = self.object.clone();
        let labels = object.labels_mut();
        labels.insert(MANAGED_BY.to_owned(), OPERATOR.to_owned());
        labels.insert(SECRET_LABEL.to_owned(), space.kind().word().to_owned());
        if self.is_base() {
            labels.insert(TYPE_LABEL.to_owned(), POSTGRESQL.to_owned());
        } else {
            labels.remove(TYPE_LABEL);
        }
        object.annotations_mut().extend(self.item.annotations());
        object.type_ = Some(SECRET_TYPE.to_owned());
        object.data = Some(self.bytes());
        object
    }

    fn bytes(&self) -> BTreeMap<String, ByteString> {
        let json = |value: Result<Vec<u8>, serde_json::Error>| ByteString(value.unwrap_or_default());
        let mut all = BTreeMap::from([(HEAD.to_owned(), json(serde_json::to_vec(&self.data)))]);
        for former in &self.history {
            let key = format!("{VERSION}{}", former.record.version);
            all.insert(key, json(serde_json::to_vec(former)));
        }
        if self.is_base() {
            let known = self.data.iter().filter(|(key, _)| BASE_KEYS.contains(&key.as_str()));
            all.extend(known.map(|(key, value)| (key.clone(), ByteString(plain(value).into_bytes()))));
        }
        all
    }
}

/// Whether the attributes say that it is the login of a database server that is served.
pub fn is_base(attributes: &Map<String, Value>) -> bool {
    // DSV's newer pages write `postgres`.
    matches!(
        attributes.get("type").and_then(Value::as_str),
        Some("postgresql" | "postgres")
    )
}

/// A text as it is, everything else as JSON.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kept(attributes: &Value, data: &Value) -> Kept {
        let item = Item {
            id: "2cb9c0f8-0000-5000-8000-0123456789ab".into(),
            path: "a:b".into(),
            attributes: attributes.as_object().unwrap().clone(),
            description: "d".into(),
            record: Stamp::first("users:a"),
        };
        Kept::new(item, data.as_object().unwrap().clone(), "shop")
    }

    #[test]
    fn values_keep_their_json_types_and_kubectl_wins() {
        let data = json!({"host": "db", "port": 3306, "username": "u", "password": "p", "note": [1, true]});
        let made = kept(&json!({"type": "postgresql"}), &data);
        let mut object = made.compose(Space::Secrets);
        let read = Kept::of(object.clone()).unwrap();
        assert_eq!(Value::Object(read.data), data);
        assert_eq!(read.item, made.item);
        let all = object.data.as_mut().unwrap();
        assert_eq!(all["port"].0, b"3306");
        assert!(
            !all.contains_key("note"),
            "only what the operator reads stands beside the head"
        );
        all.insert("password".into(), ByteString(b"changed".to_vec()));
        assert_eq!(Kept::of(object).unwrap().data["password"], "changed");
    }

    #[test]
    fn ten_versions_are_kept() {
        let mut one = kept(&json!({}), &json!({"n": 0}));
        for n in 1..=14 {
            one.push_history();
            one.item.record = one.item.record.next("users:b");
            one.data = json!({"n": n}).as_object().unwrap().clone();
        }
        let read = Kept::of(one.compose(Space::Secrets)).unwrap();
        let numbers: Vec<String> = read
            .versions(20)
            .iter()
            .map(|version| version["version"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(numbers.len(), 10);
        assert_eq!((numbers[0].as_str(), numbers[9].as_str()), ("14", "5"));
        assert_eq!(read.versions(3).len(), 3);
        assert_eq!(read.version(7).unwrap().2["n"], 7);
        assert!(read.version(3).is_none());
    }

    #[test]
    fn no_other_secret_is_one_of_ours() {
        let mut object = kept(&json!({}), &json!({})).compose(Space::Home);
        assert_eq!(object.labels()[SECRET_LABEL], "home");
        object.type_ = Some("Opaque".into());
        assert!(Kept::of(object).is_none());
    }
}
