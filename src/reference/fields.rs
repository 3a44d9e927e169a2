//! The page on the fields of the custom resources, read from the definitions that are installed.

use super::{Error, cell};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fmt::Write;

const OPENING: &str = "\
# Fields

All fields of the custom resources, as the API server checks them. `kubectl explain dynamicsecret.spec` says the same;
the [guide](guide.md) says what they are for, and [samples](../config/samples) have each mode. `[]` stands for each member of a list,
`.*` for each key of a map. Lengths of time are seconds (`1000`, `\"1000\"`) or durations such as `1h30m`.
";
/// Fewer fields are written out at each place: a reference would be longer.
const WORTH_A_REFERENCE: usize = 2;

/// As Markdown.
pub fn page() -> Result<String, Error> {
    let mut page = Page {
        text: OPENING.to_owned(),
        written: HashMap::new(),
    };
    for definition in crate::api::definitions() {
        page.kind(&serde_json::to_value(&definition)?);
    }
    Ok(page.text)
}

struct Page {
    text: String,
    /// Where a set of fields was written out first.
    written: HashMap<String, String>,
}

impl Page {
    fn kind(&mut self, definition: &Value) {
        let at = |path: &str| definition.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let kind = at("/spec/names/kind").to_owned();
        let _ = write!(
            self.text,
            "\n## {kind}\n\n`{}/{}`, for kubectl also `{}`.",
            at("/spec/group"),
            at("/spec/versions/0/name"),
            at("/spec/names/shortNames/0"),
        );
        let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema");
        let schema = schema.cloned().unwrap_or_default();
        if let Some(about) = schema.get("description").and_then(Value::as_str) {
            let _ = write!(self.text, " {}", about.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        self.text.push('\n');
        let rules = rules(&schema);
        if !rules.is_empty() {
            let _ = write!(self.text, "\nAs a whole: {}.\n", rules.join("; "));
        }
        for (part, whose) in [("spec", "What you write"), ("status", "What the operator writes")] {
            let Some(schema) = schema.pointer(&format!("/properties/{part}")) else {
                continue;
            };
            let _ = write!(
                self.text,
                "\n{whose}:\n\n| field | type | what is taken | meaning |\n|---|---|---|---|\n"
            );
            self.fields(&kind, part, schema);
        }
    }

    /// The fields of an object, each followed by those below it.
    fn fields(&mut self, kind: &str, path: &str, schema: &Value) {
        let nothing = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&nothing);
        for (name, field) in properties {
            let needed = list(schema, "required").iter().any(|required| required == name);
            self.field(kind, &format!("{path}.{name}"), field, needed);
        }
    }

    fn field(&mut self, kind: &str, path: &str, schema: &Value, needed: bool) {
        let (below, suffix) = inner(schema);
        let below_path = format!("{path}{suffix}");
        let known = self.known(&format!("`{kind}` `{below_path}`"), below);
        let mut meaning = text(schema, "description");
        if let Some(place) = &known {
            let _ = write!(meaning, " Fields as of {place}.");
        }
        let _ = writeln!(
            self.text,
            "| `{path}` | {} | {} | {} |",
            kind_of(schema),
            cell(&taken(schema, below, needed).join("; ")),
            cell(&meaning)
        );
        if known.is_none() {
            self.fields(kind, &below_path, below);
        }
    }

    /// Where the same fields stand already; notes where they stand otherwise.
    fn known(&mut self, place: &str, schema: &Value) -> Option<String> {
        let fields = schema.get("properties")?.as_object()?;
        if fields.len() < WORTH_A_REFERENCE {
            return None;
        }
        let key = Value::Object(fields.clone()).to_string();
        if let Some(place) = self.written.get(&key) {
            return Some(place.clone());
        }
        self.written.insert(key, place.to_owned());
        None
    }
}

/// What a list or a map holds, with what is put behind its path; the thing itself otherwise.
fn inner(schema: &Value) -> (&Value, String) {
    let (key, suffix) = match schema.get("type").and_then(Value::as_str) {
        Some("array") => ("items", "[]"),
        Some("object") if schema.get("additionalProperties").is_some_and(Value::is_object) => {
            ("additionalProperties", ".*")
        }
        _ => return (schema, String::new()),
    };
    let Some(below) = schema.get(key) else {
        return (schema, String::new());
    };
    let (deepest, more) = inner(below);
    (deepest, format!("{suffix}{more}"))
}

fn kind_of(schema: &Value) -> String {
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        return "integer or text".to_owned();
    }
    let of = |key: &str| schema.get(key).map(kind_of).unwrap_or_default();
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => format!("list of {}", of("items")),
        Some("object") if schema.get("additionalProperties").is_some_and(Value::is_object) => {
            format!("map of {}", of("additionalProperties"))
        }
        Some("string") => match schema.get("format").and_then(Value::as_str) {
            Some("date-time") => "time".to_owned(),
            _ => "text".to_owned(),
        },
        Some(other) => other.to_owned(),
        None => "anything".to_owned(),
    }
}

/// What the API server takes: whether it must be there, the default, bounds, and rules.
fn taken(schema: &Value, below: &Value, needed: bool) -> Vec<String> {
    let mut taken = Vec::new();
    if needed {
        taken.push("required".to_owned());
    }
    if let Some(default) = schema.get("default") {
        taken.push(format!("default `{default}`"));
    }
    taken.extend(bounds(schema));
    taken.extend(rules(schema));
    if !std::ptr::eq(schema, below) {
        let each = bounds(below).into_iter().chain(rules(below));
        taken.extend(each.map(|bound| format!("each {bound}")));
    }
    taken
}

fn bounds(schema: &Value) -> Vec<String> {
    let mut bounds = Vec::new();
    let words = list(schema, "enum");
    if !words.is_empty() {
        let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
        bounds.push(format!("one of {}", words.join(", ")));
    }
    for (least, most, of) in [
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " members"),
        ("minProperties", "maxProperties", " keys"),
    ] {
        let number = |key: &str| {
            schema
                .get(key)
                .map(|number| number.to_string().trim_end_matches(".0").to_owned())
        };
        match (number(least), number(most)) {
            (Some(least), Some(most)) => bounds.push(format!("{least} to {most}{of}")),
            (Some(least), None) => bounds.push(format!("{least}{of} or more")),
            (None, Some(most)) => bounds.push(format!("{most}{of} at most")),
            (None, None) => {}
        }
    }
    bounds
}

/// The sentences of the rules; each rule has one.
fn rules(schema: &Value) -> Vec<String> {
    let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
    rules.into_iter().flatten().map(|rule| text(rule, "message")).collect()
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn list(schema: &Value, key: &str) -> Vec<String> {
    let members = schema.get(key).and_then(Value::as_array);
    members
        .into_iter()
        .flatten()
        .filter_map(|member| Some(member.as_str()?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_field_of_every_kind_is_on_the_page_or_on_a_page_that_is_referred_to() {
        let page = page().unwrap();
        for row in [
            "| `spec.pool.namespace` | text |",
            "| `spec.issuance.mode` | text | one of `Once`, `Rotate`, `OnDemand`",
            "| `spec.access[].namespaceSelector.matchLabels` | map of text |",
            "| `status.phase` | text |",
        ] {
            assert!(page.contains(row), "{row} is not in\n{page}");
        }
        for kind in ["EnginePool", "Engine", "DynamicSecret", "CredentialLease"] {
            assert!(page.contains(&format!("\n## {kind}\n")), "{kind}");
        }
        assert!(page.contains("Fields as of `CredentialLease` `spec.claim`."), "{page}");
    }

    #[test]
    fn a_table_is_not_broken_by_what_stands_in_it() {
        let mut page = Page {
            text: String::new(),
            written: HashMap::new(),
        };
        let schema = json!({"properties": {"a": {"type": "string", "description": "one |\ntwo", "minLength": 1, "maxLength": 3}}, "required": ["a"]});
        page.fields("Kind", "spec", &schema);
        assert_eq!(
            page.text,
            "| `spec.a` | text | required; 1 to 3 characters | one \\| two |\n"
        );
    }

    #[test]
    fn lists_of_maps_have_a_path() {
        let schema = json!({"type": "array", "items": {"type": "object", "additionalProperties": {"type": "integer", "maximum": 5.0}}});
        let (below, suffix) = inner(&schema);
        assert_eq!(
            (suffix.as_str(), kind_of(&schema)),
            ("[].*", "list of map of integer".to_owned())
        );
        assert_eq!(taken(&schema, below, false), ["each 5 at most"]);
    }
}
