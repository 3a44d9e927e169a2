//! Credentials that somebody asks for (mode `OnDemand`): what is refused, and that it is taken on when the fault is mended.

use std::time::Duration;

use dsv::api::conditions::{Reason, ReasonKind};
use dsv::keys::{Password, Verifier};
use e2e::sample;
use futures::future::{LocalBoxFuture, join_all};
use serde_json::{Value, json};

use crate::refusals::kube_client::condition;
use crate::refusals::world::{PATIENCE, World, within};

const LIMIT: Duration = PATIENCE;

struct Ask {
    fault: &'static str,
    name: &'static str,
    spec: Value,
    reason: &'static str,
    says: &'static str,
    mend: Option<Box<dyn for<'a> Fn(&'a World) -> LocalBoxFuture<'a, ()>>>,
}

fn ask(fault: &'static str, name: &'static str, spec: Value, reason: &'static str, says: &'static str) -> Ask {
    Ask {
        fault,
        name,
        spec,
        reason,
        says,
        mend: None,
    }
}

impl Ask {
    fn mended(self, mend: impl for<'a> Fn(&'a World) -> LocalBoxFuture<'a, ()> + 'static) -> Self {
        Self {
            mend: Some(Box::new(mend)),
            ..self
        }
    }
}

fn on_demand(world: &World, name: &str, patch: &Value) -> Value {
    let mut spec = world.spec("orders-db");
    spec["issuance"] = json!({"mode": "OnDemand"});
    for (key, value) in patch.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "dsv.dev/v1alpha1", "kind": "DynamicSecret", "metadata": {"name": name, "namespace": &*world.databases}, "spec": spec})
}

fn asks(verifier: &str) -> Vec<Ask> {
    let of = |name: &str| json!({"dynamicSecret": name, "verifier": verifier});
    let into = |name: &str, target: &str| json!({"dynamicSecret": name, "target": {"name": target}});
    vec![
        ask(
            "the dynamic secret does not exist",
            "orphan",
            of("absent"),
            "DynamicSecretMissing",
            "does not exist; create it or correct spec.dynamicSecret",
        )
        .mended(|world| Box::pin(async { world.kube.put(&on_demand(world, "absent", &json!({}))).await })),
        ask(
            "the dynamic secret is not for asking",
            "uncalled",
            of("once"),
            "NotOnDemand",
            "is not in mode OnDemand; set spec.issuance.mode or ask another one",
        ),
        ask(
            "the dynamic secret is suspended",
            "paused",
            of("suspended"),
            "Suspended",
            "it goes on when spec.suspend is taken off",
        )
        .mended(|world| {
            Box::pin(async {
                world
                    .kube
                    .put(&on_demand(world, "suspended", &json!({"suspend": false})))
                    .await
            })
        }),
        ask(
            "the Secret is somebody's",
            "taken",
            into("served", "occupied"),
            "TargetNotOurs",
            "exists and is not ours",
        ),
        ask(
            "the Secret is another credential's",
            "shared",
            into("served", "once"),
            "TargetShared",
            "holds the credential of another one",
        ),
        ask(
            "the dynamic secret's own limit is reached",
            "crowded",
            of("limited"),
            "TooManyLeases",
            "as many as spec.maxLeases admits (1)",
        )
        .mended(|world| {
            Box::pin(async {
                world
                    .kube
                    .put(&on_demand(world, "limited", &json!({"maxLeases": 5})))
                    .await
            })
        }),
    ]
}

async fn phase(world: &World, name: &str, wanted: &str) -> Option<Value> {
    let seen = async || {
        let lease = world.kube.read("CredentialLease", &world.databases, name).await?;
        (lease["status"]["phase"] == wanted).then_some(lease)
    };
    within(LIMIT, seen).await
}

async fn make(world: &World, name: &str, spec: &Value) {
    let lease = json!({"apiVersion": "dsv.dev/v1alpha1", "kind": "CredentialLease", "metadata": {"name": name, "namespace": &*world.databases}, "spec": spec});
    world.kube.put(&lease).await;
}

async fn refused(world: &World, ask: &Ask) {
    make(world, ask.name, &ask.spec).await;
    let fault = ask.fault;
    let reason = Reason::EVERY.iter().find(|known| known.as_str() == ask.reason).unwrap();
    let goes_on_by_itself = reason.kind() == ReasonKind::Waiting;
    let wanted = if goes_on_by_itself { "Pending" } else { "Refused" };
    let lease = phase(world, ask.name, wanted).await;
    let lease = lease.unwrap_or_else(|| panic!("{fault}: not {wanted}\n{}", world.log_about(ask.name)));
    let ready = condition(&lease, "Ready").expect("a condition");
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", ask.reason),
        "{fault}: {}",
        ready.message
    );
    assert!(ready.message.contains(ask.says), "{fault}: {}", ready.message);
    assert_eq!(
        lease["metadata"].get("finalizers"),
        None,
        "{fault}: nothing is to be taken back, so nothing may hold it"
    );
    assert_eq!(lease["status"].get("claim"), None, "{fault}");
    let uid = lease["metadata"]["uid"].as_str().unwrap();
    let slug = format!("shop_{}_", ask.spec["dynamicSecret"].as_str().unwrap());
    let suffix = dsv::api::names::base32_uid(uid).unwrap();
    let accounts = world.roles(&world.databases, &format!("{slug}{suffix}"), "none").await;
    assert_eq!(accounts, Vec::<String>::new(), "{fault}");
}

async fn served_or_gone(world: &World, ask: &Ask) {
    let Some(mend) = &ask.mend else {
        world.kube.delete("CredentialLease", &world.databases, ask.name).await;
        let gone = async || {
            world
                .kube
                .read("CredentialLease", &world.databases, ask.name)
                .await
                .is_none()
                .then_some(())
        };
        assert!(
            within(PATIENCE, gone).await.is_some(),
            "{}: a refused request is held",
            ask.fault
        );
        return;
    };
    mend(world).await;
    let issued = phase(world, ask.name, "Issued").await;
    assert!(
        issued.is_some(),
        "{}: mended, but not issued\n{}",
        ask.fault,
        world.log_about(ask.name)
    );
}

#[tokio::test]
async fn a_refused_request_says_why_and_is_served_when_that_is_mended() {
    let world = World::new("asked").await;
    world.kube.put(&world.base("orders-db")).await;
    let verifier = Verifier::of(&Password::generate()).as_str().to_owned();
    world
        .kube
        .put(&on_demand(
            &world,
            "once",
            &json!({"issuance": {"mode": "Once"}, "ttl": 300}),
        ))
        .await;
    world
        .kube
        .put(&on_demand(&world, "suspended", &json!({"suspend": true})))
        .await;
    world.kube.put(&on_demand(&world, "served", &json!({}))).await;
    world
        .kube
        .put(&on_demand(&world, "limited", &json!({"maxLeases": 1, "ttl": 300})))
        .await;
    let occupied = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "occupied", "namespace": &*world.databases}, "data": {"precious": "eA=="}});
    world.kube.put(&occupied).await;
    make(
        &world,
        "the-one",
        &json!({"dynamicSecret": "limited", "verifier": verifier}),
    )
    .await;
    assert!(
        phase(&world, "the-one", "Issued").await.is_some(),
        "{}",
        world.log_about("the-one")
    );
    let delivered = async || world.kube.read("Secret", &world.databases, "once").await;
    let credential = within(LIMIT, delivered).await.expect("the credential of `once`");
    let asks = asks(&verifier);
    join_all(asks.iter().map(|ask| refused(&world, ask))).await;
    let before = world.writes(&world.databases, "").len();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let writes = world.writes(&world.databases, "").split_off(before);
    // Six of them; an unchanged refusal is not written again.
    assert!(writes.len() <= 6, "{writes:#?}");
    join_all(asks.iter().map(|ask| served_or_gone(&world, ask))).await;
    assert_eq!(
        world.kube.read("Secret", &world.databases, "occupied").await.unwrap()["data"],
        occupied["data"]
    );
    assert_eq!(
        world.kube.read("Secret", &world.databases, "once").await.unwrap(),
        credential
    );
}

/// A request may shorten the life of its credential, never lengthen it.
#[tokio::test]
async fn a_request_for_a_longer_life_gets_the_allowed_one() {
    let world = World::new("longer").await;
    world.kube.put(&world.base("orders-db")).await;
    world.kube.put(&on_demand(&world, "short", &json!({"ttl": 20}))).await;
    make(
        &world,
        "greedy",
        &json!({"dynamicSecret": "short", "target": {"name": "greedy"}, "ttl": "10h"}),
    )
    .await;
    let lease = phase(&world, "greedy", "Issued").await;
    let lease = lease.unwrap_or_else(|| panic!("{}", world.log_about("greedy")));
    assert_eq!(lease["status"]["claim"]["ttlSeconds"], 20);
    let user = lease["status"]["username"].as_str().unwrap().to_owned();
    let sql = "SELECT rolvaliduntil < now() + interval '21 seconds' FROM pg_roles WHERE rolname = $1";
    let row = world.admin.query_one(sql, &[&user]).await.unwrap();
    assert!(
        row.get::<_, bool>(0),
        "the database would let {user} in for longer, in {}",
        sample::ORDERS
    );
}
