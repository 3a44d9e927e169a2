//! The Secret that should receive the credential is somebody else's, or the API server will not have it.

use dsv::api::conditions::Reason;
use serde_json::{Value, json};
use std::time::Duration;

use crate::refusals::kube_client::condition;
use crate::refusals::trial::{Row, hold};
use crate::refusals::world::{PATIENCE, World, within};

fn occupant(world: &World, name: &str, labels: &Value, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": format!("{name}-login"), "namespace": &*world.databases, "labels": labels, "annotations": annotations},
        "data": {"precious": "dmFsdWU="},
    })
}

fn row(world: &World, fault: &'static str, name: &'static str) -> Row {
    let says = format!(
        "Secret {}/{name}-login exists and is not ours; rename or delete it, or choose another name in spec.target.name",
        &*world.databases
    );
    let mut row = Row::new(world, fault, name, Reason::TargetNotOurs, &[&says]);
    row.spec["linkConfig"]["linkedSecret"] = json!("orders-db");
    row.occupied = true;
    // Found out before anything is issued, but after the server was looked at.
    row.group = true;
    row.mended(move |world| {
        Box::pin(async move {
            let elsewhere = json!({"spec": {"target": {"name": format!("{name}-elsewhere")}}});
            world
                .kube
                .merge("DynamicSecret", &world.databases, name, &elsewhere)
                .await;
        })
    })
}

#[tokio::test]
async fn a_secret_that_is_not_ours_is_neither_overwritten_nor_deleted() {
    let world = World::new("targets").await;
    world.kube.put(&world.base("orders-db")).await;
    let forged = json!({"app.kubernetes.io/managed-by": "dsv-operator", "dsv.dev/lease": "00000000-0000-0000-0000-000000000000"});
    let occupants = [
        occupant(&world, "foreign", &json!({}), &json!({})),
        occupant(
            &world,
            "marked",
            &json!({"app.kubernetes.io/managed-by": "dsv-operator"}),
            &json!({}),
        ),
        occupant(
            &world,
            "forged",
            &forged,
            &json!({"dsv.dev/dynamic-secret-uid": "00000000-0000-0000-0000-000000000000", "dsv.dev/revision": "1"}),
        ),
    ];
    for secret in &occupants {
        world.kube.put(secret).await;
    }
    let freed = row(&world, "the Secret is somebody's, who then deletes it", "freed")
        .mended(|world| Box::pin(async { world.kube.delete("Secret", &world.databases, "freed-login").await }));
    world.kube.put(&occupant(&world, "freed", &json!({}), &json!({}))).await;
    let rows = vec![
        row(&world, "the Secret is somebody's", "foreign"),
        row(&world, "the Secret has our mark, but no lease of ours", "marked"),
        row(&world, "the Secret names another dynamic secret", "forged"),
        freed,
    ];
    hold(&world, rows).await;
    for secret in occupants {
        let name = secret["metadata"]["name"].as_str().unwrap();
        let kept = world
            .kube
            .read("Secret", &world.databases, name)
            .await
            .expect("the Secret is still there");
        assert_eq!(kept["data"], secret["data"], "{name}");
        assert_eq!(
            kept["metadata"]["labels"],
            secret["metadata"]
                .get("labels")
                .filter(|l| **l != json!({}))
                .cloned()
                .unwrap_or_default(),
            "{name}"
        );
    }
}

/// A DynamicSecret in mode Once, delivering to the given Secret.
async fn ask(world: &World, name: &str, target: &str) {
    let mut spec = world.spec("orders-db");
    spec["target"] = json!({"name": target});
    spec["ttl"] = json!(60);
    let object = json!({"apiVersion": "dsv.dev/v1alpha1", "kind": "DynamicSecret", "metadata": {"name": name, "namespace": &*world.databases}, "spec": spec});
    world.kube.put(&object).await;
}

async fn ready(world: &World, name: &str, reason: &str) -> String {
    let said = within(PATIENCE, async || {
        let object = world.kube.read("DynamicSecret", &world.databases, name).await?;
        condition(&object, "Ready").filter(|ready| ready.reason == reason)
    });
    match said.await {
        Some(ready) => ready.message,
        None => panic!("{name} does not come to {reason}\n{}", world.log_about(name)),
    }
}

#[tokio::test]
async fn two_dynamic_secrets_do_not_share_one_secret() {
    let world = World::new("shared").await;
    world.kube.put(&world.base("orders-db")).await;
    ask(&world, "first", "login").await;
    ready(&world, "first", "Issued").await;
    let before = world.kube.read("Secret", &world.databases, "login").await.unwrap();
    ask(&world, "second", "login").await;
    let message = ready(&world, "second", "TargetShared").await;
    assert!(message.contains("choose another name in spec.target.name"), "{message}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        world.kube.read("Secret", &world.databases, "login").await.unwrap(),
        before
    );
    ready(&world, "first", "Issued").await;
    let other = json!({"spec": {"target": {"name": "login-of-second"}}});
    world
        .kube
        .merge("DynamicSecret", &world.databases, "second", &other)
        .await;
    ready(&world, "second", "Issued").await;
}

#[tokio::test]
async fn a_secret_that_the_api_server_refuses_leaves_no_account_behind() {
    let world = World::new("quota").await;
    world.kube.put(&world.base("orders-db")).await;
    let quota = |most: u32| {
        json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": &*world.databases},
            "spec": {"hard": {"count/secrets": most.to_string()}},
        })
    };
    world.kube.put(&quota(1)).await;
    let counted = async || {
        let quota = world.kube.read("ResourceQuota", &world.databases, "none").await?;
        quota["status"]["used"]["count/secrets"].as_str().map(str::to_owned)
    };
    within(PATIENCE, counted).await.expect("the quota is in force");
    ask(&world, "crowded", "login").await;
    let message = ready(&world, "crowded", "TargetRefused").await;
    assert!(
        message.contains("the API server refused Secret") && message.contains("exceeded quota"),
        "{message}"
    );
    let accounts = async || {
        let uid = world
            .kube
            .read("DynamicSecret", &world.databases, "crowded")
            .await
            .unwrap()["metadata"]["uid"]
            .as_str()
            .unwrap()
            .to_owned();
        let mut roles = world.roles(&world.databases, "shop_crowded_", &uid).await;
        roles.retain(|role| !role.starts_with("dsvg_"));
        roles
    };
    tokio::time::sleep(Duration::from_secs(4)).await;
    // Issued and taken back at once, with longer and longer pauses in between.
    let leases = world.kube.list("CredentialLease", &world.databases).await;
    assert!(
        (1..=4).contains(&leases.len()),
        "{} leases after a few seconds",
        leases.len()
    );
    let gone = within(PATIENCE, async || accounts().await.is_empty().then_some(())).await;
    assert!(
        gone.is_some(),
        "accounts that nobody was told about: {:?}",
        accounts().await
    );
    world.kube.put(&quota(10)).await;
    ready(&world, "crowded", "Issued").await;
    assert_eq!(accounts().await.len(), 1);
}
