//! A database server hangs with many accounts on it: nobody else is held up, and when it goes on all of them go at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use e2e::objects::{condition, text};
use e2e::postgres::Major;
use e2e::say::say;
use e2e::scene::Scene;
use e2e::stack::Stack;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::json;
use tokio::time::sleep;

/// Several times as many as the operator looks at together.
const LEASES: usize = 200;
const ISSUED: Duration = Duration::from_secs(120);
/// How long a credential of a healthy server may take, beside a server that hangs.
const HELD_UP: Duration = Duration::from_secs(5);
/// Until the server that hangs is known to: two attempts on it.
const NOTICED: Duration = Duration::from_secs(45);
/// From the end of the trouble to the end of the accounts.
const CLEAN: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_server_that_hangs_holds_up_no_other_and_is_cleaned_when_it_goes_on() {
    let stack = Stack::shared().await.unwrap();
    let major = Major::of_this_machine();
    let (hangs, lives) =
        tokio::try_join!(Scene::open_alone(stack, major, Some(1)), Scene::open(stack, Some(1))).unwrap();
    accounts(&hangs).await;
    hangs.server().freeze().unwrap();
    for lease in hangs.leases().await.unwrap() {
        let name = text(&lease, "/metadata/name");
        hangs
            .objects
            .delete("CredentialLease", &hangs.shop, &name)
            .await
            .unwrap();
    }
    // From the first moment, when nobody knows yet that it hangs, until all say so.
    tokio::join!(says_so(&hangs), others_are_served(&lives));

    hangs.server().thaw().unwrap();
    let back = Instant::now();
    let gone = || async { Ok(hangs.all_accounts().await?.is_empty().then_some(())) };
    stack
        .eventually("all accounts of the server are gone", CLEAN, gone)
        .await
        .unwrap();
    say(format!(
        "{LEASES} accounts were gone {:?} after the server went on",
        back.elapsed()
    ));
}

/// Credentials of another server come and go all the while.
async fn others_are_served(scene: &Scene<'_>) {
    for number in 0..20 {
        let start = Instant::now();
        let name = format!("app-{number}");
        scene.ask(&name, &json!({"ttl": 60})).await.unwrap();
        let credential = scene.wait_credential(&name).await.unwrap();
        scene.use_account(&credential.login).await.unwrap();
        assert!(start.elapsed() < HELD_UP, "{name} took {:?}", start.elapsed());
        scene.objects.delete("DynamicSecret", &scene.shop, &name).await.unwrap();
        scene.wait_no_role(&credential.login.user).await.unwrap();
        assert!(
            start.elapsed() < HELD_UP * 2,
            "the end of {name} took {:?}",
            start.elapsed()
        );
        sleep(Duration::from_secs(1)).await;
    }
}

/// Makes accounts by leases that somebody asks for.
async fn accounts(scene: &Scene<'_>) {
    let spec = json!({"ttl": "30m", "issuance": {"mode": "OnDemand"}, "maxLeases": LEASES});
    scene.ask("app", &spec).await.unwrap();
    scene.wait_ready("app", "True/OnDemand").await.unwrap();
    let verifier = postgres_protocol::password::scram_sha_256(b"nobody uses it");
    stream::iter(0..LEASES)
        .map(|number| {
            let verifier = &verifier;
            async move {
                scene
                    .lease("app", &format!("lease-{number}"), &json!({"verifier": verifier}))
                    .await
            }
        })
        .buffer_unordered(8)
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    let issued = || async {
        let leases = scene.leases().await?;
        let issued = leases
            .iter()
            .filter(|lease| condition(lease, "Ready") == "True/Issued")
            .count();
        Ok((issued == LEASES).then_some(()))
    };
    scene
        .stack
        .eventually("all leases are issued", ISSUED, issued)
        .await
        .unwrap();
    assert_eq!(scene.all_accounts().await.unwrap().len(), LEASES);
}

/// Waits until every lease says what it waits for.
async fn says_so(scene: &Scene<'_>) {
    let told = || async {
        let leases = scene.leases().await?;
        let waits = |lease: &&serde_json::Value| condition(lease, "Ready") == "False/DatabaseUnreachable";
        Ok((leases.iter().filter(waits).count() == LEASES).then_some(()))
    };
    let start = Instant::now();
    let what = "every lease says that its database is unreachable";
    scene.stack.eventually(what, NOTICED, told).await.unwrap();
    say(format!(
        "all leases said so {:?} after they were deleted",
        start.elapsed()
    ));
}
