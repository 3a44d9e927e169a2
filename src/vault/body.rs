//! Bodies as clients send them: JSON with keys in any case, at the outermost level; for logins also a form.

use super::reply::Refusal;
use serde_json::{Map, Value};
use std::fmt;

/// Longest body in bytes.
pub const MAX_BODY: usize = 1024 * 1024;
/// Deepest nesting that is taken.
const MAX_DEPTH: usize = 32;

/// The fields of a body.
#[derive(Default, PartialEq)]
pub struct Fields(Map<String, Value>);

/// Names and no values: among them are passwords.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Fields {
    /// Reads a JSON object; nothing at all counts as an empty one. Keys are compared without case.
    pub fn json(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let wrong = || Refusal::bad("the body must be a JSON object");
        // The text is not repeated: it may hold a secret.
        let Value::Object(read) = serde_json::from_slice(bytes).map_err(|_| wrong())? else {
            return Err(wrong());
        };
        if read.values().any(|value| depth(value) > MAX_DEPTH) {
            return Err(Refusal::bad(format!(
                "the body is nested deeper than {MAX_DEPTH} levels"
            )));
        }
        let mut fields = Map::new();
        for (key, value) in read {
            if fields.insert(key.to_lowercase(), value).is_some() {
                return Err(Refusal::bad(format!(
                    "the body has the key {} twice",
                    key.to_lowercase()
                )));
            }
        }
        Ok(Self(fields))
    }

    /// Reads a form.
    pub fn form(bytes: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(bytes);
        Self(
            pairs
                .map(|(key, value)| (key.to_lowercase(), Value::String(value.into_owned())))
                .collect(),
        )
    }

    /// A value, if there is one that is not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there at all.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// A text; absent where there is none or an empty one.
    pub fn text(&self, key: &str) -> Result<Option<&str>, Refusal> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(Refusal::fields(vec![(key.to_owned(), "must be a text".to_owned())])),
        }
    }

    /// A text that must be there.
    pub fn required(&self, key: &str) -> Result<&str, Refusal> {
        let missing = || Refusal::fields(vec![(key.to_owned(), "is required".to_owned())]);
        self.text(key)?.ok_or_else(missing)
    }

    /// An object.
    pub fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, Refusal> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(Refusal::fields(vec![(key.to_owned(), "must be an object".to_owned())])),
        }
    }

    /// A list of texts.
    pub fn list(&self, key: &str) -> Result<Vec<String>, Refusal> {
        let wrong = || Refusal::fields(vec![(key.to_owned(), "must be a list of texts".to_owned())]);
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(all)) => all
                .iter()
                .map(|one| one.as_str().map(str::to_owned).ok_or_else(wrong))
                .collect(),
            Some(_) => Err(wrong()),
        }
    }

    /// True only where it says so.
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), Some(Value::Bool(true)))
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(all) => 1 + all.iter().map(depth).max().unwrap_or(0),
        Value::Object(all) => 1 + all.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_outermost_level_have_no_case() {
        let fields = Fields::json(br#"{"Data": {"Key": 1}, "DESCRIPTION": "x", "attributes": null}"#).unwrap();
        assert_eq!(
            fields.object("data").unwrap().unwrap().get("Key"),
            Some(&Value::from(1))
        );
        assert_eq!(fields.text("description").unwrap(), Some("x"));
        assert!(fields.get("attributes").is_none() && fields.has("attributes"));
        assert_eq!(Fields::json(b" ").unwrap(), Fields::default());
    }

    #[test]
    fn what_is_no_object_is_refused_without_being_repeated() {
        for wrong in ["[]", "hunter2", "{\"password\": \"hunter2\",}", "{\"a\":1,\"A\":2}"] {
            let refusal = Fields::json(wrong.as_bytes()).unwrap_err();
            assert!(
                refusal.code == 400 && !refusal.message.contains("hunter2"),
                "{refusal:?}"
            );
        }
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(60), "]".repeat(60));
        assert!(Fields::json(deep.as_bytes()).unwrap_err().message.contains("deeper"));
        let deeper = format!("{{\"a\": {}{}}}", "[".repeat(60_000), "]".repeat(60_000));
        assert_eq!(Fields::json(deeper.as_bytes()).unwrap_err().code, 400);
    }

    #[test]
    fn a_form_is_read_as_well() {
        let fields = Fields::form(b"grant_type=password&username=a%40b&password=p+q");
        assert_eq!(fields.required("username").unwrap(), "a@b");
        assert_eq!(fields.required("password").unwrap(), "p q");
    }
}
