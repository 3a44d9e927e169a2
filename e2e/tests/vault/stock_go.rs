//! The stock Go SDK, unchanged, each of its calls: what injector, syncer, Terraform and External Secrets send is what it sends.

use std::process::Command;

use e2e::objects::text;
use e2e::postgres::Login;
use serde_json::{Value, json};

use crate::stock::{Talk, authority, clients};
use crate::world::{World, fresh, world};

/// What the SDK makes an address of: tenant and top-level domain are left out.
pub fn template(world: &World) -> String {
    format!("{}/v1/%[3]s%[4]s", world.url())
}

/// A client that may do everything below a path, and with one role and its clients.
async fn client(world: &World, stem: &str, role: &str) -> (String, String) {
    let resources = [
        format!("secrets:{stem}:<.*>"),
        format!("roles:{role}"),
        "clients:<.*>".to_owned(),
    ];
    world
        .client(&json!({"actions": ["<.*>"], "resources": resources}))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_go_sdk_reads_and_writes_secrets_and_makes_clients() {
    let world = world().await;
    let (stem, role) = (fresh("sdk"), fresh("role"));
    let (id, secret) = client(world, &stem, &role).await;
    world.call("POST roles/", &json!({"name": role})).await.is(201);
    let (pool, _engine) = world.pool_with_engine().await;
    let base = world.base().await;
    let dynamic = format!("{stem}:dyn");
    let attributes = json!({
        "grantPermissions": {"what": "SELECT", "where": "public.orders"},
        "linkConfig": {"linkType": "dynamic", "linkedSecret": base}, "pool": pool, "ttl": 1000,
    });
    let body = json!({"attributes": attributes, "data": null, "description": ""});
    world.call(&format!("POST secrets/{dynamic}"), &body).await.is(201);
    let folder = world.stack.run().subfolder(&fresh("sdk")).unwrap();
    let mut sdk = Talk::with(
        Command::new(clients().await.sdk())
            .env_clear()
            .env("HOME", &folder)
            .env("SSL_CERT_FILE", authority(world, &folder))
            .env("URL_TEMPLATE", template(world))
            .env("CLIENT_ID", &id)
            .env("CLIENT_SECRET", &secret),
    );
    let talk = move || {
        let (path, value) = (format!("/{stem}/{}", fresh("s")), fresh("value"));
        let create = json!({"Name": "create-secret", "Path": path, "Secret": {"data": {"foo": value}}});
        let made = sdk.get(&create);
        assert_eq!(made["Data"], json!({"foo": value}));
        sdk.fails(&create, "400", "secret at path already exists");
        let read = json!({"Name": "secret", "Path": path.replace('/', ":").trim_start_matches(':')});
        let found = sdk.get(&read);
        assert_eq!(
            (
                &found["Data"],
                text(&found, "/Version"),
                text(&found, "/id").len() + text(&found, "/ID").len()
            ),
            (&json!({"foo": value}), "0".into(), 36),
            "{found}"
        );
        sdk.get(&json!({"Name": "delete-secret", "Path": path}));
        sdk.fails(&read, "400", "marked for deletion");
        sdk.fails(
            &json!({"Name": "secret", "Path": format!("{stem}:none")}),
            "404",
            "unable to find item",
        );
        sdk.fails(
            &json!({"Name": "secret", "Path": "others:one"}),
            "403",
            "Invalid permissions",
        );
        assert_eq!(text(&sdk.get(&json!({"Name": "role", "Path": role})), "/Name"), role);
        let made = sdk.get(&json!({"Name": "new-client", "Path": role}));
        let id = text(&made, "/clientId");
        assert!(!text(&made, "/clientSecret").is_empty(), "{made}");
        let read = sdk.get(&json!({"Name": "client", "Path": id}));
        assert_eq!(
            (text(&read, "/role"), text(&read, "/clientSecret")),
            (role, String::new())
        );
        sdk.get(&json!({"Name": "delete-client", "Path": id}));
        sdk.fails(&json!({"Name": "client", "Path": id}), "400", "marked for deletion");
        sdk.get(&json!({"Name": "secret", "Path": dynamic}))
    };
    let account = tokio::task::spawn_blocking(talk).await.unwrap();
    logs_in(world, &account["Data"]).await;
}

/// Logs in with what was read.
pub async fn logs_in(world: &World, data: &Value) {
    let login = Login {
        user: text(data, "/username"),
        password: text(data, "/password"),
    };
    let session = world.stack.postgres().connect_as(&login, "orders").await.unwrap();
    let rows = session.query("SELECT item FROM public.orders", &[]).await.unwrap();
    assert_eq!(rows.len(), 3);
}
