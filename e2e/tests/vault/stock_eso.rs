//! The stock provider of External Secrets, unchanged: what its operator runs for each `ExternalSecret` of a store.

use std::process::Command;

use e2e::objects::text;
use serde_json::{Value, json};

use crate::stock::{Talk, authority, clients};
use crate::stock_go::{logs_in, template};
use crate::world::{World, fresh, world};

/// A store as somebody writes it, with the credentials of a client that may read below a path.
async fn store(world: &World, stem: &str) -> Value {
    let resources = [format!("secrets:{stem}:<.*>")];
    let (id, secret) = world
        .client(&json!({"actions": ["read"], "resources": resources}))
        .await;
    json!({
        "apiVersion": "external-secrets.io/v1",
        "kind": "SecretStore",
        "metadata": {"name": "dsv", "namespace": "shop"},
        "spec": {"provider": {"delinea": {
            "tenant": "any",
            "urlTemplate": template(world),
            "clientId": {"value": id},
            "clientSecret": {"value": secret},
        }}},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_provider_of_external_secrets_reads_secrets_and_accounts() {
    let world = world().await;
    let stem = fresh("eso");
    let store = store(world, &stem).await;
    let body = json!({"data": {"username": "app", "nested": {"port": 5432}}});
    world.call(&format!("POST secrets/{stem}/config"), &body).await.is(201);
    let (pool, _engine) = world.pool_with_engine().await;
    let base = world.base().await;
    let attributes = json!({
        "grantPermissions": {"what": "SELECT", "where": "public.orders"},
        "linkConfig": {"linkType": "dynamic", "linkedSecret": base}, "pool": pool, "ttl": 1000,
    });
    let body = json!({"attributes": attributes, "data": null, "description": ""});
    world.call(&format!("POST secrets/{stem}/dyn"), &body).await.is(201);
    let folder = world.stack.run().subfolder(&fresh("eso")).unwrap();
    let mut provider = Talk::with(
        Command::new(clients().await.external_secrets())
            .env_clear()
            .env("HOME", &folder)
            .env("SSL_CERT_FILE", authority(world, &folder)),
    );
    let talk = move || {
        provider.tell(&store);
        let key = |path: &str| json!({"key": format!("{stem}:{path}")});
        let property = |path: &str, name: &str| json!({"key": format!("{stem}:{path}"), "property": name});
        let whole = provider.answer(&key("config"));
        let value: Value = serde_json::from_str(&text(&whole, "/value")).unwrap();
        assert_eq!(value, json!({"username": "app", "nested": {"port": 5432}}));
        assert_eq!(text(&whole, "/keys/username"), "app");
        assert_eq!(provider.get(&property("config", "username")), "app");
        assert_eq!(provider.get(&property("config", "nested.port")), "5432");
        provider.fails(&key("none"), "404", "unable to find item");
        provider.fails(&json!({"key": "others:one"}), "403", "Invalid permissions");
        provider.answer(&key("dyn"))["value"].clone()
    };
    let account = tokio::task::spawn_blocking(talk).await.unwrap();
    logs_in(world, &serde_json::from_str(account.as_str().unwrap()).unwrap()).await;
}
