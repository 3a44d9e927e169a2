//! Rows of objects that the API server must accept or refuse.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use futures::stream::{self, StreamExt};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::{Client, Error};
use serde_json::{Value, json};

use crate::cluster;

pub const NAMESPACE: &str = "default";

pub async fn client() -> Client {
    cluster().await.client().await.unwrap()
}

/// Objects of one of our kinds in the tests' namespace.
pub fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("dsv.dev", "v1alpha1", kind));
    Api::namespaced_with(client.clone(), NAMESPACE, &resource)
}

pub fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "dsv.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    })
}

/// A spec that is accepted, with changes as in a JSON merge patch: null takes a field away.
pub fn changed(mut spec: Value, patch: &Value) -> Value {
    merge(&mut spec, patch);
    spec
}

fn merge(into: &mut Value, patch: &Value) {
    let (Value::Object(fields), Value::Object(changes)) = (&mut *into, patch) else {
        *into = patch.clone();
        return;
    };
    for (key, change) in changes {
        if change.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

/// Asks the API server without storing anything. The error is its sentence.
pub async fn create(client: &Client, kind: &str, spec: &Value) -> Result<DynamicObject, String> {
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let object: DynamicObject = serde_json::from_value(object(kind, "probe", spec)).unwrap();
    match api(client, kind).create(&dry, &object).await {
        Ok(created) => Ok(created),
        Err(Error::Api(status)) => Err(status.message.clone()),
        Err(other) => panic!("no answer: {other}"),
    }
}

/// Every spec must be accepted, and what is stored must be what was sent.
pub async fn accepts(kind: &str, specs: Vec<Value>) {
    let client = client().await;
    let answers: Vec<_> = stream::iter(&specs)
        .map(|spec| create(&client, kind, spec))
        .buffered(8)
        .collect()
        .await;
    let mut wrong = String::new();
    for (spec, answer) in specs.iter().zip(answers) {
        match answer {
            Err(text) => writeln!(wrong, "refused: {spec}\n  {text}").unwrap(),
            Ok(created) if created.data["spec"] != *spec => {
                writeln!(wrong, "changed: {spec}\n  into {}", created.data["spec"]).unwrap();
            }
            Ok(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Every spec must be refused with a text that contains what stands beside it.
pub async fn refuses(kind: &str, rows: &[(Value, &str)]) {
    let client = client().await;
    let answers: Vec<_> = stream::iter(rows)
        .map(|(spec, _)| create(&client, kind, spec))
        .buffered(8)
        .collect()
        .await;
    let mut wrong = String::new();
    for ((spec, says), answer) in rows.iter().zip(answers) {
        match answer {
            Ok(_) => writeln!(wrong, "accepted: {spec}").unwrap(),
            Err(text) if !text.contains(says) => {
                writeln!(wrong, "{spec}\n  does not say `{says}`, but: {text}").unwrap();
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The messages of all rules of one kind's spec, and of the object as a whole, as the API server holds them.
pub async fn rules(plural: &str) -> BTreeSet<String> {
    let args = ["get", "crd", &format!("{plural}.dsv.dev"), "-o", "json"];
    let definition: Value = serde_json::from_str(&cluster().await.kubectl(&args).unwrap()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut messages = BTreeSet::new();
    let own = json!({"x-kubernetes-validations": schema["x-kubernetes-validations"]});
    collect(&own, &mut messages);
    collect(&schema["properties"]["spec"], &mut messages);
    messages
}

fn collect(schema: &Value, messages: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let message = rule["message"].as_str().expect("every rule has a message");
                messages.insert(message.to_owned());
            }
            fields.values().for_each(|below| collect(below, messages));
        }
        Value::Array(items) => items.iter().for_each(|below| collect(below, messages)),
        _ => {}
    }
}

/// Fails if a rule of the definition is expected by no row: a rule without a refused example may be wrong unnoticed.
/// `elsewhere` are rules that another test holds.
pub async fn covers_every_rule(plural: &str, rows: &[(Value, &str)], elsewhere: &[&str]) {
    let said = |rule: &String| {
        rows.iter().any(|(_, says)| !says.is_empty() && rule.contains(says))
            || elsewhere.iter().any(|text| rule.contains(text))
    };
    let bare: Vec<String> = rules(plural).await.into_iter().filter(|rule| !said(rule)).collect();
    assert!(bare.is_empty(), "rules without a refused example: {bare:#?}");
}
