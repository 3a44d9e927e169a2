//! Faults of pools and engines.

use dsv::api::conditions::Reason;
use serde_json::{Value, json};

use crate::refusals::trial::{Row, hold};
use crate::refusals::world::{PATIENCE, World, pool, within};

/// Uses a pool of the row's own name.
fn row(world: &World, fault: &'static str, name: &'static str, reason: Reason, says: &[&str]) -> Row {
    let mut row = Row::new(world, fault, name, reason, says);
    row.spec["pool"]["name"] = json!(name);
    row.spec["linkConfig"]["linkedSecret"] = json!("orders-db");
    row.mended(move |world| Box::pin(async move { world.kube.put(&managed(world, name)).await }))
}

fn managed(world: &World, name: &str) -> Value {
    pool(&world.databases, name, json!({"engines": {"replicas": 1}}))
}

#[tokio::test]
async fn a_pool_that_cannot_serve_is_told_and_its_first_engine_is_enough() {
    let world = World::without_pool("pools").await;
    let kube = &world.kube;
    kube.put(&world.base("orders-db")).await;
    for name in ["idle", "remote", "dark"] {
        kube.put(&pool(&world.databases, name, json!({}))).await;
    }
    let disabled = json!({
        "apiVersion": "dsv.dev/v1alpha1", "kind": "Engine",
        "metadata": {"name": "dark-one", "namespace": &*world.databases}, "spec": {"pool": "dark", "disabled": true},
    });
    kube.put(&disabled).await;
    // Somebody's finalizer keeps the pool in the state of going.
    let mut leaving = managed(&world, "leaving");
    leaving["metadata"]["finalizers"] = json!(["example.com/hold"]);
    kube.put(&leaving).await;
    kube.delete("EnginePool", &world.databases, "leaving").await;
    let no_engine = "no engine of the pool is connected; it goes on when one dials in (kubectl get engines)";
    let place = |name: &str| format!("EnginePool {}/{name}", &*world.databases);
    let rows = vec![
        row(
            &world,
            "the pool does not exist",
            "late",
            Reason::PoolMissing,
            &[&format!(
                "{} does not exist; create it or correct spec.pool",
                place("late")
            )],
        ),
        row(
            &world,
            "the pool has no engine",
            "idle",
            Reason::WaitingForEngine,
            &[no_engine],
        ),
        row(
            &world,
            "no engine has dialled in",
            "remote",
            Reason::WaitingForEngine,
            &[no_engine],
        )
        .mended(|world| {
            Box::pin(async {
                let engine = world
                    .stack
                    .engine(&world.databases, "remote", "remote-one")
                    .await
                    .unwrap();
                // Runs to the end of the test program.
                Box::leak(Box::new(engine));
            })
        }),
        row(
            &world,
            "the only engine is switched off",
            "dark",
            Reason::WaitingForEngine,
            &[no_engine],
        ),
        row(
            &world,
            "the pool is being deleted",
            "leaving",
            Reason::PoolDeleting,
            &[&format!(
                "{} is being deleted; choose another one in spec.pool",
                place("leaving")
            )],
        )
        .mended(|world| {
            Box::pin(async {
                let released = json!({"metadata": {"finalizers": null}});
                world
                    .kube
                    .merge("EnginePool", &world.databases, "leaving", &released)
                    .await;
                let gone = async || {
                    world
                        .kube
                        .read("EnginePool", &world.databases, "leaving")
                        .await
                        .is_none()
                        .then_some(())
                };
                within(PATIENCE, gone).await.expect("the pool goes");
                world.kube.put(&managed(world, "leaving")).await;
            })
        }),
    ];
    hold(&world, rows).await;
}
