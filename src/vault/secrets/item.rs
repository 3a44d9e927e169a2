//! A secret without its values: what its object's annotations say, and what describing it answers.

use crate::vault::time;
use jiff::Timestamp;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Annotation: the path, with `:`.
pub const PATH: &str = "dsv.dev/path";
/// Annotation: the attributes, as JSON.
pub const ATTRIBUTES: &str = "dsv.dev/attributes";
/// Annotation: the description.
pub const DESCRIPTION: &str = "dsv.dev/description";
/// Annotation: version, times and people, as JSON.
pub const RECORD: &str = "dsv.dev/record";
/// Who is named where an object was made without this API.
const SOMEBODY: &str = "kubernetes";

/// A secret without its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Id: the name of its object, or for one that was made without this API its UID.
    pub id: String,
    /// Path, with `:`.
    pub path: String,
    /// Attributes.
    pub attributes: Map<String, Value>,
    /// Description.
    pub description: String,
    /// Version, times and people.
    pub record: Stamp,
}

/// Version, times and people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stamp {
    /// Counts the changes.
    pub version: u64,
    /// When it was made.
    pub created: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When it was changed last.
    pub last_modified: Timestamp,
    /// By whom.
    pub last_modified_by: String,
    /// When it was softly deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Timestamp>,
}

impl Stamp {
    /// The first version.
    pub fn first(by: &str) -> Self {
        let now = time::now();
        Self {
            version: 0,
            created: now,
            created_by: by.to_owned(),
            last_modified: now,
            last_modified_by: by.to_owned(),
            deleted: None,
        }
    }

    /// The next version.
    #[must_use]
    pub fn next(&self, by: &str) -> Self {
        Self {
            version: self.version + 1,
            last_modified: time::now(),
            last_modified_by: by.to_owned(),
            ..self.clone()
        }
    }
}

impl Item {
    /// Reads an object's annotations. One without them was made by other means, and its name is its path.
    pub fn of(object: &impl ResourceExt) -> Self {
        let note = |name: &str| object.annotations().get(name);
        let attributes = note(ATTRIBUTES).and_then(|text| serde_json::from_str(text).ok());
        let record = note(RECORD).and_then(|text| serde_json::from_str(text).ok());
        let made = object.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |at| at.0);
        let is_ours = note(PATH).is_some();
        Self {
            id: if is_ours {
                object.name_any()
            } else {
                object.uid().unwrap_or_default()
            },
            path: note(PATH).cloned().unwrap_or_else(|| object.name_any()),
            attributes: attributes.unwrap_or_default(),
            description: note(DESCRIPTION).cloned().unwrap_or_default(),
            record: record.unwrap_or_else(|| Stamp {
                created: made,
                last_modified: made,
                ..Stamp::first(SOMEBODY)
            }),
        }
    }

    /// What goes into the annotations.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let json = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
        [
            (PATH, self.path.clone()),
            (ATTRIBUTES, json(serde_json::to_string(&self.attributes))),
            (DESCRIPTION, self.description.clone()),
            (RECORD, json(serde_json::to_string(&self.record))),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }

    /// Whether it is softly deleted and can still be restored.
    pub fn is_marked(&self) -> bool {
        self.record.deleted.is_some()
    }

    /// Whether its time after a soft deletion is over.
    pub fn is_over(&self) -> bool {
        self.record.deleted.is_some_and(time::is_over)
    }

    /// `SecretDescription`.
    pub fn description(&self) -> Map<String, Value> {
        let record = &self.record;
        let all = json!({
            "id": self.id,
            "path": self.path,
            "attributes": self.attributes,
            "description": self.description,
            "version": record.version.to_string(),
            "created": time::text(record.created),
            "createdBy": record.created_by,
            "lastModified": time::text(record.last_modified),
            "lastModifiedBy": record.last_modified_by,
        });
        match all {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// `SecretResponse`.
    pub fn with(&self, data: &Map<String, Value>) -> Value {
        let mut all = self.description();
        all.insert("data".to_owned(), Value::Object(data.clone()));
        Value::Object(all)
    }
}
