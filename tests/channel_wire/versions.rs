//! Operators and engines of different releases: the version that they agree on, fields that only one of them knows, and fields
//! without which none can do.

use super::fixtures;
use dsv::channel::frames::{PROTOCOL_MAX, PROTOCOL_MIN, ToEngine, ToOperator, agreed};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;

#[test]
fn the_newest_version_that_both_speak_is_used() {
    for (ours, theirs, version) in [
        ((1, 1), (1, 1), Some(1)),
        // A newer operator with the engine of the release before it, and the other way round.
        ((1, 2), (1, 1), Some(1)),
        ((1, 1), (1, 2), Some(1)),
        ((2, 4), (1, 3), Some(3)),
        // Too old, too new, and upside down.
        ((3, 4), (1, 2), None),
        ((1, 2), (3, 4), None),
        ((1, 4), (3, 2), None),
    ] {
        assert_eq!(agreed(ours, theirs), version, "{ours:?} {theirs:?}");
    }
    assert_eq!(PROTOCOL_MIN, 1, "engines of the first release are still in use");
    assert_eq!(
        agreed((PROTOCOL_MIN, PROTOCOL_MAX), (PROTOCOL_MIN, PROTOCOL_MAX)),
        Some(PROTOCOL_MAX)
    );
}

#[test]
fn fields_that_a_newer_version_adds_are_ignored_in_every_frame() {
    widened_reads_the_same::<ToEngine>("to-engine.");
    widened_reads_the_same::<ToOperator>("to-operator.");
}

fn widened_reads_the_same<T: DeserializeOwned + PartialEq + Debug>(prefix: &str) {
    for (name, text) in fixtures(prefix) {
        let mut wider: Value = serde_json::from_str(&text).unwrap();
        widen(&mut wider);
        let (then, now): (T, Result<T, _>) = (serde_json::from_str(&text).unwrap(), serde_json::from_value(wider));
        assert_eq!(now.unwrap_or_else(|error| panic!("{name}: {error}")), then, "{name}");
    }
}

/// Gives each object inside of a frame fields that no version has.
fn widen(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(widen);
            fields.insert(
                "aNewField".into(),
                json!({"kind": "new", "type": 7, "list": [1, {"result": null}]}),
            );
            fields.insert("anotherOne".into(), Value::Null);
        }
        Value::Array(items) => items.iter_mut().for_each(widen),
        _ => {}
    }
}

/// What is required is required for good: a field that comes later must be optional, or no older side could be talked to;
/// and one that is left out one day would be missed by every older side.
#[test]
fn exactly_the_fields_of_the_first_version_are_required() {
    let mut required = required_fields::<ToEngine>("to-engine.");
    required.extend(required_fields::<ToOperator>("to-operator."));
    let mut found = required.into_iter().collect::<Vec<_>>().join("\n");
    found.push('\n');
    let listed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/v1/required.txt");
    let listed = std::fs::read_to_string(listed).unwrap_or_default();
    assert_eq!(found, listed, "other fields are required now than in version 1");
}

/// Where the fields stand without which a frame cannot be read. One that lacks all others is read too.
fn required_fields<T: DeserializeOwned>(prefix: &str) -> BTreeSet<String> {
    let mut required = BTreeSet::new();
    for (name, text) in fixtures(prefix) {
        let whole: Value = serde_json::from_str(&text).unwrap();
        let mut least = whole.clone();
        for field in fields_of(&whole, "") {
            let mut without = whole.clone();
            remove(&mut without, &field);
            if serde_json::from_value::<T>(without).is_ok() {
                remove(&mut least, &field);
            } else {
                required.insert(format!("{prefix}{} {}", kind_of(&whole), field.trim_start_matches('/')));
            }
        }
        serde_json::from_value::<T>(least).unwrap_or_else(|error| panic!("{name}, with what is required: {error}"));
    }
    // Of items of a list the first ones stand for all, so a number says nothing.
    required
        .into_iter()
        .map(|field| {
            field
                .split('/')
                .map(|part| if part.parse::<usize>().is_ok() { "*" } else { part })
                .collect::<Vec<_>>()
                .join("/")
        })
        .collect()
}

/// Such as `task.issue`.
fn kind_of(frame: &Value) -> String {
    let at = |pointer: &str| frame.pointer(pointer).and_then(Value::as_str);
    let of = ["/type", "/task/kind", "/outcome/result", "/outcome/done/kind"];
    of.iter()
        .filter_map(|pointer| at(pointer))
        .collect::<Vec<_>>()
        .join(".")
}

/// Pointers to all fields, outer ones first.
fn fields_of(value: &Value, at: &str) -> Vec<String> {
    let (inner, own): (Vec<(String, &Value)>, bool) = match value {
        Value::Object(fields) => (fields.iter().map(|(key, value)| (key.clone(), value)).collect(), true),
        Value::Array(items) => (
            items
                .iter()
                .enumerate()
                .map(|(at, value)| (at.to_string(), value))
                .collect(),
            false,
        ),
        _ => (Vec::new(), false),
    };
    let mut found = Vec::new();
    for (key, value) in inner {
        let pointer = format!("{at}/{key}");
        if own {
            found.push(pointer.clone());
        }
        found.extend(fields_of(value, &pointer));
    }
    found
}

/// Takes the field out, if what it stands in is still there.
fn remove(value: &mut Value, pointer: &str) {
    let (outer, key) = pointer.rsplit_once('/').unwrap();
    if let Some(Value::Object(fields)) = value.pointer_mut(outer) {
        fields.remove(key);
    }
}
