//! Engines: how work is spread over them, what happens without them, and how those in the cluster are locked in.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::engine::Engine;
use e2e::install::NAMESPACE;
use e2e::objects::{condition, text};
use e2e::places;
use e2e::postgres::random_password;
use e2e::sample::ORDERS;
use e2e::say::say;
use e2e::scene::{PATIENCE, Scene, grace, sleep_until};
use e2e::stack::Stack;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};

/// Longer than an engine takes to be told that it is not wanted.
const NOTICE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn without_an_engine_the_secret_goes_on_time_and_the_account_as_soon_as_one_returns() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, None).await.unwrap();
    let engine = stack.engine(&scene.databases, ORDERS, "dc-west-1").await.unwrap();
    scene.wait_connected(1).await.unwrap();
    scene.ask("app", &json!({})).await.unwrap();
    let credential = scene.wait_credential("app").await.unwrap();
    let user = &credential.login.user;
    scene.wait_ready("app", "True/Issued").await.unwrap();
    assert!(engine.stop(), "an engine that is asked to stop stops");

    sleep_until(credential.expires_at, grace()).await;
    assert!(
        scene.credential("app").await.unwrap().is_none(),
        "the Secret outlived its account"
    );
    assert!(
        scene.has_role(user).await.unwrap(),
        "nobody could drop it, or this test shows nothing"
    );
    assert!(
        scene.log_in(&credential.login).await.is_err(),
        "VALID UNTIL ends logins without any of us"
    );
    let waiting = scene
        .wait_condition(
            "CredentialLease",
            &scene.shop,
            &credential.lease,
            "False/WaitingForEngine",
        )
        .await;
    assert_eq!(text(&waiting.unwrap(), "/status/phase"), "Revoking");
    scene.wait_ready("app", "False/Revoking").await.unwrap();

    engine.restart().await.unwrap();
    let back = Instant::now();
    scene.wait_no_role(user).await.unwrap();
    assert!(
        back.elapsed() < grace(),
        "the account went {:?} after the engine came back",
        back.elapsed()
    );
    scene.wait_ready("app", "True/Expired").await.unwrap();
}

#[tokio::test]
async fn what_one_engine_issued_another_one_takes_back() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, None).await.unwrap();
    let mut engines: BTreeMap<&str, Engine> = BTreeMap::new();
    for name in ["dc-east-1", "dc-west-1"] {
        engines.insert(name, stack.engine(&scene.databases, ORDERS, name).await.unwrap());
    }
    scene.wait_connected(2).await.unwrap();
    scene.ask("app", &json!({})).await.unwrap();
    let credential = scene.wait_credential("app").await.unwrap();
    let seen = scene.wait_ready("app", "True/Issued").await.unwrap();
    let issuer = text(&seen, "/status/issuedBy");
    let gone = engines
        .remove(issuer.as_str())
        .expect("the status names an engine of the pool");
    gone.kill9();
    scene.objects.delete("Engine", &scene.databases, &issuer).await.unwrap();
    scene.use_account(&credential.login).await.unwrap();
    scene.ended("app", &credential, grace()).await.unwrap();
    scene.wait_absent("Engine", &scene.databases, &issuer).await.unwrap();
}

const ISSUES: usize = 200;

#[tokio::test]
async fn issues_are_spread_over_all_engines_of_the_pool() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, Some(2)).await.unwrap();
    scene
        .ask("app", &json!({"ttl": "5m", "issuance": {"mode": "OnDemand"}}))
        .await
        .unwrap();
    scene.wait_ready("app", "True/OnDemand").await.unwrap();
    let verifier = postgres_protocol::password::scram_sha_256(random_password().as_bytes());
    let start = Instant::now();
    let verifier = &json!({"verifier": verifier});
    let scene = &scene;
    stream::iter(0..ISSUES)
        .map(|number| async move { scene.lease("app", &format!("lease-{number}"), verifier).await })
        .buffer_unordered(8)
        .try_collect::<Vec<Value>>()
        .await
        .unwrap();
    let check = || async {
        let leases = scene.leases().await?;
        let mut issued: BTreeMap<String, usize> = BTreeMap::new();
        for lease in leases.iter().filter(|lease| text(lease, "/status/phase") == "Issued") {
            *issued.entry(text(lease, "/status/issuedBy")).or_default() += 1;
        }
        ensure!(issued.values().sum::<usize>() == ISSUES, "issued so far: {issued:?}");
        Ok(Some(issued))
    };
    let issued = stack
        .eventually("all leases are issued", PATIENCE * 2, check)
        .await
        .unwrap();
    say(format!("{ISSUES} accounts after {:?}: {issued:?}", start.elapsed()));
    assert_eq!(issued.keys().collect::<Vec<_>>(), ["orders-0", "orders-1"]);
    // Six standard deviations of a fair coin.
    assert!(issued.values().all(|count| (60..=140).contains(count)), "{issued:?}");
    assert_eq!(scene.accounts("app").await.unwrap().len(), ISSUES);
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one story")]
async fn engines_in_the_cluster_have_no_rights_in_it_and_live_out_of_reach_of_tenants() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, Some(1)).await.unwrap();
    let engine = scene
        .objects
        .get("Engine", &scene.databases, "orders-0")
        .await
        .unwrap()
        .unwrap();
    let uid = text(&engine, "/metadata/uid");
    let name = dsv::api::names::managed_engine(&uid).unwrap();
    assert_eq!(text(&engine, "/status/registrationSecret"), name);

    let deployment = scene
        .objects
        .get("Deployment", NAMESPACE, &name)
        .await
        .unwrap()
        .expect("one Deployment per engine");
    assert_eq!(deployment["spec"]["replicas"], 1);
    assert_eq!(
        text(&deployment, "/spec/strategy/type"),
        "Recreate",
        "never two processes with one key"
    );
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["enableServiceLinks"], false);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(text(pod, "/securityContext/seccompProfile/type"), "RuntimeDefault");
    let container = &pod["containers"][0];
    let locked = &container["securityContext"];
    assert_eq!(locked["allowPrivilegeEscalation"], false);
    assert_eq!(locked["readOnlyRootFilesystem"], true);
    assert_eq!(locked["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(
        text(container, "/envFrom/0/secretRef/name"),
        name,
        "the key comes from the Secret, not from the arguments"
    );
    let endpoint = &container["env"][0];
    assert_eq!(
        endpoint["name"], "DSV_ENDPOINT",
        "it follows the installation, whatever the Secret says"
    );
    let first = stack.operators()[0].channel().to_string();
    assert!(text(endpoint, "/value").contains(&first), "{endpoint}");
    assert!(pod.get("volumes").is_none_or(|volumes| volumes == &json!([])), "{pod}");

    let secret = scene
        .objects
        .get("Secret", NAMESPACE, &name)
        .await
        .unwrap()
        .expect("a registration Secret");
    assert_eq!(text(&secret, "/type"), "dsv.dev/registration");
    let keys: Vec<&String> = secret["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["DSV_ENDPOINT", "DSV_PRIVATE_KEY", "ENGINE_NAME"]);
    let beside = scene
        .objects
        .get("Secret", &scene.databases, "orders-0-registration")
        .await
        .unwrap();
    assert!(
        beside.is_none(),
        "the key of a managed engine is not in the pool's namespace"
    );

    // With fewer replicas the engine goes, and everything made for it.
    let none = json!({"spec": {"engines": {"replicas": 0}}});
    scene
        .objects
        .merge("EnginePool", &scene.databases, ORDERS, &none)
        .await
        .unwrap();
    scene.wait_absent("Engine", &scene.databases, "orders-0").await.unwrap();
    scene.wait_absent("Deployment", NAMESPACE, &name).await.unwrap();
    scene.wait_absent("Secret", NAMESPACE, &name).await.unwrap();
}

fn engine(namespace: &str, name: &str, spec: &Value) -> Value {
    let mut whole = json!({"pool": ORDERS});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({
        "apiVersion": "dsv.dev/v1alpha1", "kind": "Engine",
        "metadata": {"name": name, "namespace": namespace}, "spec": whole,
    })
}

#[tokio::test]
async fn an_engine_that_a_user_writes_gets_its_registration_beside_it() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, None).await.unwrap();
    let made = scene
        .objects
        .create(&engine(&scene.databases, "dc-west-1", &json!({})))
        .await
        .unwrap();
    stack.registration(&scene.databases, "dc-west-1").await.unwrap();
    let secret = scene
        .objects
        .get("Secret", &scene.databases, "dc-west-1-registration")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(text(&secret, "/type"), "dsv.dev/registration");
    assert_eq!(
        secret["metadata"]["ownerReferences"][0]["uid"], made["metadata"]["uid"],
        "it goes with its Engine"
    );
    let deployment = dsv::api::names::managed_engine(&text(&made, "/metadata/uid")).unwrap();
    assert!(
        scene
            .objects
            .get("Deployment", NAMESPACE, &deployment)
            .await
            .unwrap()
            .is_none()
    );
    // A registration Secret that was deleted is no reason to make another key: the engine out there has this one.
    let find = || async {
        let found = scene
            .objects
            .get("Engine", &scene.databases, "dc-west-1")
            .await?
            .unwrap_or_default();
        Ok(Some(text(&found, "/spec/publicKey")).filter(|key| !key.is_empty()))
    };
    let key = stack
        .eventually("the Engine has its public key", PATIENCE, find)
        .await
        .unwrap();
    scene
        .objects
        .delete("Secret", &scene.databases, "dc-west-1-registration")
        .await
        .unwrap();
    tokio::time::sleep(NOTICE).await;
    assert_eq!(find().await.unwrap(), Some(key));
}

#[tokio::test]
async fn a_key_made_at_the_engine_never_comes_into_the_cluster() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, None).await.unwrap();
    let find = || async {
        let pool = scene
            .objects
            .get("EnginePool", &scene.databases, ORDERS)
            .await?
            .unwrap_or_default();
        Ok(Some(text(&pool, "/status/rootHash")).filter(|hash| !hash.is_empty()))
    };
    let root = stack
        .eventually("the pool tells the root key's hash", PATIENCE, find)
        .await
        .unwrap();
    let output = Command::new(places::own_program("dsv-engine").unwrap())
        .args(["keygen", "--namespace", &*scene.databases, "--root-hash", &root])
        .output()
        .unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let line = |name: &str| {
        output
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .trim()
            .to_owned()
    };
    let (private, public) = (line("privateKey:"), line("publicKey:"));
    let manifest = engine(&scene.databases, "own-key", &json!({"publicKey": public}));
    scene.objects.create(&manifest).await.unwrap();
    let environment = BTreeMap::from([
        ("ENGINE_NAME".to_owned(), "own-key".to_owned()),
        ("DSV_ENDPOINT".to_owned(), stack.operators()[0].channel().to_string()),
        ("DSV_PRIVATE_KEY".to_owned(), private),
    ]);
    let process = Engine::start(stack.run(), "own-key", &environment, None).unwrap();
    process.wait_ready().await.unwrap();
    scene.wait_connected(1).await.unwrap();
    scene.ask("app", &json!({})).await.unwrap();
    scene
        .use_account(&scene.wait_credential("app").await.unwrap().login)
        .await
        .unwrap();
    let secrets = scene.objects.list("Secret", &scene.databases).await.unwrap();
    let names: Vec<String> = secrets.iter().map(|secret| text(secret, "/metadata/name")).collect();
    assert_eq!(
        names,
        ["orders-db"],
        "no registration is made where the user has the key"
    );
}

#[tokio::test]
async fn a_disabled_engine_is_cut_off_at_once() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, None).await.unwrap();
    let process = stack.engine(&scene.databases, ORDERS, "dc-west-1").await.unwrap();
    scene.wait_connected(1).await.unwrap();
    scene.ask("app", &json!({"ttl": 60})).await.unwrap();
    let first = scene.wait_credential("app").await.unwrap();
    scene.wait_ready("app", "True/Issued").await.unwrap();
    let disabled = |value: bool| json!({"spec": {"disabled": value}});
    scene
        .objects
        .merge("Engine", &scene.databases, "dc-west-1", &disabled(true))
        .await
        .unwrap();
    scene
        .wait_condition("Engine", &scene.databases, "dc-west-1", "False/Disabled")
        .await
        .unwrap();
    scene.rotate("app", "again").await.unwrap();
    tokio::time::sleep(NOTICE).await;
    assert!(process.is_running(), "it tries again, and is refused");
    assert_eq!(
        scene.credential("app").await.unwrap().unwrap().serial,
        1,
        "it issued something"
    );
    let pool = scene
        .objects
        .get("EnginePool", &scene.databases, ORDERS)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(condition(&pool, "Ready"), "False/WaitingForEngine");
    scene.use_account(&first.login).await.unwrap();
    scene
        .objects
        .merge("Engine", &scene.databases, "dc-west-1", &disabled(false))
        .await
        .unwrap();
    let second = scene.wait_serial("app", 2).await.unwrap();
    scene.use_account(&second.login).await.unwrap();
}
