//! The stock Python SDK, from the package index, against our server: token, secret, dynamic secret, and a login with it.

use std::fs;
use std::process::Command;

use e2e::programs;
use serde_json::json;

use crate::world::{fresh, world};

const SCRIPT: &str = r#"
import os, sys
import psycopg
from delinea.secrets.vault import PasswordGrantAuthorizer, SecretsVault, SecretsVaultAccessError, VaultSecret
from delinea.secrets.vault import SecretsVaultError

url = os.environ["URL"]
vault = SecretsVault(url, PasswordGrantAuthorizer(url, os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"]))

secret = VaultSecret(**vault.get_secret(os.environ["STATIC"]))
assert len(secret.id) == 36, secret.id
assert secret.data == {"password": os.environ["VALUE"]}, "another value"
assert secret.version == "0" and secret.created.year >= 2026

dynamic = VaultSecret(**vault.get_secret(os.environ["DYNAMIC"]))
data = dynamic.data
with psycopg.connect(host=data["host"], port=data["port"], dbname=data["database"], user=data["username"],
                     password=data["password"], sslmode="require") as connection:
    rows = connection.execute("SELECT item FROM public.orders").fetchall()
print(f"{len(rows)} rows as {data['username']}")

for path, word in [("/forbidden/one", "Invalid permissions"), ("/sdk/none", "unable to find item")]:
    try:
        vault.get_secret(path)
        sys.exit(f"{path} was given")
    except SecretsVaultAccessError as error:
        assert word in str(error.message), error.message

try:
    PasswordGrantAuthorizer(url, os.environ["CLIENT_ID"], "wrong").get_access_token()
    sys.exit("a wrong secret was taken")
except SecretsVaultAccessError as error:
    assert error.message == "unable to authenticate", error.message
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_python_sdk_reads_secrets_and_psycopg_logs_in_with_one() {
    let python = tokio::task::spawn_blocking(programs::python_sdk)
        .await
        .unwrap()
        .unwrap();
    let world = world().await;
    let (pool, _engine) = world.pool_with_engine().await;
    let base = world.base().await;
    let dynamic = world.dynamic(&base, &pool, &json!({})).await;
    let (path, value) = (format!("sdk:{}", fresh("static")), fresh("value"));
    let body = json!({"data": {"password": value}, "attributes": null, "description": ""});
    world.call(&format!("POST secrets/{path}"), &body).await.is(201);
    let statement = json!({"actions": ["read"], "resources": ["secrets:sdk:<.*>", format!("secrets:{dynamic}")]});
    let (id, secret) = world.client(&statement).await;

    let folder = world.stack.run().subfolder("python").unwrap();
    let (script, authority) = (folder.join("sdk.py"), folder.join("ca.pem"));
    fs::write(&script, SCRIPT).unwrap();
    fs::write(&authority, &world.authority).unwrap();
    let url = world.url();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(python)
            .arg(script)
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy")
            .env("REQUESTS_CA_BUNDLE", &authority)
            .env("URL", url)
            .env("CLIENT_ID", id)
            .env("CLIENT_SECRET", secret)
            .env("STATIC", format!("/{}", path.replace(':', "/")))
            .env("DYNAMIC", format!("/{}", dynamic.replace(':', "/")))
            .env("VALUE", value)
            .output()
            .unwrap()
    });
    let output = output.await.unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.starts_with("3 rows as "), "{said}");
}
