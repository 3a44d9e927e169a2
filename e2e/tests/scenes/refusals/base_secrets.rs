//! Faults of base secrets.

use dsv::api::conditions::Reason;
use serde_json::{Value, json};

use crate::refusals::trial::{Row, hold};
use crate::refusals::world::World;

/// A base secret with changes as in a merge patch; it is mended by writing the good one.
async fn spoilt(world: &World, name: &'static str, patch: &Value) {
    let mut secret = world.base(name);
    for (key, value) in patch["stringData"].as_object().into_iter().flatten() {
        let data = secret["stringData"].as_object_mut().unwrap();
        if value.is_null() {
            data.remove(key);
        } else {
            data.insert(key.clone(), value.clone());
        }
    }
    if let Some(labels) = patch.get("labels") {
        secret["metadata"]["labels"] = labels.clone();
    }
    if let Some(data) = patch.get("data") {
        secret["data"] = data.clone();
    }
    world.kube.put(&secret).await;
}

fn row(world: &World, fault: &'static str, name: &'static str, reason: Reason, says: &[&str]) -> Row {
    Row::new(world, fault, name, reason, says)
        .mended(move |world| Box::pin(async move { world.kube.put(&world.base(name)).await }))
}

#[tokio::test]
async fn a_faulty_base_secret_is_named_with_its_fault_and_mending_it_is_enough() {
    let world = World::new("bases").await;
    let labelled = |value: &str| json!({"labels": {"dsv.dev/type": value}});
    let with = |key: &str, value: Value| json!({"stringData": {key: value}});
    let missing = "base secret {ns}/absent does not exist; create it with label dsv.dev/type=postgresql and keys host, port, username, password";
    let missing = missing.replace("{ns}", &world.databases);
    let faults = [
        (
            "the label is missing",
            "unlabelled",
            json!({"labels": {}}),
            "label dsv.dev/type=postgresql is missing; it marks a Secret as a base secret",
        ),
        (
            "the label names another kind of database",
            "mislabelled",
            labelled("mysql"),
            "label dsv.dev/type is `mysql`; only `postgresql` is served",
        ),
        (
            "a key is missing",
            "keyless",
            with("password", Value::Null),
            "key password is missing or empty",
        ),
        (
            "a key is empty",
            "empty",
            with("host", json!("")),
            "key host is missing or empty",
        ),
        (
            "the port is a word",
            "wordy",
            with("port", json!("postgres")),
            "key port is not a number from 1 to 65535",
        ),
        (
            "the port is too high",
            "high",
            with("port", json!("65536")),
            "key port is not a number from 1 to 65535",
        ),
        (
            "the sslmode is unknown",
            "moded",
            with("sslmode", json!("maybe")),
            "key sslmode is not one of disable, require, verify-ca, verify-full",
        ),
        (
            "half of a client certificate",
            "half",
            with("tls.crt", json!("x")),
            "tls.crt and tls.key belong together; write both or neither",
        ),
    ];
    let mut rows = vec![row(
        &world,
        "the base secret does not exist",
        "absent",
        Reason::BaseSecretMissing,
        &[&missing],
    )];
    for (fault, name, patch, says) in faults {
        spoilt(&world, name, &patch).await;
        rows.push(row(
            &world,
            fault,
            name,
            Reason::BaseSecretInvalid,
            &[&format!("base secret {name}: "), says],
        ));
    }
    spoilt(
        &world,
        "several",
        &json!({"stringData": {"port": "x", "username": null}}),
    )
    .await;
    let both = [
        "key port is not a number from 1 to 65535",
        "key username is missing or empty",
    ];
    if let Some(half) = rows.last_mut() {
        half.mend = Box::new(|world| {
            Box::pin(async {
                let without = json!({"data": {"tls.crt": null}});
                world.kube.merge("Secret", &world.databases, "half", &without).await;
            })
        });
    }
    rows.push(row(
        &world,
        "several faults are told at once",
        "several",
        Reason::BaseSecretInvalid,
        &both,
    ));
    hold(&world, rows).await;
}
