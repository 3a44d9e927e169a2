//! What is pushed, and when: at first, after a change, when somebody asks, and not otherwise.

use e2e::objects::text;
use serde_json::{Value, json};

use crate::setup::{Setup, message, peace};

fn value(there: &Value) -> String {
    text(there, "/data/password")
}

#[tokio::test]
async fn a_secret_is_pushed_at_once_after_a_change_and_when_asked_and_not_otherwise() {
    let _peace = peace().await;
    let setup = Setup::new(None).await;
    let path = json!({"path": [setup.root, "$domain", "qa"]});
    setup.sync("walk", &path);
    let sync = setup.says("walk", "Synced").await;
    let status = &sync["status"];
    assert_eq!(text(&sync, "/status/path"), format!("{}:corp.example:qa", setup.root));
    assert!(
        status["number"].as_i64().is_some() && status["sourceNumber"].as_i64().is_some(),
        "{status}"
    );
    assert!(!sync.to_string().contains("first"), "the value is in the sync: {sync}");

    let name = "corp.example/qa";
    let there = setup.version(name, "0").await;
    assert_eq!(
        (value(&there), text(&there, "/description")),
        ("first".into(), "of the shop".into())
    );
    assert_eq!(
        there["data"].as_object().unwrap().len(),
        2,
        "{:?}",
        there["data"].as_object().unwrap().keys()
    );

    // Nothing changed, so nothing is pushed.
    setup.looked_again("walk").await;
    assert_eq!(text(&setup.there(name).await.unwrap(), "/version"), "0");

    setup.secret("source", &json!({"password": "second"}));
    let there = setup.version(name, "1").await;
    assert_eq!(value(&there), "second");
    let hash = text(&sync, "/status/hash");
    let sync = setup
        .until("SecretSync", "walk", "another hash is told", |sync| {
            text(sync, "/status/hash") != hash
        })
        .await;
    assert_eq!(text(&sync, "/status/destinationVersion"), "1");

    // A push that is asked for happens though nothing changed, and once.
    let ask = json!({"metadata": {"annotations": {"dsv.dev/push-at": "now"}}});
    setup.patch("SecretSync", "walk", &ask).await;
    setup.version(name, "2").await;
    setup.looked_again("walk").await;
    assert_eq!(text(&setup.there(name).await.unwrap(), "/version"), "2");

    // A tenant that is switched off is left alone, and what changed meanwhile is pushed once afterwards.
    setup
        .patch("DsvTenant", "tenant", &json!({"spec": {"active": false}}))
        .await;
    setup
        .until("SecretSync", "walk", "it rests", |sync| {
            crate::setup::says(sync) == "Inactive"
        })
        .await;
    for password in ["third", "the-fourth-value"] {
        setup.secret("source", &json!({"password": password}));
    }
    assert_eq!(text(&setup.there(name).await.unwrap(), "/version"), "2");
    setup
        .patch("DsvTenant", "tenant", &json!({"spec": {"active": true}}))
        .await;
    let there = setup.version(name, "3").await;
    assert_eq!(value(&there), "the-fourth-value");

    let log = setup.world.stack.operators()[0].log_text();
    let objects = setup
        .world
        .stack
        .kubectl(&["get", "dsvtenants,secretsyncs,events", "-A", "-o", "yaml"])
        .unwrap();
    assert!(log.contains("pushed") && objects.contains("destinationVersion"));
    let secret = &setup.client_secret;
    for (place, text) in [("the log", log), ("the objects", objects)] {
        assert!(
            !text.contains("the-fourth-value") && !text.contains(secret),
            "{place} shows a value"
        );
    }

    // A path that follows a field moves; what was there before stays, since nothing else is said.
    setup.secret("source", &json!({"domain": "other.example"}));
    setup.version("other.example/qa", "0").await;
    assert_eq!(text(&setup.there(name).await.unwrap(), "/version"), "3");
}

#[tokio::test]
async fn what_differs_at_the_tenant_is_told_or_overwritten() {
    let _peace = peace().await;
    let setup = Setup::new(None).await;
    setup.sync("drift", &json!({"deletionPolicy": "Delete"}));
    setup.version("drift", "0").await;
    setup.says("drift", "Synced").await;
    let by_hand = json!({"data": {"password": "by hand"}, "description": "", "attributes": {}, "overwrite": true});
    let call = format!("PUT secrets/{}/drift", setup.root);
    setup.world.call(&call, &by_hand).await.is(200);
    let sync = setup.says("drift", "DestinationDiffers").await;
    assert!(
        message(&sync).contains("somebody changed it there"),
        "{}",
        message(&sync)
    );
    setup.looked_again("drift").await;
    assert_eq!(value(&setup.there("drift").await.unwrap()), "by hand");
    setup
        .patch("SecretSync", "drift", &json!({"spec": {"drift": "Overwrite"}}))
        .await;
    setup.says("drift", "Synced").await;
    assert_eq!(value(&setup.there("drift").await.unwrap()), "first");

    // What somebody else has at a path is not taken over.
    let taken = format!("POST secrets/{}/taken", setup.root);
    setup.world.call(&taken, &by_hand).await.is(201);
    setup.sync("taken", &json!({}));
    let sync = setup.says("taken", "DestinationDiffers").await;
    assert!(message(&sync).contains("did not write"), "{}", message(&sync));
    assert_eq!(value(&setup.there("taken").await.unwrap()), "by hand");

    // The source goes, and what was pushed follows it.
    setup
        .world
        .stack
        .kubectl(&["-n", &setup.namespace, "delete", "secret", "source"])
        .unwrap();
    setup.says("drift", "SourceMissing").await;
    assert!(setup.there("drift").await.is_none());
    assert_eq!(value(&setup.there("taken").await.unwrap()), "by hand");
}

#[tokio::test]
async fn what_was_pushed_goes_with_its_sync_where_that_is_asked_for() {
    let _peace = peace().await;
    let setup = Setup::new(None).await;
    for (name, policy) in [("stays", "Leave"), ("goes", "Delete"), ("rests", "SoftDelete")] {
        setup.sync(name, &json!({"deletionPolicy": policy}));
        setup.version(name, "0").await;
        setup.says(name, "Synced").await;
    }
    // What somebody changed stays where it was when the path moves, and that is told.
    setup.sync("moves", &json!({"deletionPolicy": "Delete"}));
    setup.version("moves", "0").await;
    setup.says("moves", "Synced").await;
    let by_hand = json!({"data": {"password": "by hand"}, "description": "", "attributes": {}, "overwrite": true});
    let call = format!("PUT secrets/{}/moves", setup.root);
    setup.world.call(&call, &by_hand).await.is(200);
    let path = json!({"spec": {"path": [setup.root, "moved"]}});
    setup.patch("SecretSync", "moves", &path).await;
    setup.version("moved", "0").await;
    assert_eq!(value(&setup.there("moves").await.unwrap()), "by hand");
    let told = || async {
        let events = setup
            .world
            .stack
            .kubectl(&["-n", &setup.namespace, "get", "events", "-o", "yaml"])?;
        Ok(events.contains("the path moved").then_some(()))
    };
    let limit = std::time::Duration::from_mins(1);
    setup
        .world
        .stack
        .eventually("what stays is told", limit, told)
        .await
        .unwrap();
    setup
        .world
        .stack
        .kubectl(&["-n", &setup.namespace, "delete", "secretsync", "--all"])
        .unwrap();
    assert_eq!(value(&setup.there("stays").await.unwrap()), "first");
    assert!(setup.there("goes").await.is_none());
    let answer = setup.world.get(&format!("secrets/{}/rests", setup.root)).await;
    answer.fails(400, "marked for deletion");
}
