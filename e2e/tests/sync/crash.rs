//! The operator is killed before and after a push: nothing is pushed twice, and nothing is lost.

use std::time::Duration;

use e2e::objects::text;
use serde_json::json;

use crate::setup::{Setup, war};

const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::test]
async fn an_operator_that_is_killed_around_a_push_makes_exactly_one_version() {
    let _war = war().await;
    let setup = Setup::new(None).await;
    let operator = &setup.world.stack.operators()[0];
    let points = setup.world.stack.wiring().unwrap().failpoints.clone();
    let mut version = 0;
    setup.sync("crash", &json!({}));
    setup.version("crash", "0").await;
    setup.says("crash", "Synced").await;
    for (place, asked) in [("sync.begun", false), ("sync.pushed", false), ("sync.pushed", true)] {
        version += 1;
        points.arm(place, "kill", "crash").unwrap();
        if asked {
            let ask = json!({"metadata": {"annotations": {"dsv.dev/push-at": "once"}}});
            setup.patch("SecretSync", "crash", &ask).await;
        } else {
            setup.secret("source", &json!({"password": format!("value-{version}")}));
        }
        points.reached(place, PATIENCE).await.unwrap();
        let dead = || async { Ok((!operator.is_running()).then_some(())) };
        setup
            .world
            .stack
            .eventually("the operator is dead", PATIENCE, dead)
            .await
            .unwrap();
        points.clear().unwrap();
        let sync = setup
            .objects
            .get("SecretSync", &setup.namespace, "crash")
            .await
            .unwrap()
            .unwrap();
        assert!(
            sync["status"]["intent"].is_object(),
            "the intent stands before the push: {}",
            sync["status"]
        );
        operator.restart().await.unwrap();
        let done = |sync: &serde_json::Value| {
            sync["status"]["intent"].is_null()
                && text(sync, "/status/destinationVersion") == version.to_string()
                && crate::setup::says(sync) == "Synced"
        };
        setup.until("SecretSync", "crash", "the push is finished", done).await;
        setup.looked_again("crash").await;
        let there = setup.version("crash", &version.to_string()).await;
        let value = if asked { version - 1 } else { version };
        assert_eq!(text(&there, "/data/password"), format!("value-{value}"), "{place}");
    }
}

#[tokio::test]
async fn an_operator_that_is_killed_in_the_middle_of_a_round_loses_nothing_and_doubles_nothing() {
    const MANY: usize = 24;
    let _war = war().await;
    let setup = Setup::new(None).await;
    let operator = &setup.world.stack.operators()[0];
    let points = setup.world.stack.wiring().unwrap().failpoints.clone();
    let names: Vec<String> = (0..MANY).map(|number| format!("many-{number:02}")).collect();
    let all: Vec<serde_json::Value> = names
        .iter()
        .map(|name| {
            json!({
                "apiVersion": "dsv.dev/v1alpha1",
                "kind": "SecretSync",
                "metadata": {"name": name, "namespace": setup.namespace},
                "spec": {"source": {"name": "source"}, "tenant": "tenant", "path": [setup.root, name]},
            })
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": all});
    setup.world.stack.apply(&list).unwrap();
    for name in &names {
        setup.version(name, "0").await;
        setup.says(name, "Synced").await;
    }
    points.arm("sync.pushed", "kill", "many-17").unwrap();
    setup.secret("source", &json!({"password": "second"}));
    points.reached("sync.pushed", PATIENCE).await.unwrap();
    let dead = || async { Ok((!operator.is_running()).then_some(())) };
    let stack = &setup.world.stack;
    stack.eventually("the operator is dead", PATIENCE, dead).await.unwrap();
    points.clear().unwrap();
    operator.restart().await.unwrap();
    for name in &names {
        let there = setup.version(name, "1").await;
        assert_eq!(text(&there, "/data/password"), "second", "{name}");
    }
    // All at once: one after the other they would wait for each other's intervals.
    futures::future::join_all(names.iter().map(|name| setup.looked_again(name))).await;
    for name in &names {
        assert_eq!(text(&setup.there(name).await.unwrap(), "/version"), "1", "{name}");
    }
}
