//! Checking base secrets when they are written: every missing or wrong field at once.

use super::kept::{Kept, is_base, plain};
use crate::api::base_secret;
use crate::vault::reply::Refusal;
use serde_json::{Map, Value};

/// Kinds of base secrets that DSV knows and that are not served here.
const NOT_SERVED: [&str; 6] = ["mysql", "mssql", "oracle", "aws", "azure", "gcp"];
/// What a base secret must have.
const REQUIRED: [&str; 4] = ["host", "port", "username", "password"];

/// Whether what is about to be written can be served.
pub fn check(kept: &Kept) -> Result<(), Refusal> {
    let kind = kept
        .item
        .attributes
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if NOT_SERVED.contains(&kind) {
        let message = format!("type {kind} is not supported");
        return Err(Refusal::bad(message).with("attributes.type", "must be postgresql"));
    }
    if !is_base(&kept.item.attributes) {
        return Ok(());
    }
    let faults = faults(&kept.data);
    if !faults.is_empty() {
        return Err(Refusal::fields(faults));
    }
    let read = base_secret::read(&kept.compose(super::Space::Secrets));
    read.map(|_| ()).map_err(|error| Refusal::bad(error.faults.join("; ")))
}

fn faults(data: &Map<String, Value>) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    for key in REQUIRED {
        let field = format!("data.{key}");
        match data.get(key) {
            None | Some(Value::Null) => faults.push((field, "is required".to_owned())),
            Some(Value::String(text)) if text.trim().is_empty() => faults.push((field, "is required".to_owned())),
            Some(Value::String(_)) => {}
            Some(Value::Number(_)) if key == "port" => {}
            Some(_) => faults.push((field, "must be a text".to_owned())),
        }
    }
    if let Some(port) = data.get("port").map(plain)
        && !port.trim().is_empty()
        && !port
            .split(',')
            .all(|one| one.trim().parse::<u16>().is_ok_and(|port| port > 0))
    {
        faults.push(("data.port".to_owned(), "must be a number from 1 to 65535".to_owned()));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::secrets::item::{Item, Stamp};
    use serde_json::json;

    fn checked(kind: &str, data: &Value) -> Result<(), Refusal> {
        let item = Item {
            id: "i".into(),
            path: "db:root".into(),
            attributes: [("type".to_owned(), json!(kind))].into_iter().collect(),
            description: String::new(),
            record: Stamp::first("users:a"),
        };
        check(&Kept::new(item, data.as_object().unwrap().clone(), "shop"))
    }

    #[test]
    fn the_seeds_base_secret_passes() {
        let seed =
            json!({"host": "database-1.example.com", "password": "P@ssword!", "port": 3306, "username": "admin"});
        for kind in ["postgresql", "postgres"] {
            checked(kind, &seed).unwrap();
        }
        let mut text = seed;
        text["port"] = json!("5432");
        checked("postgresql", &text).unwrap();
    }

    #[test]
    fn every_missing_and_wrong_field_is_named() {
        let refusal = checked("postgresql", &json!({"port": 70000, "username": " ", "password": 5})).unwrap_err();
        let fields: Vec<&String> = refusal.errors.keys().collect();
        assert_eq!(fields, ["data.host", "data.password", "data.port", "data.username"]);
        assert_eq!(refusal.code, 400);
        let refusal = checked(
            "postgresql",
            &json!({"host": "h", "port": 1, "username": "u", "password": "p", "sslmode": "x"}),
        );
        assert!(refusal.unwrap_err().message.contains("sslmode"));
    }

    #[test]
    fn kinds_that_are_not_served_are_told_and_any_other_type_is_the_users_own() {
        assert_eq!(
            checked("mysql", &json!({})).unwrap_err().message,
            "type mysql is not supported"
        );
        checked("ssh", &json!({})).unwrap();
    }
}
