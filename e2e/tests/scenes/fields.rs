//! Which changes of a DynamicSecret lead to another credential: those of what it is for, and no others.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::objects::{number, text};
use e2e::scene::Scene;
use e2e::stack::Stack;
use serde_json::{Value, json};
use tokio::time::sleep;

/// Long enough for the operator to notice a change and do what it is going to do.
const NOTICE: Duration = Duration::from_secs(2);

/// One change of one field; the first word is the field.
struct Change {
    name: &'static str,
    field: &'static str,
    spec: Value,
    renews: bool,
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn changes(scene: &Scene<'_>) -> Vec<Change> {
    let change = |name, field, spec, renews| Change {
        name,
        field,
        spec,
        renews,
    };
    vec![
        change("pool-name", "pool", json!({"pool": {"name": "second"}}), true),
        change(
            "linked-secret-elsewhere",
            "linkConfig",
            json!({"linkConfig": {"linkedSecret": "other-database"}}),
            true,
        ),
        change(
            "linked-secret-alias",
            "linkConfig",
            json!({"linkConfig": {"linkedSecret": "alias"}}),
            false,
        ),
        change(
            "grant-permissions",
            "grantPermissions",
            json!({"grantPermissions": {"what": "SELECT, INSERT"}}),
            true,
        ),
        change(
            "grants-in-other-words",
            "grants",
            json!({"grantPermissions": null, "grants": [{"what": "select", "where": "orders.public.orders"}]}),
            false,
        ),
        change(
            "grants-of-more",
            "grants",
            json!({"grantPermissions": null, "grants": [{"what": "SELECT", "where": "public.*"}]}),
            true,
        ),
        change(
            "user-prefix",
            "userPrefix",
            json!({"userPrefix": format!("{}x_", scene.prefix)}),
            true,
        ),
        change("shorter-ttl", "ttl", json!({"ttl": "9m"}), true),
        change("longer-ttl", "ttl", json!({"ttl": "11m"}), false),
        change("ttl-in-other-words", "ttl", json!({"ttl": "600"}), false),
        change("mode", "issuance", json!({"issuance": {"mode": "Rotate"}}), false),
        change(
            "renew-before",
            "issuance",
            json!({"issuance": {"renewBefore": "9m"}}),
            false,
        ),
        change("overlap", "issuance", json!({"issuance": {"overlap": "0s"}}), false),
        change(
            "target-labels",
            "target",
            json!({"target": {"labels": {"app": "x"}}}),
            false,
        ),
        change(
            "target-formats",
            "target",
            json!({"target": {"formats": ["jdbc"], "template": {"dsn": "{{ uri }}"}}}),
            false,
        ),
        change("target-name", "target", json!({"target": {"name": "elsewhere"}}), false),
        change("suspend", "suspend", json!({"suspend": true}), false),
        change(
            "deletion-policy",
            "deletionPolicy",
            json!({"deletionPolicy": "LetExpire"}),
            false,
        ),
        change(
            "revocation",
            "revocation",
            json!({"revocation": {"ownedObjects": "Drop"}}),
            false,
        ),
        change("max-leases", "maxLeases", json!({"maxLeases": 1}), false),
        change("account", "account", json!({"account": {"connectionLimit": 1}}), false),
    ]
}

#[tokio::test]
async fn only_what_a_credential_is_for_leads_to_another_one() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, Some(1)).await.unwrap();
    prepare(&scene).await;
    let changes = changes(&scene);
    for change in &changes {
        let mode = if change.field == "issuance" && change.name != "mode" {
            "Rotate"
        } else {
            "Once"
        };
        let spec = json!({"ttl": "10m", "issuance": {"mode": mode, "overlap": 1}});
        scene.ask(change.name, &spec).await.unwrap();
    }
    for change in &changes {
        scene.wait_ready(change.name, "True/Issued").await.unwrap();
        scene.change(change.name, &change.spec).await.unwrap();
    }
    for change in changes.iter().filter(|change| change.renews) {
        let second = scene.wait_serial(change.name, 2).await.unwrap();
        let database = second.value("database").unwrap();
        let session = scene.server().connect_as(&second.login, &database).await.unwrap();
        session.query("SELECT item FROM public.orders", &[]).await.unwrap();
    }
    sleep(NOTICE).await;
    for change in &changes {
        let seen = scene.seen(change.name).await.unwrap();
        let wanted = if change.renews { 2 } else { 1 };
        let credential = scene.credential(change.name).await.unwrap().expect("the Secret stays");
        let status = &seen["status"];
        assert_eq!(credential.serial, wanted, "{}: {status}", change.name);
        assert_eq!(number(status, "/deliveredSerial"), wanted, "{}: {status}", change.name);
        assert_eq!(
            status["observedGeneration"], seen["metadata"]["generation"],
            "{} was not seen",
            change.name
        );
        assert_eq!(
            scene.accounts(change.name).await.unwrap().len(),
            usize::from(change.name != "user-prefix"),
            "{}",
            change.name
        );
    }
}

/// A second pool, a second name for the same server, and a base secret for another database of it.
async fn prepare(scene: &Scene<'_>) {
    for (name, database) in [("alias", "orders"), ("other-database", "postgres")] {
        let mut base = scene.base_secret(name);
        base["stringData"]["database"] = json!(database);
        scene.objects.create(&base).await.unwrap();
    }
    let mut access = scene.access();
    access["linkedSecrets"] = json!(["orders-db", "alias", "other-database"]);
    access["grants"] = json!([{"what": "SELECT, INSERT", "where": "orders.public.*"}, {"what": "SELECT", "where": "postgres.public.*"}]);
    access["userPrefixes"] = json!([scene.prefix, format!("{}x_", scene.prefix)]);
    let mut pool = scene
        .objects
        .get("EnginePool", &scene.databases, "orders")
        .await
        .unwrap()
        .unwrap();
    let spec = json!({"access": [access], "engines": {"replicas": 1}});
    scene
        .objects
        .merge("EnginePool", &scene.databases, "orders", &json!({"spec": spec}))
        .await
        .unwrap();
    pool["metadata"] = json!({"name": "second", "namespace": &*scene.databases});
    pool["spec"] = spec;
    pool.as_object_mut().unwrap().remove("status");
    scene.objects.create(&pool).await.unwrap();
    scene
        .wait_condition("EnginePool", &scene.databases, "second", "True/Connected")
        .await
        .unwrap();
    let session = scene.server().connect("postgres").await.unwrap();
    let table = format!(
        "CREATE TABLE public.orders (item text); INSERT INTO public.orders VALUES ('x'); \
         GRANT SELECT ON public.orders TO {0} WITH GRANT OPTION; GRANT USAGE ON SCHEMA public TO {0} WITH GRANT OPTION; \
         GRANT CONNECT ON DATABASE postgres TO {0} WITH GRANT OPTION",
        scene.issuer().user
    );
    session.batch_execute(&table).await.unwrap();
}

#[tokio::test]
async fn a_base_secret_that_names_another_server_leads_to_another_credential() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, Some(1)).await.unwrap();
    scene.ask("app", &json!({"ttl": "10m"})).await.unwrap();
    scene.wait_ready("app", "True/Issued").await.unwrap();
    let base = |data: Value| json!({"metadata": {"labels": {"seen": "yes"}}, "stringData": data});
    let same = base(json!({"sslmode": "verify-ca"}));
    scene
        .objects
        .merge("Secret", &scene.databases, "orders-db", &same)
        .await
        .unwrap();
    sleep(NOTICE).await;
    assert_eq!(
        scene.credential("app").await.unwrap().unwrap().serial,
        1,
        "it is the same server"
    );
    let moved = base(json!({"host": "localhost"}));
    scene
        .objects
        .merge("Secret", &scene.databases, "orders-db", &moved)
        .await
        .unwrap();
    let second = scene.wait_serial("app", 2).await.unwrap();
    assert_eq!(second.value("host").unwrap(), "localhost");
    scene.use_account(&second.login).await.unwrap();
}

/// A field that is added to the specification must be added here, with the answer to the question.
#[tokio::test]
async fn every_field_of_the_specification_is_walked() {
    let stack = Stack::shared().await.unwrap();
    let scene = Scene::open(stack, None).await.unwrap();
    let definition = stack
        .kubectl(&["get", "crd", "dynamicsecrets.dsv.dev", "-o", "json"])
        .unwrap();
    let definition: Value = serde_json::from_str(&definition).unwrap();
    let fields = definition
        .pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties")
        .unwrap();
    let fields: BTreeSet<&str> = fields.as_object().unwrap().keys().map(String::as_str).collect();
    let changes = changes(&scene);
    let walked: BTreeSet<&str> = changes.iter().map(|change| change.field).collect();
    assert_eq!(fields, walked);
    assert_eq!(text(&definition, "/spec/names/kind"), "DynamicSecret");
}
