//! An operator that serves some namespaces only: there it does everything, elsewhere it needs no right to Secrets, says why it
//! does nothing, and still takes back what lived when it was told so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use e2e::install::NAMESPACE;
use e2e::objects::text;
use e2e::places::own_program;
use e2e::scene::{Credential, PATIENCE, Scene};
use e2e::stack::{Shape, Stack};
use serde_json::{Value, json};

async fn issued(scene: &Scene<'_>, name: &str, spec: &Value) -> Credential {
    scene.ask(name, spec).await.unwrap();
    scene.wait_ready(name, "True/Issued").await.unwrap();
    scene.wait_credential(name).await.unwrap()
}

/// Gives the operator the right to Secrets in these namespaces only, as its own command prints it.
fn narrow(stack: &Stack, named: &str) {
    let printed = Command::new(own_program("dsv-operator").unwrap())
        .args(["rbac", "--namespace", NAMESPACE, "--watch-namespaces", named])
        .output()
        .unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let everywhere = ["delete", "clusterrolebinding", "dsv-operator-secrets"];
    stack.kubectl(&everywhere).unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    stack.cluster().kubectl_with(&["apply", "-f", "-"], &printed).unwrap();
    assert!(
        stack
            .kubectl(&["get", "clusterrolebinding", "dsv-operator-secrets"])
            .is_err()
    );
}

#[tokio::test]
async fn outside_of_the_namespaces_that_are_served_nothing_is_issued_and_what_lived_there_is_taken_back() {
    let stack = Stack::start(Shape {
        node: true,
        ..Shape::default()
    })
    .await
    .unwrap();
    let inside = Scene::open(&stack, Some(1)).await.unwrap();
    let outside = Scene::open(&stack, Some(1)).await.unwrap();
    let before = issued(&inside, "before", &json!({"ttl": "20m"})).await;
    let left = issued(&outside, "left", &json!({"ttl": 90})).await;
    let deleted = issued(&outside, "deleted", &json!({"ttl": "20m"})).await;
    assert!(stack.operators()[0].stop());

    let named = format!("{},{}", &*inside.shop, &*inside.databases);
    narrow(&stack, &named);
    let args = ["--watch-namespaces".to_owned(), named];
    let former = stack.operators()[0].log_text().len();
    let operator = stack.operators()[0].restart_with(&args).await.unwrap();
    // Inside all is as before: what lives goes on, and more is issued, delivered and taken back.
    inside.wait_connected(1).await.unwrap();
    let more = issued(&inside, "more", &json!({"ttl": "20m"})).await;
    inside.use_account(&more.login).await.unwrap();
    inside
        .objects
        .delete("DynamicSecret", &inside.shop, "more")
        .await
        .unwrap();
    inside.wait_no_role(&more.login.user).await.unwrap();
    inside.wait_absent("Secret", &inside.shop, "more").await.unwrap();
    let still = inside.wait_credential("before").await.unwrap();
    assert_eq!(still.lease, before.lease, "a live credential was issued again");

    refused_outside(&outside).await;
    // A pool outside is of no use inside either: its base secret cannot be read.
    let across = json!({"pool": {"name": "orders", "namespace": &*outside.databases}, "userPrefix": outside.prefix});
    inside.ask("across", &across).await.unwrap();
    inside.wait_ready("across", "False/NotServed").await.unwrap();

    what_lived_outside_goes(&outside, &left, &deleted).await;

    // Whoever asks for what he has no right to is told so.
    let log = operator.log_text().split_off(former);
    let forbidden = log.lines().find(|line| line.contains("forbidden"));
    assert_eq!(forbidden, None);
}

/// Each kind says why nothing happens.
async fn refused_outside(outside: &Scene<'_>) {
    outside.ask("later", &json!({})).await.unwrap();
    let on_demand = json!({"issuance": {"mode": "OnDemand"}});
    outside.ask("asked", &on_demand).await.unwrap();
    outside
        .lease("asked", "asked-1", &json!({"target": {"name": "asked-1"}}))
        .await
        .unwrap();
    let engine = json!({
        "apiVersion": "dsv.dev/v1alpha1",
        "kind": "Engine",
        "metadata": {"name": "elsewhere", "namespace": &*outside.databases},
        "spec": {"pool": "orders"},
    });
    outside.objects.create(&engine).await.unwrap();
    let (shop, databases) = (&*outside.shop, &*outside.databases);
    for (kind, namespace, name) in [
        ("DynamicSecret", shop, "later"),
        ("DynamicSecret", shop, "asked"),
        ("DynamicSecret", shop, "left"),
        ("CredentialLease", shop, "asked-1"),
        ("EnginePool", databases, "orders"),
        ("Engine", databases, "elsewhere"),
    ] {
        outside
            .wait_condition(kind, namespace, name, "False/NotServed")
            .await
            .unwrap();
    }
    let accounts = outside.all_accounts().await.unwrap();
    let made = accounts
        .iter()
        .find(|name| name.contains("later") || name.contains("asked"));
    assert_eq!(made, None);
    let check = || async {
        let found = outside
            .objects
            .get("Secret", databases, "elsewhere-registration")
            .await?;
        ensure!(found.is_none(), "a registration was made");
        Ok(Some(()))
    };
    outside
        .stack
        .eventually("no registration", PATIENCE, check)
        .await
        .unwrap();
}

/// Each at its time, or when its owner is deleted; but for its Secret.
async fn what_lived_outside_goes(outside: &Scene<'_>, left: &Credential, deleted: &Credential) {
    let stack = outside.stack;
    outside.use_account(&deleted.login).await.expect("it lives to its end");
    outside
        .objects
        .delete("DynamicSecret", &outside.shop, "deleted")
        .await
        .unwrap();
    outside.wait_no_role(&deleted.login.user).await.unwrap();
    let ended = || async { Ok((!outside.has_role(&left.login.user).await?).then_some(())) };
    let limit = Duration::from_secs(90) + PATIENCE;
    stack
        .eventually("what was left ends at its ttl", limit, ended)
        .await
        .unwrap();
    // The one that was refused never had an account, and waits for whoever asked.
    let is_refused = |lease: &Value| text(lease, "/status/phase") == "Refused";
    let none = || async { Ok(outside.leases().await?.iter().all(is_refused).then_some(())) };
    stack
        .eventually("no account is left outside", limit, none)
        .await
        .unwrap();
    outside
        .wait_absent("DynamicSecret", &outside.shop, "deleted")
        .await
        .unwrap();
    let secret = outside.credential("left").await.unwrap();
    assert!(secret.is_some(), "the operator has no right to delete that Secret");
}
