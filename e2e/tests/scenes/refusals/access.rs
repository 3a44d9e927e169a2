//! Every limit of a pool's `access`, tried from a tenant's namespace, and every limit widened.

use std::fmt::Write as _;
use std::time::Duration;

use dsv::api::conditions::Reason;
use e2e::sample;
use e2e::stack::Namespace;
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};

use crate::refusals::kube_client::condition;
use crate::refusals::trial::{Row, hold};
use crate::refusals::world::{PATIENCE, World, pool, within};

/// What the pool's owner allows one tenant; each row has an entry and a namespace of its own.
fn entry(namespace: &str, patch: &Value) -> Value {
    let mut entry = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "linkedSecrets": ["orders-db"],
        "grants": [{"what": "SELECT, INSERT", "where": "orders.public.*"}],
        "userPrefixes": ["shop_"],
        "maxTtl": "1h",
        "maxLeases": 10,
    });
    for (key, value) in patch.as_object().unwrap() {
        entry[key] = value.clone();
    }
    entry
}

struct Limit {
    fault: &'static str,
    name: &'static str,
    /// What the entry says instead.
    narrow: Value,
    /// What the tenant asks for instead.
    asks: Value,
    says: &'static str,
    reason: Reason,
    /// The tenant asks for less; otherwise the owner allows more.
    modest: bool,
}

fn limit(fault: &'static str, name: &'static str, narrow: Value, asks: Value, says: &'static str) -> Limit {
    Limit {
        fault,
        name,
        narrow,
        asks,
        says,
        reason: Reason::AccessDenied,
        modest: false,
    }
}

fn limits() -> Vec<Limit> {
    let none = || json!({});
    let asks = |what: &str, place: &str| json!({"grantPermissions": {"what": what, "where": place}});
    let outside = "the pool's access entry for this namespace does not contain the grant";
    let only = |what: &str, place: &str| json!({"grants": [{"what": what, "where": place}]});
    vec![
        limit(
            "no entry is for the namespace",
            "stranger",
            json!({"namespaceSelector": {"matchLabels": {"team": "nobody"}}}),
            none(),
            "no access entry of the pool selects namespace",
        ),
        limit(
            "the linked secret is not listed",
            "unlisted",
            json!({"linkedSecrets": ["payroll-db"]}),
            none(),
            "does not list linked secret orders-db",
        ),
        limit(
            "no linked secret is listed",
            "nolinks",
            json!({"linkedSecrets": []}),
            none(),
            "does not list linked secret orders-db",
        ),
        limit(
            "the privilege is not contained",
            "privilege",
            only("INSERT", "orders.public.*"),
            none(),
            outside,
        ),
        limit(
            "the table is not contained",
            "table",
            only("SELECT", "orders.public.invoices"),
            none(),
            outside,
        ),
        limit(
            "the schema is not contained",
            "schema",
            only("SELECT", "orders.private.*"),
            none(),
            outside,
        ),
        limit(
            "the database is not contained",
            "database",
            only("SELECT", "payroll.public.*"),
            none(),
            outside,
        ),
        limit(
            "no grant is listed",
            "nogrants",
            json!({"grants": []}),
            none(),
            "it admits nothing",
        ),
        limit(
            "one of several grants is not contained",
            "oneofmany",
            none(),
            json!({"grantPermissions": null, "grants": [
            {"what": "SELECT", "where": "public.orders"}, {"what": "DELETE", "where": "public.invoices"}]}),
            "does not contain the grant DELETE on orders.public.invoices",
        ),
        limit(
            "the prefix is not listed",
            "prefix",
            json!({"userPrefixes": ["shop"]}),
            none(),
            "does not list userPrefix \"shop_\"; it lists \"shop\"",
        ),
        limit(
            "no prefix is asked for",
            "noprefix",
            none(),
            json!({"userPrefix": null}),
            "does not list userPrefix \"\"; it lists \"shop_\"",
        ),
        limit(
            "the ttl is too long",
            "ttl",
            json!({"maxTtl": "44s"}),
            none(),
            "ttl 45s is longer than the 44s that the pool's access entry for this namespace admits",
        ),
        Limit {
            reason: Reason::TooManyLeases,
            ..limit(
                "no lease is allowed",
                "leases",
                json!({"maxLeases": 0}),
                none(),
                "which is as many as the pool's access entry admits (0)",
            )
        },
        Limit {
            modest: true,
            ..limit(
                "a * is asked for within a table",
                "star",
                only("SELECT", "orders.public.orders"),
                asks("SELECT", "public.*"),
                outside,
            )
        },
        Limit {
            modest: true,
            ..limit(
                "ALL is asked for within its parts",
                "all",
                none(),
                asks("ALL", "public.orders"),
                outside,
            )
        },
        Limit {
            modest: true,
            ..limit(
                "every database is asked for",
                "databases",
                none(),
                asks("SELECT", "*.public.orders"),
                outside,
            )
        },
        Limit {
            modest: true,
            ..limit(
                "another database is asked for",
                "another",
                none(),
                asks("SELECT", "postgres.public.*"),
                outside,
            )
        },
    ]
}

/// What the entry of a row becomes when the owner allows what is asked for.
fn widened(namespace: &str, name: &str) -> Value {
    match name {
        "oneofmany" => entry(namespace, &json!({"grants": [{"what": "ALL", "where": "*.*.*"}]})),
        "noprefix" => entry(namespace, &json!({"userPrefixes": [""]})),
        _ => entry(namespace, &json!({})),
    }
}

fn mend(
    index: usize,
    namespace: String,
    limit: &Limit,
) -> impl for<'a> Fn(&'a World) -> LocalBoxFuture<'a, ()> + 'static {
    let (name, modest) = (limit.name, limit.modest);
    move |world| {
        let namespace = namespace.clone();
        Box::pin(async move {
            if modest {
                let less = json!({"spec": {"grantPermissions": {"what": "SELECT", "where": "public.orders"}}});
                world.kube.merge("DynamicSecret", &namespace, name, &less).await;
            } else {
                let path = format!("/spec/access/{index}");
                world
                    .kube
                    .replace_at(
                        "EnginePool",
                        &world.databases,
                        sample::ORDERS,
                        &path,
                        widened(&namespace, name),
                    )
                    .await;
            }
        })
    }
}

fn merged(spec: &mut Value, patch: &Value) {
    for (key, value) in patch.as_object().unwrap() {
        if value.is_null() {
            spec.as_object_mut().unwrap().remove(key);
        } else {
            spec[key] = value.clone();
        }
    }
}

#[tokio::test]
async fn a_tenant_gets_nothing_beyond_his_entry_and_a_widened_entry_is_enough() {
    let world = World::without_pool("owners").await;
    world.kube.put(&world.base("orders-db")).await;
    let limits = limits();
    let mut namespaces: Vec<Namespace<'_>> = Vec::new();
    for limit in &limits {
        namespaces.push(world.stack.namespace(&format!("tenant-{}", limit.name), &[]).unwrap());
    }
    let entries: Vec<Value> = limits
        .iter()
        .zip(&namespaces)
        .map(|(limit, namespace)| entry(namespace, &limit.narrow))
        .collect();
    world.pool(json!({"engines": {"replicas": 1}, "access": entries})).await;
    let mut rows = Vec::new();
    for (index, (limit, namespace)) in limits.iter().zip(&namespaces).enumerate() {
        let mut row = Row::new(&world, limit.fault, limit.name, limit.reason, &[limit.says]);
        row.namespace = namespace.to_string();
        row.spec["linkConfig"]["linkedSecret"] = json!("orders-db");
        merged(&mut row.spec, &limit.asks);
        // Whoever is not admitted learns nothing about the server.
        row.hides = vec!["127.0.0.1".to_owned(), "dsv_issuer".to_owned()];
        row.group = limit.reason == Reason::TooManyLeases;
        rows.push(row.mended(mend(index, namespace.to_string(), limit)));
    }
    hold(&world, rows).await;
}

/// What a dynamic secret's status tells, times left out, once it does not change any more.
async fn told(world: &World, namespace: &str, name: &str, spec: &Value) -> Value {
    let object = json!({"apiVersion": "dsv.dev/v1alpha1", "kind": "DynamicSecret", "metadata": {"name": name, "namespace": namespace}, "spec": spec});
    world.kube.put(&object).await;
    let ready = within(PATIENCE, async || {
        let object = world.kube.read("DynamicSecret", namespace, name).await?;
        condition(&object, "Ready")
    });
    let ready = ready.await.expect("a condition");
    assert_eq!(ready.reason, "AccessDenied", "{}", ready.message);
    // A second attempt would show in what is counted.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut status = world.kube.read("DynamicSecret", namespace, name).await.unwrap()["status"].take();
    for condition in status["conditions"].as_array_mut().unwrap() {
        condition["lastTransitionTime"] = Value::Null;
    }
    status
}

/// Which pools there are elsewhere, which Secrets are beside them, and what is wrong with them, is none of a stranger's
/// business.
#[tokio::test]
async fn a_stranger_does_not_learn_which_pools_and_secrets_there_are() {
    let world = World::without_pool("secretive").await;
    let (listed, stranger) = (
        world.stack.namespace("listed", &[]).unwrap(),
        world.stack.namespace("stranger", &[]).unwrap(),
    );
    world.kube.put(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "private", "namespace": &*world.databases}, "data": {"token": "eA=="},
    })).await;
    for base in ["orders-db", "payroll-db"] {
        world.kube.put(&world.base(base)).await;
    }
    let entries = [entry(&listed, &json!({"linkedSecrets": ["orders-db"]}))];
    let open = pool(&world.databases, sample::ORDERS, json!({"access": entries}));
    world.kube.put(&open).await;
    // Somebody's finalizer keeps the other pool in the state of going.
    let mut leaving = pool(&world.databases, "leaving", json!({"access": entries}));
    leaving["metadata"]["finalizers"] = json!(["example.com/hold"]);
    world.kube.put(&leaving).await;
    world.kube.delete("EnginePool", &world.databases, "leaving").await;
    let secrets = ["private", "no-such-secret", "payroll-db"].map(|base| (sample::ORDERS, base));
    let pools = [
        (sample::ORDERS, "orders-db"),
        ("leaving", "orders-db"),
        ("no-such-pool", "orders-db"),
    ];
    let tries = [
        (&listed, "does not list linked secret", secrets.to_vec()),
        (
            &stranger,
            "no access entry of the pool selects namespace",
            [secrets, pools].concat(),
        ),
    ];
    for (namespace, says, tries) in tries {
        let asked = tries.iter().enumerate().map(async |(number, (pool, base))| {
            let mut spec = world.spec(base);
            spec["pool"]["name"] = json!(pool);
            let status = told(&world, namespace, &format!("try-{number}"), &spec).await;
            status.to_string().replace(base, "NAME")
        });
        let told: Vec<String> = futures::future::join_all(asked).await;
        assert!(told[0].contains(says), "{}", told[0]);
        for (other, what) in told.iter().zip(&tries) {
            assert_eq!(*other, told[0], "the answers tell {what:?} and {:?} apart", tries[0]);
        }
    }
    let released = json!({"metadata": {"finalizers": null}});
    world
        .kube
        .merge("EnginePool", &world.databases, "leaving", &released)
        .await;
}

/// The label of a namespace is as much a part of the entry as the entry itself.
#[tokio::test]
async fn a_namespace_that_is_given_the_right_label_is_served() {
    let world = World::without_pool("labels").await;
    world.kube.put(&world.base("orders-db")).await;
    let tenant = world.stack.namespace("unlabelled", &[]).unwrap();
    let team = format!("team-{:08x}", rand::random::<u32>());
    let access = entry(&tenant, &json!({"namespaceSelector": {"matchLabels": {"team": team}}}));
    world
        .pool(json!({"engines": {"replicas": 1}, "access": [access]}))
        .await;
    let mut row = Row::new(
        &world,
        "the namespace lacks the label",
        "label",
        Reason::AccessDenied,
        &["no access entry of the pool selects namespace"],
    );
    row.namespace = tenant.to_string();
    row.spec["linkConfig"]["linkedSecret"] = json!("orders-db");
    let namespace = tenant.to_string();
    let row = row.mended(move |world| {
        let (namespace, team) = (namespace.clone(), team.clone());
        Box::pin(async move {
            let label = json!({"metadata": {"labels": {"team": team}}});
            world.kube.merge("Namespace", "", &namespace, &label).await;
        })
    });
    hold(&world, vec![row]).await;
}

#[tokio::test]
async fn a_tenant_never_has_more_leases_than_allowed_and_the_next_follows_when_one_ends() {
    const MOST: usize = 2;
    let world = World::without_pool("counted").await;
    world.kube.put(&world.base("orders-db")).await;
    let tenant = world.stack.namespace("crowd", &[]).unwrap();
    let access = entry(&tenant, &json!({"maxLeases": MOST}));
    world
        .pool(json!({"engines": {"replicas": 1}, "access": [access]}))
        .await;
    let names: Vec<String> = (0..6).map(|n| format!("app-{n}")).collect();
    for name in &names {
        let mut spec = world.spec("orders-db");
        // Long enough that all six are seen while the first two live.
        spec["ttl"] = json!(45);
        let object = json!({"apiVersion": "dsv.dev/v1alpha1", "kind": "DynamicSecret", "metadata": {"name": name, "namespace": &*tenant}, "spec": spec});
        world.kube.put(&object).await;
    }
    let state = async || {
        let (mut served, mut waiting) = (Vec::new(), Vec::new());
        for object in world.kube.list("DynamicSecret", &tenant).await {
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            match condition(&object, "Ready").map(|ready| ready.reason).as_deref() {
                Some("Issued") => served.push(name),
                Some("TooManyLeases") => waiting.push(name),
                _ => {}
            }
        }
        (served, waiting)
    };
    let settled = async || Some(state().await).filter(|(served, waiting)| served.len() + waiting.len() == names.len());
    let (served, waiting) = within(PATIENCE, settled).await.expect("all are served or waiting");
    assert_eq!((served.len(), waiting.len()), (MOST, names.len() - MOST));
    assert_eq!(world.kube.list("CredentialLease", &tenant).await.len(), MOST);
    // As after hours of waiting: only being woken helps.
    for name in &waiting {
        let object = world.kube.read("DynamicSecret", &tenant, name).await.unwrap();
        let status = json!({"failures": 12, "lastFailure": jiff::Timestamp::now(), "failedGeneration": object["metadata"]["generation"]});
        world.kube.merge_status("DynamicSecret", &tenant, name, &status).await;
    }
    let mut seen = String::new();
    // The first ones end at their ttl, and two others follow.
    let followed = within(PATIENCE, async || {
        let leases = world.kube.list("CredentialLease", &tenant).await.len();
        assert!(leases <= MOST, "{leases} leases at a time");
        let (now, _) = state().await;
        writeln!(seen, "{now:?}").unwrap();
        (now.iter().filter(|name| waiting.contains(name)).count() == MOST).then_some(())
    });
    assert!(
        followed.await.is_some(),
        "nobody followed: {}",
        seen.lines().last().unwrap_or_default()
    );
}
