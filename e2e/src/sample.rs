//! The sample a person plays with and the scenarios start from: a database `orders`, its base secret and its pool.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::postgres::{Login, Server, Tls, random_password};

/// Namespace of base secrets and pools.
pub const DATABASES: &str = "databases";
/// Name of the sample's database and pool.
pub const ORDERS: &str = "orders";
/// Name of the sample's base secret.
pub const BASE_SECRET: &str = "orders-db";
/// The administrative login of the sample.
pub const ISSUER: &str = "dsv_issuer";

const TABLES: &str = "
    CREATE TABLE public.orders (id serial PRIMARY KEY, item text NOT NULL);
    INSERT INTO public.orders (item) VALUES ('tea'), ('coffee'), ('cocoa');
    CREATE TABLE public.invoices (id serial PRIMARY KEY, order_id int REFERENCES public.orders, cents int NOT NULL);
    INSERT INTO public.invoices (order_id, cents) VALUES (1, 350), (2, 420);";

/// Database, tables and an issuer that may grant rights on them; returns the issuer.
pub async fn fill(server: &Server) -> Result<Login> {
    let issuer = server.create_issuer(ISSUER, &random_password()).await?;
    add(server, &issuer, ORDERS).await?;
    Ok(issuer)
}

/// One more database with the sample's tables, on which the issuer may grant rights.
pub async fn add(server: &Server, issuer: &Login, database: &str) -> Result<()> {
    server.create_database(database).await?;
    let client = server.connect(database).await?;
    client.batch_execute(TABLES).await?;
    let issuer = &issuer.user;
    let rights = format!(
        "GRANT ALL ON DATABASE {database} TO {issuer} WITH GRANT OPTION;
         GRANT ALL ON SCHEMA public TO {issuer} WITH GRANT OPTION;
         GRANT ALL ON ALL TABLES IN SCHEMA public TO {issuer} WITH GRANT OPTION;
         GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {issuer} WITH GRANT OPTION;"
    );
    client
        .batch_execute(&rights)
        .await
        .context("cannot give the issuer its rights")
}

/// The base secret of `server`.
pub fn base_secret(namespace: &str, name: &str, server: &Server, issuer: &Login, database: &str) -> Value {
    let tls = server.tls() != Tls::Off;
    let mut data = BTreeMap::from([
        ("host", server.host().to_owned()),
        ("port", server.port().to_string()),
        ("username", issuer.user.clone()),
        ("password", issuer.password.clone()),
        ("database", database.to_owned()),
        ("sslmode", if tls { "verify-full" } else { "disable" }.to_owned()),
    ]);
    if tls {
        data.insert("ca.crt", server.authority().to_owned());
    }
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {"dsv.dev/type": "postgresql"}},
        "stringData": data,
    })
}

/// The pool `orders`, open for namespaces labelled `team=shop`. Without `replicas` it has remote engines only.
pub fn pool(namespace: &str, replicas: Option<u32>) -> Value {
    let mut spec = BTreeMap::from([(
        "access",
        json!([{
            "namespaceSelector": {"matchLabels": {"team": "shop"}},
            "linkedSecrets": [BASE_SECRET],
            "grants": [{"what": "SELECT, INSERT, UPDATE, DELETE", "where": "orders.public.*"}],
            "userPrefixes": ["shop_", ""],
            "maxTtl": "24h",
            "maxLeases": 100,
        }]),
    )]);
    if let Some(replicas) = replicas {
        spec.insert("engines", json!({"replicas": replicas}));
    }
    json!({
        "apiVersion": "dsv.dev/v1alpha1",
        "kind": "EnginePool",
        "metadata": {"name": ORDERS, "namespace": namespace},
        "spec": spec,
    })
}

/// A namespace, with labels.
pub fn namespace(name: &str, labels: &BTreeMap<&str, &str>) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// Several objects as one manifest.
pub fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}
