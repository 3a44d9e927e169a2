//! A database server hangs with many accounts on it: nobody else is held up, and when it goes on all of them go at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use e2e::objects::condition;
use e2e::postgres::Major;
use e2e::say::say;
use e2e::scene::Scene;
use e2e::stack::Stack;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::json;
use tokio::time::sleep;

/// More than the operator looks at together.
const LEASES: usize = 100;
const ISSUED: Duration = Duration::from_secs(120);
/// How long a credential of a healthy server may take, on a machine that is busy with other tests. Whoever waits behind the
/// server that hangs waits for half a minute.
const HELD_UP: Duration = Duration::from_secs(12);
/// Longer than it takes to make a lease.
const NOTICE: Duration = Duration::from_secs(3);
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
    let spec = json!({"ttl": "30m", "issuance": {"mode": "Rotate", "overlap": 1}});
    hangs.ask("rotates", &spec).await.unwrap();
    hangs.wait_credential("rotates").await.unwrap();
    accounts(&hangs).await;
    hangs.server().freeze().unwrap();
    for number in 0..LEASES {
        let name = lease(number);
        hangs
            .objects
            .delete("CredentialLease", &hangs.shop, &name)
            .await
            .unwrap();
    }
    // From the first moment, when nobody knows yet that it hangs, until all say so.
    tokio::join!(says_so(&hangs), others_are_served(&lives));
    hangs.rotate("rotates", "while it hangs").await.unwrap();
    sleep(NOTICE).await;
    let open = hangs.leases().await.unwrap().len();
    assert_eq!(open, LEASES + 1, "what nobody can issue is not even begun");

    hangs.server().thaw().unwrap();
    let back = Instant::now();
    let gone = || async { Ok(hangs.accounts("app").await?.is_empty().then_some(())) };
    stack
        .eventually("all accounts of the server are gone", CLEAN, gone)
        .await
        .unwrap();
    say(format!(
        "{LEASES} accounts were gone {:?} after the server went on",
        back.elapsed()
    ));
    let next = hangs.wait_serial("rotates", 2).await.unwrap();
    hangs.use_account(&next.login).await.unwrap();
}

/// Credentials of another server come and go all the while.
async fn others_are_served(scene: &Scene<'_>) {
    for number in 0..12 {
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

fn lease(number: usize) -> String {
    format!("lease-{number}")
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
            async move { scene.lease("app", &lease(number), &json!({"verifier": verifier})).await }
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
        Ok((issued == LEASES + 1).then_some(()))
    };
    scene
        .stack
        .eventually("all leases are issued", ISSUED, issued)
        .await
        .unwrap();
    assert_eq!(scene.accounts("app").await.unwrap().len(), LEASES);
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
