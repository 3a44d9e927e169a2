//! The credential of a dynamic secret at a tenant: there as long as it is valid, and the newest one.

use std::time::Duration;

use e2e::objects::text;
use e2e::postgres::Login;
use e2e::scene::Scene;
use serde_json::{Value, json};

use crate::setup::{Setup, peace};
use crate::world::world;

fn login(there: &Value) -> Login {
    Login {
        user: text(there, "/data/username"),
        password: text(there, "/data/password"),
    }
}

#[tokio::test]
async fn a_credential_is_pushed_at_each_rotation_and_deleted_at_the_tenant_when_it_ends() {
    let _peace = peace().await;
    let stack = &world().await.stack;
    let scene = Scene::open(stack, None).await.unwrap();
    let _engine = stack.engine(&scene.databases, "orders", "pushing").await.unwrap();
    let setup = Setup::within(&scene.shop, None).await;
    // What waits for the interval would not be seen in time.
    let daily = json!({"spec": {"syncInterval": "24h"}});
    setup.patch("DsvTenant", "tenant", &daily).await;
    setup.sync("app", &json!({"source": {"kind": "DynamicSecret", "name": "app"}}));
    let rotating = json!({"ttl": 3600, "issuance": {"mode": "Rotate", "overlap": 600}});
    scene.ask("app", &rotating).await.unwrap();
    let first = scene.wait_credential("app").await.unwrap();
    let there = setup.version("app", "0").await;
    assert_eq!(login(&there).user, first.login.user);
    stack.postgres().connect_as(&login(&there), "orders").await.unwrap();

    scene.rotate("app", "now").await.unwrap();
    let there = setup.version("app", "1").await;
    assert_ne!(login(&there).user, first.login.user);
    stack.postgres().connect_as(&login(&there), "orders").await.unwrap();

    let delete = ["-n", &scene.shop, "delete", "dynamicsecret", "app", "--wait=false"];
    stack.kubectl(&delete).unwrap();
    let gone = || async { Ok(setup.there("app").await.is_none().then_some(())) };
    let what = "the credential is gone from the tenant";
    stack.eventually(what, Duration::from_mins(2), gone).await.unwrap();
}
