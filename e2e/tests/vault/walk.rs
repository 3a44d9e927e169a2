//! The walk through the reference by HTTP alone: pool, engine, base secret, dynamic secret, read, log in, end.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::objects::text;
use e2e::postgres::Login;
use serde_json::{Value, json};

use crate::world::{TENANT, fresh, world};

#[tokio::test]
async fn an_account_is_had_by_http_alone_and_ends_with_its_ttl() {
    let world = world().await;
    let (pool, engine) = world.pool_with_engine().await;
    let base = world.base().await;
    let path = world
        .dynamic(&base, &pool, &json!({"ttl": 30, "userPrefix": "walk_"}))
        .await;

    let read = world
        .read(&format!("secrets/{}?edit=false", path.replace(':', "/")))
        .await;
    assert_eq!(
        (text(&read, "/path"), text(&read, "/version")),
        (path.clone(), "0".into())
    );
    let data = read["data"].as_object().unwrap();
    assert!(data.values().all(Value::is_string), "{:?}", data.keys());
    let keys: Vec<&String> = data.keys().collect();
    assert_eq!(
        keys,
        [
            "database",
            "expiresAt",
            "host",
            "password",
            "port",
            "ttl",
            "uri",
            "username"
        ]
    );
    let login = Login {
        user: text(&read, "/data/username"),
        password: text(&read, "/data/password"),
    };
    assert!(login.user.starts_with("walk_"), "{}", login.user);
    let session = world.stack.postgres().connect_as(&login, "orders").await.unwrap();
    assert_eq!(
        session.query("SELECT * FROM public.orders", &[]).await.unwrap().len(),
        3
    );
    assert!(
        session.query("SELECT * FROM public.invoices", &[]).await.is_err(),
        "nothing else is granted"
    );

    // Each read makes another account, and reads that are not meant to make one do not.
    let other = world.read(&format!("secrets/{path}")).await;
    assert_ne!(text(&other, "/data/username"), login.user);
    // Others read other secrets meanwhile, and leases end.
    let leases = || async {
        let all = world.objects().await.list("CredentialLease", TENANT).await.unwrap();
        let ours = all
            .iter()
            .filter(|lease| text(lease, "/spec/dynamicSecret") == text(&other, "/id"));
        ours.map(|lease| text(lease, "/metadata/uid")).collect::<BTreeSet<_>>()
    };
    let before = leases().await;
    for quiet in [
        format!("secrets/{path}::description"),
        format!("secrets/{path}?edit=true"),
        format!("secrets/{path}/version/2"),
        format!("secrets?searchTerm={path}"),
        "secrets/db::listpaths".to_owned(),
    ] {
        let answer = world.get(&quiet).await.is(200);
        assert!(!answer.to_string().contains("password"), "{quiet}: {answer}");
    }
    assert!(!before.is_empty() && leases().await.is_subset(&before));

    let administrator = world.stack.postgres().connect("postgres").await.unwrap();
    let gone = || async {
        let query = "SELECT 1 FROM pg_roles WHERE rolname = $1";
        Ok(administrator
            .query(query, &[&login.user])
            .await?
            .is_empty()
            .then_some(()))
    };
    let limit = Duration::from_mins(2);
    world
        .stack
        .eventually("the account ends with its ttl", limit, gone)
        .await
        .unwrap();
    assert!(world.stack.postgres().connect_as(&login, "orders").await.is_err());
    drop(engine);
}

#[tokio::test]
async fn a_secret_is_written_read_and_found_by_path_and_by_id() {
    let world = world().await;
    let name = fresh("server");
    let body = json!({"Data": {"user": "a", "port": 22, "deep": {"list": [1, true, null]}}, "Description": "d", "Attributes": {"tag": "x"}, "Overwrite": false});
    let made = world
        .call(&format!("POST secrets/servers/us-east/{name}"), &body)
        .await
        .is(201);
    assert_eq!(text(&made, "/path"), format!("servers:us-east:{name}"));
    assert_eq!(
        (text(&made, "/version"), text(&made, "/createdBy")),
        ("0".into(), "users:admin".into())
    );
    let id = text(&made, "/id");
    assert_eq!(id.len(), 36);
    for path in [
        format!("servers/us-east/{name}"),
        format!("servers:us-east:{name}"),
        id.clone(),
    ] {
        let read = world.get(&format!("secrets/{path}?edit=false")).await.is(200);
        assert_eq!(read, made, "{path}");
    }
    assert_eq!(world.get(&format!("secrets?id={id}")).await.is(200), made);
    let time = text(&made, "/created");
    assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
}

#[tokio::test]
async fn repeated_reads_of_one_caller_share_an_account_where_the_secret_asks_for_it() {
    let world = world().await;
    let (pool, _engine) = world.pool_with_engine().await;
    let base = world.base().await;
    let path = world
        .dynamic(&base, &pool, &json!({"shareFor": 600, "ttl": 1200}))
        .await;
    let call = format!("secrets/{path}");
    let user = |read: &Value| text(read, "/data/username");
    let first = world.read(&call).await;
    let again = world.read(&call).await;
    for key in ["username", "password", "uri", "expiresAt"] {
        assert_eq!(first["data"][key], again["data"][key], "{key}");
    }
    let ttl = |read: &Value| text(read, "/data/ttl").parse::<i64>().unwrap();
    assert!(ttl(&again) <= ttl(&first));
    let login = Login {
        user: user(&again),
        password: text(&again, "/data/password"),
    };
    world.stack.postgres().connect_as(&login, "orders").await.unwrap();
    // Two at once that find nothing make one.
    let both = world
        .dynamic(&base, &pool, &json!({"shareFor": 600, "ttl": 1200}))
        .await;
    let both = format!("secrets/{both}");
    let (one, two) = tokio::join!(world.read(&both), world.read(&both));
    assert_eq!(user(&one), user(&two));
    // Somebody else has his own, and so has a reader of another replica: no password goes from one to the other.
    let statement = json!({"actions": ["read"], "resources": [format!("secrets:{path}")]});
    let token = world.token(&statement).await;
    let other = world.at(0, &token, &format!("GET {call}"), &Value::Null).await.is(200);
    assert_ne!(user(&other), user(&first));
    let elsewhere = world
        .at(1, &world.admin, &format!("GET {call}"), &Value::Null)
        .await
        .is(200);
    assert_ne!(user(&elsewhere), user(&first));
    // An account that was ended is nobody's any more.
    let objects = world.objects().await;
    let leases = objects.list("CredentialLease", TENANT).await.unwrap();
    let lease = leases
        .iter()
        .find(|lease| text(lease, "/status/username") == user(&first));
    let name = text(lease.unwrap(), "/metadata/name");
    objects.delete("CredentialLease", TENANT, &name).await.unwrap();
    assert_ne!(user(&world.read(&call).await), user(&first));
    for wrong in [json!(0), json!("soon")] {
        let body = json!({"attributes": {
            "grantPermissions": {"what": "SELECT", "where": "public.orders"}, "pool": pool, "ttl": 1000, "shareFor": wrong,
            "linkConfig": {"linkType": "dynamic", "linkedSecret": base}}});
        let refused = world.call(&format!("POST secrets/{}", fresh("wrong")), &body).await;
        refused.fails(400, "attributes.shareFor");
    }
}
