//! Tenants who write their own pools, base secrets and engines: none of that leads to what is not theirs.

use std::time::Duration;

use dsv::api::conditions::Reason;
use e2e::sample;
use serde_json::{Value, json};

use crate::refusals::kube_client::condition;
use crate::refusals::trial::{Row, hold};
use crate::refusals::world::{PATIENCE, World, pool, within};

#[tokio::test]
async fn a_tenants_own_pool_opens_no_door_to_other_base_secrets() {
    let world = World::new("platform").await;
    world.kube.put(&world.base("orders-db")).await;
    let tenant = world.stack.namespace("tenant", &[]).unwrap();
    world
        .kube
        .put(&pool(&tenant, sample::ORDERS, json!({"engines": {"replicas": 1}})))
        .await;
    // He knows where the server is and who its administrator is, but not the password.
    let mut guessed = world.base_in(&tenant, "guessed");
    guessed["stringData"]["password"] = json!("letmein");
    world.kube.put(&guessed).await;
    let own = |row: Row, base: &str| {
        let mut row = row;
        row.namespace = tenant.to_string();
        row.spec["pool"] = json!({"name": sample::ORDERS});
        row.spec["linkConfig"]["linkedSecret"] = json!(base);
        row.hides = vec!["orders-rw".to_owned()];
        let (namespace, base) = (tenant.to_string(), base.to_owned());
        // What would make it right: a login that is his.
        row.mended(move |world| {
            let secret = world.base_in(&namespace, &base);
            Box::pin(async move { world.kube.put(&secret).await })
        })
    };
    let absent = format!("base secret {}/orders-db does not exist", &*tenant);
    let rows = vec![
        own(
            Row::new(
                &world,
                "a foreign base secret by its name",
                "byname",
                Reason::BaseSecretMissing,
                &[&absent],
            ),
            "orders-db",
        ),
        own(
            Row::new(
                &world,
                "a foreign server with a guessed password",
                "guess",
                Reason::LoginRefused,
                &["check username and password of the base secret"],
            ),
            "guessed",
        ),
    ];
    hold(&world, rows).await;
}

/// The pool of an engine is the one beside it, whatever other pools are called.
#[tokio::test]
async fn a_tenants_own_engine_gets_no_work_of_another_namespaces_pool() {
    let world = World::new("platform").await;
    let tenant = world.stack.namespace("intruder", &[]).unwrap();
    let engine = |spec: Value| json!({"apiVersion": "dsv.dev/v1alpha1", "kind": "Engine", "metadata": {"name": "mole", "namespace": &*tenant}, "spec": spec});
    world.kube.put(&engine(json!({"pool": sample::ORDERS}))).await;
    let ready = within(PATIENCE, async || {
        let engine = world.kube.read("Engine", &tenant, "mole").await?;
        condition(&engine, "Ready")
    });
    let ready = ready.await.expect("a condition");
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "PoolMissing"),
        "{}",
        ready.message
    );
    assert!(
        ready
            .message
            .contains("EnginePool orders does not exist in this namespace; create it"),
        "{}",
        ready.message
    );
    let registration = world.stack.registration(&tenant, "mole").await.unwrap();
    let process =
        e2e::engine::Engine::start(world.stack.run(), &format!("{}-mole", &*tenant), &registration, None).unwrap();
    world.kube.put(&world.base("orders-db")).await;
    let mut spec = world.spec("orders-db");
    spec["target"] = json!({"name": "login"});
    let object = json!({"apiVersion": "dsv.dev/v1alpha1", "kind": "DynamicSecret", "metadata": {"name": "ours", "namespace": &*world.databases}, "spec": spec});
    world.kube.put(&object).await;
    let issued = within(PATIENCE, async || {
        let object = world.kube.read("DynamicSecret", &world.databases, "ours").await?;
        condition(&object, "Ready").filter(|ready| ready.reason == "Issued")
    });
    assert!(issued.await.is_some(), "{}", world.log_about("ours"));
    let served = world
        .kube
        .read("EnginePool", &world.databases, sample::ORDERS)
        .await
        .unwrap();
    assert_eq!(served["status"]["connectedEngines"], 1, "{}", served["status"]);
    assert!(!process.log_text().contains("task"), "{}", process.log_tail(20));
}

/// Consent is asked each time a credential is made, and only then.
#[tokio::test]
async fn a_wish_that_grows_beyond_the_entry_leaves_the_credential_that_is_there() {
    let world = World::without_pool("grown").await;
    world.kube.put(&world.base("orders-db")).await;
    let tenant = world.stack.namespace("greedy", &[]).unwrap();
    let access = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": &*tenant}},
        "linkedSecrets": ["orders-db"], "grants": [{"what": "SELECT", "where": "orders.public.*"}], "userPrefixes": ["shop_"],
    });
    world
        .pool(json!({"engines": {"replicas": 1}, "access": [access]}))
        .await;
    let mut spec = world.spec("orders-db");
    spec["ttl"] = json!(120);
    let object = json!({"apiVersion": "dsv.dev/v1alpha1", "kind": "DynamicSecret", "metadata": {"name": "app", "namespace": &*tenant}, "spec": spec});
    world.kube.put(&object).await;
    let comes_to = async |reason: &str| {
        let said = within(PATIENCE, async || {
            let object = world.kube.read("DynamicSecret", &tenant, "app").await?;
            condition(&object, "Ready").filter(|ready| ready.reason == reason)
        });
        said.await
            .unwrap_or_else(|| panic!("does not come to {reason}:\n{}", world.log_about("app")))
    };
    comes_to("Issued").await;
    let before = world.kube.read("Secret", &tenant, "app").await.unwrap();
    let more = json!({"spec": {"grantPermissions": {"what": "DELETE"}}});
    world.kube.merge("DynamicSecret", &tenant, "app", &more).await;
    comes_to("AccessDenied").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.kube.read("Secret", &tenant, "app").await.unwrap(), before);
    let user = String::from_utf8(
        data_encoding::BASE64
            .decode(before["data"]["username"].as_str().unwrap().as_bytes())
            .unwrap(),
    )
    .unwrap();
    let may = world
        .admin
        .query_one("SELECT has_table_privilege($1, 'public.orders', 'DELETE')", &[&user])
        .await
        .unwrap();
    assert!(!may.get::<_, bool>(0), "the live account was widened");
    world
        .kube
        .merge(
            "DynamicSecret",
            &tenant,
            "app",
            &json!({"spec": {"grantPermissions": {"what": "SELECT"}}}),
        )
        .await;
    comes_to("Issued").await;
    assert_eq!(
        world.kube.read("Secret", &tenant, "app").await.unwrap(),
        before,
        "the wish is back; so is what is there"
    );
}
