//! Two tenants with pools of their own cannot reach each other; a namespace without either gets nothing; and when a tenant's
//! namespace is deleted with pool and leases in it, all of it goes and nothing of the other one.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::application;
use crate::install::NAMESPACE;
use crate::node::world::{SHOP, World, dynamic_secret, secret_of};
use crate::sample::{self, BASE_SECRET, DATABASES, ORDERS};

const ROGUE: &str = "rogue";
/// A tenant whose pool, base secret and applications lie in one namespace.
const DEPOT: &str = "depot";
const STOCK: &str = "stock";

/// A dynamic secret as the shop would write it, in another namespace and with another pool.
fn request(name: &str, namespace: &str, pool: &Value) -> Value {
    let mut request = dynamic_secret(name, &json!({"pool": pool}));
    if let Some(of) = request.pointer_mut("/metadata/namespace") {
        *of = namespace.into();
    }
    request
}

async fn refused(world: &World, name: &str, namespace: &str, reason: &str) -> Result<()> {
    let field = r#"-o=jsonpath={.status.conditions[?(@.type=="Ready")].reason}"#;
    let what = format!("{namespace}/{name} is refused");
    world
        .until(&what, &["get", "dynamicsecret", name, "-n", namespace, field], reason)
        .await?;
    let made = world.kubectl(&["get", "secret", &secret_of(name), "-n", namespace, "--ignore-not-found"])?;
    ensure!(made.trim().is_empty(), "a Secret was made: {made}");
    Ok(())
}

pub async fn run(world: &World) -> Result<()> {
    let pool = json!({"name": ORDERS, "namespace": DATABASES});
    world.apply(&[
        sample::namespace(ROGUE, &BTreeMap::new()),
        request("reach", ROGUE, &pool),
    ])?;
    refused(world, "reach", ROGUE, "AccessDenied").await?;
    let account = format!("--as=system:serviceaccount:{ROGUE}:default");
    let secret = format!("secret/{}", secret_of(application::NAME));
    for (verb, what, namespace) in [
        ("get", secret.as_str(), SHOP),
        ("create", "dynamicsecrets.dsv.dev", SHOP),
        ("patch", "deployments.apps", SHOP),
        ("get", "secrets", DATABASES),
        ("create", "enginepools.dsv.dev", DATABASES),
        ("create", "pods/exec", NAMESPACE),
        ("get", "secrets", NAMESPACE),
    ] {
        let answer = world.kubectl(&["auth", "can-i", verb, what, "-n", namespace, &account]);
        // kubectl says no by its exit code.
        ensure!(answer.is_err(), "{account} may {verb} {what} in {namespace}");
    }
    world.kubectl(&["delete", "namespace", ROGUE, "--wait=false"])?;
    two(world).await
}

async fn two(world: &World) -> Result<()> {
    let own = json!({"name": ORDERS});
    let base = world.base_secret(DEPOT, STOCK);
    world.apply(&[sample::namespace(DEPOT, &BTreeMap::new()), base])?;
    let mut pool = sample::pool(DEPOT, Some(1));
    // Open for its own namespace only.
    if let Some(spec) = pool.pointer_mut("/spec").and_then(Value::as_object_mut) {
        spec.remove("access");
    }
    let mut stock = request(STOCK, DEPOT, &own);
    if let Some(linked) = stock.pointer_mut("/spec/linkConfig/linkedSecret") {
        *linked = STOCK.into();
    }
    // Aims the shop's login at an engine of its own, and the shop at an engine of another.
    let theirs = request("theirs", DEPOT, &own);
    let across = request("across", SHOP, &json!({"name": ORDERS, "namespace": DEPOT}));
    ensure!(
        theirs
            .pointer("/spec/linkConfig/linkedSecret")
            .is_some_and(|linked| linked == BASE_SECRET)
    );
    world.apply(&[pool, stock, theirs, across])?;
    let ready = [
        "wait",
        "-n",
        DEPOT,
        "dynamicsecret",
        STOCK,
        "--for=condition=Ready",
        "--timeout=120s",
    ];
    world.kubectl(&ready).with_context(|| world.report())?;
    refused(world, "theirs", DEPOT, "BaseSecretMissing").await?;
    refused(world, "across", SHOP, "AccessDenied").await?;
    world.kubectl(&["delete", "dynamicsecret", "across", "-n", SHOP])?;
    namespace_deleted(world).await
}

async fn namespace_deleted(world: &World) -> Result<()> {
    let before = world.account(application::NAME)?;
    let account = world.account_in(DEPOT, &secret_of(STOCK))?;
    ensure!(
        world.roles().await?.contains(&account),
        "{account} is not in the database"
    );
    let uids = [
        "get",
        "engines",
        "-n",
        DEPOT,
        "-o=jsonpath={.items[*].status.registrationSecret}",
    ];
    let engine = world.kubectl(&uids)?.trim().to_owned();
    ensure!(
        engine.starts_with("engine-"),
        "the pool has no engine of ours: {engine:?}"
    );
    let start = Instant::now();
    world.kubectl(&["delete", "namespace", DEPOT, "--wait=false"])?;
    world.until_role_is_gone(&account).await?;
    let there = ["get", "namespace", DEPOT, "--ignore-not-found", "-o=name"];
    world.until("the namespace is gone", &there, "").await?;
    world.figure(
        "from deleting a namespace with pool, engine and a live lease until all of it is gone",
        start.elapsed(),
    );
    let deployment = ["get", "deployment,secret", "-n", NAMESPACE, "-o=name"];
    world
        .eventually("its engine is gone", || async {
            Ok((!world.kubectl(&deployment)?.contains(&engine)).then_some(()))
        })
        .await?;
    ensure!(
        world.account(application::NAME)? == before,
        "the other tenant has another account"
    );
    application::never_failed(world, application::NAME).map(drop)
}
