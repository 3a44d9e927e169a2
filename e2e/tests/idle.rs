//! What the operator costs the API server: nearly nothing while nothing happens, and a handful of writes for a credential.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use anyhow::ensure;
use e2e::objects::{Objects, number, text};
use e2e::say::say;
use e2e::scene::{Scene, sleep_until};
use e2e::stack::Stack;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::sleep;

const OPERATOR: &str = "system:serviceaccount:dsv-system:dsv-operator";
/// How long the operator is watched while nothing happens.
const QUIET: Duration = Duration::from_secs(40);
/// After the last change everything may settle: a new server is audited for the first time, which is noted.
const SETTLE: Duration = Duration::from_secs(8);

/// Those who count take turns: what one does, the other would count.
static TURN: Mutex<()> = Mutex::const_new(());

/// What the operator has asked of the API server so far, leadership left out, each as `verb resource/name/subresource`.
fn requests(stack: &Stack) -> Vec<String> {
    let plane = stack
        .cluster()
        .control_plane()
        .expect("counting needs a cluster of our own");
    let log = plane.audit_log();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter(|event| text(event, "/user/username") == OPERATOR && text(event, "/stage") == "ResponseComplete")
        .filter(|event| text(event, "/objectRef/apiGroup") != "coordination.k8s.io")
        .map(|event| {
            let event = &event;
            let parts = ["resource", "name", "subresource"].map(|part| text(event, &format!("/objectRef/{part}")));
            let parts: Vec<&str> = parts
                .iter()
                .map(String::as_str)
                .filter(|part| !part.is_empty())
                .collect();
            let code = number(event, "/responseStatus/code");
            format!("{} {} {code}", text(event, "/verb"), parts.join("/"))
        })
        .collect()
}

/// Waits until what the test before made is gone: its end would be counted too. The last proof is due a minute after a claim.
async fn alone(stack: &Stack) {
    let objects = Objects::new(stack.client().await.unwrap());
    let gone = || async {
        let mut left = Vec::new();
        for kind in [
            "EnginePool",
            "Engine",
            "DynamicSecret",
            "CredentialLease",
            "DsvTenant",
            "SecretSync",
        ] {
            let found = objects.list(kind, "").await?;
            left.extend(found.iter().map(|object| text(object, "/metadata/name")));
        }
        ensure!(left.is_empty(), "{left:?} are left");
        Ok(Some(()))
    };
    let limit = Duration::from_mins(3);
    stack
        .eventually("nothing of other tests is left", limit, gone)
        .await
        .unwrap();
}

/// How often the operator listed the leases of one dynamic secret.
fn lists_of_its_leases(stack: &Stack, uid: &str) -> usize {
    let plane = stack
        .cluster()
        .control_plane()
        .expect("counting needs a cluster of our own");
    let log = plane.audit_log();
    let events = log.lines().filter(|line| line.contains(uid));
    let events = events.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lists = |event: &Value| {
        text(event, "/verb") == "list"
            && text(event, "/objectRef/resource") == "credentialleases"
            && text(event, "/requestURI").contains(uid)
            && text(event, "/user/username") == OPERATOR
    };
    events.filter(lists).count()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what filter hands over")]
fn is_write(request: &&String) -> bool {
    !["get ", "list ", "watch "].iter().any(|verb| request.starts_with(verb))
}

#[tokio::test]
async fn an_idle_operator_leaves_the_api_server_alone() {
    let _turn = TURN.lock().await;
    let stack = Stack::shared().await.unwrap();
    alone(stack).await;
    let scene = Scene::open(stack, Some(2)).await.unwrap();
    // One of each kind that stays, so that there is something to look at again and again.
    scene.ask("once", &json!({"ttl": "10m"})).await.unwrap();
    scene
        .ask("rotate", &json!({"ttl": "10m", "issuance": {"mode": "Rotate"}}))
        .await
        .unwrap();
    scene
        .ask("demand", &json!({"issuance": {"mode": "OnDemand"}}))
        .await
        .unwrap();
    scene.ask("suspended", &json!({"suspend": true})).await.unwrap();
    for (name, ready) in [
        ("once", "True/Issued"),
        ("rotate", "True/Issued"),
        ("demand", "True/OnDemand"),
    ] {
        scene.wait_ready(name, ready).await.unwrap();
    }
    scene.wait_ready("suspended", "False/Suspended").await.unwrap();
    sleep(SETTLE).await;
    let before = requests(stack).len();
    assert!(before > 0, "the audit log shows no request at all");
    sleep(QUIET).await;
    let all = requests(stack);
    let made = &all[before..];
    say(format!("{} requests in {QUIET:?}: {made:?}", made.len()));
    // A watch ends and begins anew every few minutes, and an audit reads server records and leases, once each.
    assert!(made.len() <= 6, "{made:#?}");
    let writes: Vec<&String> = made.iter().filter(is_write).collect();
    assert!(writes.is_empty(), "nothing happened, but it wrote {writes:#?}");
}

#[tokio::test]
async fn a_credential_that_is_let_expire_is_left_alone_until_its_end() {
    let _turn = TURN.lock().await;
    let stack = Stack::shared().await.unwrap();
    alone(stack).await;
    let scene = Scene::open(stack, Some(1)).await.unwrap();
    let spec = json!({"ttl": "50s", "deletionPolicy": "LetExpire"});
    scene.ask("app", &spec).await.unwrap();
    scene.wait_ready("app", "True/Issued").await.unwrap();
    let user = scene.wait_credential("app").await.unwrap().login.user;
    scene.objects.delete("DynamicSecret", &scene.shop, "app").await.unwrap();
    scene.wait_ready("app", "False/Deleting").await.unwrap();
    sleep(SETTLE).await;
    let uid = text(&scene.seen("app").await.unwrap(), "/metadata/uid");
    let before = lists_of_its_leases(stack, &uid);
    assert!(before > 0, "the audit log shows no look at the leases before");
    sleep(QUIET / 2).await;
    assert_eq!(lists_of_its_leases(stack, &uid), before, "nothing was due");
    // Nor is it forgotten: whoever changes his mind is heard at once.
    scene.change("app", &json!({"deletionPolicy": "Revoke"})).await.unwrap();
    scene.wait_no_role(&user).await.unwrap();
}

#[tokio::test]
async fn the_life_of_a_credential_costs_eight_writes() {
    let _turn = TURN.lock().await;
    let stack = Stack::shared().await.unwrap();
    alone(stack).await;
    let scene = Scene::open(stack, Some(1)).await.unwrap();
    // The first life makes what all others share: server record and group role.
    scene.ask("app", &json!({})).await.unwrap();
    let first = scene.wait_credential("app").await.unwrap();
    scene.ended("app", &first, Duration::ZERO).await.ok();
    scene.wait_ready("app", "True/Expired").await.unwrap();
    sleep(SETTLE).await;
    let before = requests(stack).len();
    scene.rotate("app", "again").await.unwrap();
    let second = scene.wait_serial("app", 2).await.unwrap();
    sleep_until(second.expires_at, SETTLE).await;
    assert!(scene.leases().await.unwrap().is_empty());
    let all = requests(stack);
    let writes: Vec<&String> = all[before..].iter().filter(is_write).collect();
    say(format!("{} writes: {writes:#?}", writes.len()));
    // One that met a newer version, or nothing any more, was not taken: it is looked at again, and then there is nothing to
    // write.
    let refused = |write: &&&String| write.ends_with(" 409") || write.ends_with(" 404");
    let conflicts = writes.iter().filter(refused).count();
    assert!(conflicts <= 2, "{writes:#?}");
    assert!(writes.len() - conflicts <= 8, "{writes:#?}");
    assert!(writes.len() >= 6, "the audit log is incomplete: {writes:#?}");
}
