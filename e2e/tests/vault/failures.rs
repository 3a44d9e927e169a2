//! Failures on the way to an account: the status and the words that the reader gets, and that nothing stays behind.

use e2e::objects::text;
use e2e::operator::Operator;
use serde_json::{Value, json};
use std::time::Duration;

use crate::world::{Answer, TENANT, fresh, world};

const NONE: Value = Value::Null;

/// Reads a dynamic secret and checks that the failure left no lease.
async fn read(path: &str) -> Answer {
    let world = world().await;
    let answer = world.get(&format!("secrets/{path}")).await;
    let id = text(&world.get(&format!("secrets/{path}::description")).await.is(200), "/id");
    let objects = world.objects().await;
    let none = || async {
        let all = objects.list("CredentialLease", TENANT).await?;
        let of_it = all.iter().filter(|lease| text(lease, "/spec/dynamicSecret") == id);
        let open: Vec<String> = of_it
            .filter(|lease| {
                lease.pointer("/metadata/deletionTimestamp").is_none() && text(lease, "/status/phase") != "Issued"
            })
            .map(|lease| text(lease, "/metadata/name"))
            .collect();
        anyhow::ensure!(open.is_empty(), "{open:?} are left");
        Ok(Some(()))
    };
    world
        .stack
        .eventually("the lease of a failed read is gone", Duration::from_mins(1), none)
        .await
        .unwrap();
    answer
}

#[tokio::test]
async fn failures_of_engine_and_database_reach_the_reader_with_their_status() {
    let world = world().await;
    let base = world.base().await;
    let pool = fresh("pool");
    world.call("POST pools/", &json!({"name": pool})).await.is(201);
    let path = world.dynamic(&base, &pool, &NONE).await;
    let failed = read(&path).await.fails(503, "no engine of the pool is connected");
    assert_eq!(failed["errors"]["reason"], json!(["WaitingForEngine"]));

    let (pool, _engine) = world.pool_with_engine().await;
    let limited = world.dynamic(&base, &pool, &json!({"maxLeases": 1, "ttl": 600})).await;
    read(&limited).await.is(200);
    let failed = read(&limited).await.fails(429, "TooManyLeases");
    assert_eq!(failed["errors"]["reason"], json!(["TooManyLeases"]));

    let grants = json!({"grantPermissions": {"what": "SELECT", "where": "public.nothing_like_this"}});
    let absent = world.dynamic(&base, &pool, &grants).await;
    read(&absent).await.fails(502, "ObjectMissing");

    let wrong = format!("db:{}", fresh("wrong"));
    let server = world.stack.postgres();
    let login = |port: u16, password: &str| {
        let data = json!({"host": server.host(), "port": port, "username": world.stack.issuer().user, "password": password,
                          "database": "orders", "sslmode": "verify-full", "ca.crt": server.authority()});
        json!({"attributes": {"type": "postgresql"}, "data": data, "description": ""})
    };
    let body = login(server.port(), "wrong-password-of-nobody");
    world.call(&format!("POST secrets/{wrong}"), &body).await.is(201);
    let path = world.dynamic(&wrong, &pool, &NONE).await;
    let failed = read(&path).await.fails(502, "LoginRefused");
    assert!(!failed.to_string().contains("wrong-password-of-nobody"));

    let nowhere = format!("db:{}", fresh("closed"));
    world
        .call(&format!("POST secrets/{nowhere}"), &login(1, "x"))
        .await
        .is(201);
    let path = world.dynamic(&nowhere, &pool, &NONE).await;
    read(&path).await.fails(502, "DatabaseUnreachable");

    // A resource of the other modes delivers by itself.
    let id = text(
        &world.get(&format!("secrets/{limited}::description")).await.is(200),
        "/id",
    );
    let change = json!({"spec": {"suspend": true}});
    world
        .objects()
        .await
        .merge("DynamicSecret", TENANT, &id, &change)
        .await
        .unwrap();
    read(&limited).await.fails(409, "Suspended");
}

#[tokio::test]
async fn a_reader_who_goes_away_leaves_no_lease() {
    let world = world().await;
    let (base, pool) = (world.base().await, fresh("pool"));
    world.call("POST pools/", &json!({"name": pool})).await.is(201);
    let path = world.dynamic(&base, &pool, &NONE).await;
    let id = text(&world.get(&format!("secrets/{path}::description")).await.is(200), "/id");
    let objects = world.objects().await;
    let count = async || {
        let all = objects.list("CredentialLease", TENANT).await.unwrap();
        all.iter()
            .filter(|lease| text(lease, "/spec/dynamicSecret") == id)
            .count()
    };
    let target = format!("secrets/{path}");
    tokio::select! {
        answer = world.get(&target) => panic!("without an engine nobody is answered that soon: {answer:?}"),
        () = async { while count().await == 0 { tokio::time::sleep(Duration::from_millis(20)).await; } } => {}
    }
    // The reader is gone with his connection.
    let gone = || async { Ok((count().await == 0).then_some(())) };
    world
        .stack
        .eventually("the lease is deleted", Duration::from_mins(1), gone)
        .await
        .unwrap();
}

#[tokio::test]
async fn where_the_audit_file_takes_nothing_calls_are_refused() {
    let world = world().await;
    // A file system without room, as Linux keeps one for tests.
    let args = [
        "--api-addr",
        "127.0.0.1:0",
        "--api-tenant",
        TENANT,
        "--api-audit-file",
        "/dev/full",
    ];
    let args = args.map(str::to_owned);
    let (run, cluster) = (world.stack.run(), world.stack.cluster());
    let full = Operator::start_another(run, cluster, "op-full", &args).await.unwrap();
    let address = world.address_of(&full).await;
    let headers = [
        ("Authorization", world.admin.as_str()),
        ("Content-Type", "application/json"),
    ];
    let ask = async |call: (&str, &str), body: &str| {
        let answer = world.send_to(address, call, &headers, body.into()).await;
        answer.unwrap()
    };
    // The first call that is answered finds it out; before that its caches are filled.
    let answers = || async {
        let answer = ask(("GET", "/v1/heartbeat"), "").await;
        Ok((!answer.text.contains("is starting")).then_some(()))
    };
    let what = "the other replica answers";
    world
        .stack
        .eventually(what, Duration::from_mins(1), answers)
        .await
        .unwrap();
    let path = fresh("unwritten");
    let target = format!("/v1/secrets/{path}");
    let refused = "could not be written to the audit file";
    for (call, body) in [
        (("POST", target.as_str()), r#"{"data": {"a": 1}}"#),
        (("GET", "/v1/pools"), ""),
        (
            ("POST", "/v1/token"),
            r#"{"grant_type": "password", "username": "a", "password": "b"}"#,
        ),
    ] {
        ask(call, body).await.fails(503, refused);
    }
    world.get(&format!("secrets/{path}")).await.fails(404, "unable to find");
}
