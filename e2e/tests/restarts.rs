//! Operators and engines stop, crash and come back: nothing is issued for it, nothing is forgotten, everything ends on time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::ensure;
use dsv::api::names::base32_uid;
use e2e::objects::{condition, text};
use e2e::postgres::{Login, Major, random_password};
use e2e::say::say;
use e2e::scene::{PATIENCE, Scene, grace};
use e2e::stack::{Shape, Stack};
use nix::sys::signal::Signal;
use rand::RngExt;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// How long after the death of a leader the next one works.
const TAKEOVER: Duration = Duration::from_secs(15);
/// How long a handover in good order takes.
const HANDOVER: Duration = Duration::from_secs(3);

/// Those who kill operators of the shared stack take turns.
static TURN: Mutex<()> = Mutex::const_new(());

/// The shared stack with both operators running.
async fn pair() -> &'static Stack {
    let stack = Stack::shared_of(2).await.unwrap();
    for operator in stack.operators() {
        operator.restart().await.unwrap();
    }
    stack
}

/// Everything that a restart must leave as it is: Secrets and leases to the byte, accounts with their passwords.
async fn state(scene: &Scene<'_>) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for kind in ["Secret", "CredentialLease"] {
        for mut object in scene.objects.list(kind, &scene.shop).await.unwrap() {
            object["metadata"].as_object_mut().unwrap().remove("managedFields");
            all.insert(format!("{kind} {}", text(&object, "/metadata/name")), object);
        }
    }
    let query = "SELECT rolname::text, to_jsonb(a)::text FROM pg_authid a WHERE starts_with(rolname, $1)";
    for row in scene.administrator().query(query, &[&scene.prefix]).await.unwrap() {
        let role: Value = serde_json::from_str(row.get(1)).unwrap();
        all.insert(format!("role {}", row.get::<_, String>(0)), role);
    }
    all
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one story")]
async fn a_restart_of_any_part_issues_nothing_and_changes_no_password() {
    let _turn = TURN.lock().await;
    let stack = pair().await;
    let scene = Scene::open(stack, Some(2)).await.unwrap();
    scene.ask("once", &json!({"ttl": "10m"})).await.unwrap();
    scene
        .ask("rotate", &json!({"ttl": "10m", "issuance": {"mode": "Rotate"}}))
        .await
        .unwrap();
    scene
        .ask("asked", &json!({"ttl": "10m", "issuance": {"mode": "OnDemand"}}))
        .await
        .unwrap();
    let password = random_password();
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    scene
        .lease("asked", "mine", &json!({"verifier": verifier}))
        .await
        .unwrap();
    for name in ["once", "rotate"] {
        scene.wait_ready(name, "True/Issued").await.unwrap();
    }
    let mine = scene
        .wait_condition("CredentialLease", &scene.shop, "mine", "True/Issued")
        .await
        .unwrap();
    let before = state(&scene).await;
    assert_eq!(before.len(), 8, "2 Secrets, 3 leases, 3 accounts: {:?}", before.keys());

    for operator in stack.operators() {
        assert!(operator.stop(), "an operator that is asked to stop stops");
        operator.restart().await.unwrap();
    }
    stack.runner().unwrap().signal(Signal::SIGTERM).unwrap();
    sleep(Duration::from_secs(1)).await;
    for operator in stack.operators() {
        operator.kill9();
    }
    stack.runner().unwrap().signal(Signal::SIGKILL).unwrap();
    stack
        .cluster()
        .control_plane()
        .unwrap()
        .restart_apiserver()
        .await
        .unwrap();
    for operator in stack.operators() {
        operator.launch().unwrap();
    }
    works_again(&scene).await;
    sleep(Duration::from_secs(3)).await;

    let after = state(&scene).await;
    for (name, was) in &before {
        assert_eq!(after.get(name), Some(was), "{name} changed");
    }
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    let login = Login {
        user: text(&mine, "/status/username"),
        password,
    };
    scene.use_account(&login).await.unwrap();
    scene
        .use_account(&scene.wait_credential("once").await.unwrap().login)
        .await
        .unwrap();
}

/// After a start the caches are filled side by side. Here that of leases comes last by far, as it does where there are many.
#[tokio::test]
async fn a_start_that_does_not_see_the_leases_yet_issues_nothing() {
    let shape = Shape {
        node: true,
        faults: true,
        ..Shape::default()
    };
    let stack = Stack::start(shape).await.unwrap();
    let scene = Scene::open_alone(&stack, Major::V15, Some(1)).await.unwrap();
    for (name, mode) in [("once", "Once"), ("rotate", "Rotate")] {
        let spec = json!({"ttl": "10m", "issuance": {"mode": mode}});
        scene.ask(name, &spec).await.unwrap();
        scene.wait_ready(name, "True/Issued").await.unwrap();
    }
    sleep(Duration::from_secs(3)).await;
    let before = state(&scene).await;
    assert_eq!(before.len(), 6, "2 Secrets, 2 leases, 2 accounts: {:?}", before.keys());
    let status = async |name| scene.seen(name).await.unwrap()["status"].clone();
    let said = (status("once").await, status("rotate").await);

    let points = &stack.wiring().unwrap().failpoints;
    let operator = &stack.operators()[0];
    assert!(operator.stop(), "an operator that is asked to stop stops");
    points.arm("leases.list", "hold", "*").unwrap();
    operator.restart().await.unwrap();
    points.reached("leases.list", PATIENCE).await.unwrap();
    // Meanwhile all others are complete, and the engine is connected again.
    sleep(Duration::from_secs(5)).await;
    let meanwhile = state(&scene).await;
    assert_eq!(meanwhile.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert_eq!(meanwhile, before, "while no lease was shown");
    points.clear().unwrap();
    works_again(&scene).await;
    assert_eq!(state(&scene).await, before, "once all were shown");
    assert_eq!((status("once").await, status("rotate").await), said);
}

/// Waits until a leader and its engines do what they are asked, shown by a credential for somebody new.
async fn works_again(scene: &Scene<'_>) {
    let other = scene.stack.namespace("probe", &[("team", "shop")]).unwrap();
    let start = Instant::now();
    let manifest = scene.dynamic_secret(&other, "probe", &json!({}));
    scene.objects.create(&manifest).await.unwrap();
    let check = || async { scene.credential_in(&other, "probe").await };
    let credential = scene
        .stack
        .eventually("new credentials are issued", PATIENCE, check)
        .await
        .unwrap();
    say(format!("it works again after {:?}", start.elapsed()));
    scene.objects.delete("DynamicSecret", &other, "probe").await.unwrap();
    scene.wait_absent("DynamicSecret", &other, "probe").await.unwrap();
    assert!(!scene.has_role(&credential.login.user).await.unwrap());
}

/// The time until another operator than `old` leads.
async fn next_leader(stack: &Stack, old: &str, since: Instant, limit: Duration) -> Duration {
    while stack.leader().await.ok().is_none_or(|leader| leader.name() == old) {
        assert!(since.elapsed() < limit, "nobody else leads after {limit:?}");
        sleep(Duration::from_millis(20)).await;
    }
    since.elapsed()
}

#[tokio::test]
async fn after_the_death_of_the_leader_the_other_takes_over_and_accounts_end_on_time() {
    let _turn = TURN.lock().await;
    let stack = pair().await;
    let scene = Scene::open(stack, Some(2)).await.unwrap();
    scene.ask("early", &json!({"ttl": 18})).await.unwrap();
    let early = scene.wait_credential("early").await.unwrap();
    let leader = stack.leader().await.unwrap();
    let name = leader.name().to_owned();
    leader.kill9();
    let dead = Instant::now();
    scene.ask("late", &json!({"ttl": 12})).await.unwrap();
    let took = next_leader(stack, &name, dead, TAKEOVER).await;
    let late = scene.wait_credential("late").await.unwrap();
    say(format!(
        "a new leader after {took:?}, a new credential after {:?}",
        dead.elapsed()
    ));
    assert!(
        dead.elapsed() < TAKEOVER,
        "the first new credential came after {:?}",
        dead.elapsed()
    );
    scene
        .use_account(&early.login)
        .await
        .expect("what the dead leader issued still works");
    scene.ended("early", &early, grace()).await.unwrap();
    scene.ended("late", &late, grace()).await.unwrap();
}

#[tokio::test]
async fn a_leader_that_is_asked_to_stop_hands_over_within_moments() {
    let _turn = TURN.lock().await;
    let stack = pair().await;
    let scene = Scene::open(stack, Some(2)).await.unwrap();
    let leader = stack.leader().await.unwrap();
    let name = leader.name().to_owned();
    leader.signal(Signal::SIGTERM).unwrap();
    let asked = Instant::now();
    scene.ask("app", &json!({})).await.unwrap();
    let took = next_leader(stack, &name, asked, HANDOVER).await;
    let credential = scene.wait_credential("app").await.unwrap();
    say(format!(
        "another leads after {took:?}, a new credential after {:?}",
        asked.elapsed()
    ));
    assert!(
        asked.elapsed() < HANDOVER * 2,
        "the first new credential came after {:?}",
        asked.elapsed()
    );
    scene.use_account(&credential.login).await.unwrap();
}

const CROWD: usize = 20;

#[tokio::test]
async fn whatever_crashes_whenever_no_account_is_forgotten() {
    let shape = Shape {
        operators: 2,
        node: true,
        ..Shape::default()
    };
    let stack = Stack::start(shape).await.unwrap();
    let scene = Scene::open_alone(&stack, Major::V15, Some(2)).await.unwrap();
    let before = scene.books().await.unwrap();
    for number in 0..CROWD {
        let ttl = rand::rng().random_range(12..20);
        let mode = if number % 2 == 0 { "Once" } else { "Rotate" };
        let issuance = json!({"mode": mode, "renewBefore": 5, "overlap": 1});
        let spec = json!({"ttl": ttl, "issuance": issuance});
        scene.ask(&format!("app-{number}"), &spec).await.unwrap();
    }
    for round in 0..5 {
        let pause = Duration::from_millis(rand::rng().random_range(0..2000));
        say(format!("round {round}: everything dies {pause:?} after a leader began"));
        sleep(pause).await;
        on_the_books(&scene).await;
        kill_all(&stack);
        leads(&scene).await;
    }
    books_equal(&scene).await;
    for number in 0..CROWD {
        let name = format!("app-{number}");
        scene.objects.delete("DynamicSecret", &scene.shop, &name).await.unwrap();
    }
    for number in 0..CROWD {
        let name = format!("app-{number}");
        scene.wait_absent("DynamicSecret", &scene.shop, &name).await.unwrap();
    }
    let after = scene.books().await.unwrap();
    assert_eq!(before.difference(&after), "", "something of ours stayed");
    assert_eq!(scene.leases().await.unwrap(), [Value::Null; 0]);
    let secrets = scene.objects.list("Secret", &scene.shop).await.unwrap();
    assert!(secrets.is_empty(), "{secrets:?}");
}

fn kill_all(stack: &Stack) {
    for operator in stack.operators() {
        operator.kill9();
    }
    stack.runner().unwrap().signal(Signal::SIGKILL).unwrap();
    for operator in stack.operators() {
        operator.launch().unwrap();
    }
}

/// Waits until somebody leads who is alive, as his own metrics say. Meanwhile too no account is off the books.
async fn leads(scene: &Scene<'_>) {
    let check = || async {
        on_the_books(scene).await;
        for operator in scene.stack.operators() {
            let metrics = operator.metrics().await.unwrap_or_default();
            if metrics.lines().any(|line| line == "dsv_leader 1") {
                return Ok(Some(()));
            }
        }
        Ok(None)
    };
    scene.stack.eventually("somebody leads", PATIENCE, check).await.unwrap();
}

/// Every account has a lease. Those that are revoked between the two looks do not count.
async fn on_the_books(scene: &Scene<'_>) {
    let first = scene.all_accounts().await.unwrap();
    let leases = scene.leases().await.unwrap();
    let uids: BTreeSet<String> = leases.iter().filter_map(suffix).collect();
    let still: BTreeSet<String> = scene.all_accounts().await.unwrap().into_iter().collect();
    for account in first.iter().filter(|account| still.contains(*account)) {
        assert!(
            uids.contains(last_part(account)),
            "no lease knows the account {account}"
        );
    }
}

/// The last part of the account's name: the lease's UID.
fn suffix(lease: &Value) -> Option<String> {
    base32_uid(&text(lease, "/metadata/uid"))
}

fn last_part(account: &str) -> &str {
    account.rsplit('_').next().unwrap_or_default()
}

/// Users of the leases whose account must be there: issued, and not on their way out.
fn issued(leases: &[Value]) -> BTreeSet<String> {
    let open = leases.iter().filter(|lease| {
        text(lease, "/status/phase") == "Issued" && lease.pointer("/metadata/deletionTimestamp").is_none()
    });
    open.map(|lease| text(lease, "/status/username")).collect()
}

/// Each account in the database has a lease, each issued lease has its account, and what Secrets hold works. Half of the
/// crowd is rotating meanwhile, so the leases are read before and after the accounts.
async fn books_equal(scene: &Scene<'_>) {
    let check = || async {
        for number in 0..CROWD {
            let seen = scene.seen(&format!("app-{number}")).await?;
            let ready = condition(&seen, "Ready");
            ensure!(ready.starts_with("True/"), "app-{number} is {ready}");
        }
        let (before, accounts, after) = (
            scene.leases().await?,
            scene.all_accounts().await?,
            scene.leases().await?,
        );
        let accounts: BTreeSet<String> = accounts.into_iter().collect();
        let booked: BTreeSet<String> = before.iter().chain(&after).filter_map(suffix).collect();
        let unbooked = accounts.iter().filter(|account| !booked.contains(last_part(account)));
        ensure!(
            unbooked.clone().next().is_none(),
            "no lease knows {:?}",
            unbooked.collect::<Vec<_>>()
        );
        let issued = &issued(&before) & &issued(&after);
        ensure!(
            issued.is_subset(&accounts),
            "issued are {issued:?}, in the database are {accounts:?}"
        );
        for number in 0..CROWD {
            if let Some(credential) = scene.credential(&format!("app-{number}")).await? {
                scene.use_account(&credential.login).await?;
            }
        }
        Ok(Some(accounts.len()))
    };
    let accounts = scene
        .stack
        .eventually("accounts are what leases say", PATIENCE, check)
        .await
        .unwrap();
    say(format!("{accounts} accounts, all of them on the books"));
}
