//! Bodies of Secret Server's calls: fields that are wrapped as `{"value": …, "dirty": true}`, inside of one outer key.

use crate::vault::body::Fields;
use crate::vault::call::Call;
use crate::vault::reply::Refusal;
use serde_json::{Map, Value};

/// What a client changed.
#[derive(Default)]
pub struct Form(Map<String, Value>);

impl Form {
    /// Reads the body of a call. Fields that are not dirty count as not there.
    pub fn read(call: &Call) -> Result<Self, Refusal> {
        let fields = lenient(call)?;
        let data = fields.object("data")?.cloned().unwrap_or_default();
        let mut form = Map::new();
        for (name, field) in data {
            let Value::Object(wrapped) = field else {
                return Err(wrong(&name, "must be an object with value and dirty"));
            };
            let of = |wanted: &str| {
                let found = wrapped.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted));
                found.map(|(_, value)| value.clone())
            };
            if of("dirty") == Some(Value::Bool(true)) {
                form.insert(name.to_lowercase(), of("value").unwrap_or_default());
            }
        }
        Ok(Self(form))
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(&name.to_lowercase()).filter(|value| !value.is_null())
    }

    /// A whole number.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let read = |value: &Value| value.as_i64().ok_or_else(|| wrong(name, "must be a whole number"));
        self.get(name).map(read).transpose()
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<String>, Refusal> {
        let read = |value: &Value| {
            let text = value.as_str().map(str::to_owned);
            text.ok_or_else(|| wrong(name, "must be a text"))
        };
        self.get(name).map(read).transpose()
    }

    /// Yes or no.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let read = |value: &Value| value.as_bool().ok_or_else(|| wrong(name, "must be true or false"));
        self.get(name).map(read).transpose()
    }

    /// A list of texts.
    pub fn list(&self, name: &str) -> Result<Option<Vec<String>>, Refusal> {
        let read = |value: &Value| {
            let all = value.as_array().into_iter().flatten();
            let texts: Option<Vec<String>> = all.map(|one| one.as_str().map(str::to_owned)).collect();
            let texts = texts.filter(|_| value.is_array());
            texts.ok_or_else(|| wrong(name, "must be a list of texts"))
        };
        self.get(name).map(read).transpose()
    }
}

/// The list of whole numbers under the outer key.
pub fn ids(call: &Call) -> Result<Vec<i64>, Refusal> {
    let fields = lenient(call)?;
    let all = fields.get("data").and_then(Value::as_array);
    let ids: Option<Vec<i64>> = all.and_then(|all| all.iter().map(Value::as_i64).collect());
    ids.ok_or_else(|| wrong("data", "must be a list of sync map ids"))
}

/// What is wrong in which field.
pub fn wrong(field: &str, fault: &str) -> Refusal {
    Refusal::fields(vec![(field.to_owned(), fault.to_owned())])
}

/// JSON, also with `\$`, which is none: documents of Secret Server have it in their examples.
fn lenient(call: &Call) -> Result<Fields, Refusal> {
    match call.fields() {
        Err(refusal) if refusal.code == 400 => Fields::json(&without_escaped_dollars(call.bytes())),
        other => other,
    }
}

fn without_escaped_dollars(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match (byte, rest.peek().copied()) {
            (b'\\', Some(b'$')) => {}
            // What is escaped is passed on as it is, or a backslash before a dollar would lose its own.
            (b'\\', Some(next)) => {
                out.extend([byte, next]);
                rest.next();
            }
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_dollar_is_a_dollar_and_nothing_else_changes() {
        for (given, expected) in [
            (r#"["\$domain"]"#, r#"["$domain"]"#),
            (r#"["\\$domain"]"#, r#"["\\$domain"]"#),
            (r#"["\"\$a", "$b\n"]"#, r#"["\"$a", "$b\n"]"#),
        ] {
            let out = without_escaped_dollars(given.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
