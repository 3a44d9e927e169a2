//! What no client of good will sends.

use std::time::Duration;

use e2e::objects::text;
use e2e::operator::Operator;
use e2e::say::say;
use futures::stream::{self, StreamExt};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{TENANT, fresh, world};

#[tokio::test]
async fn bodies_that_are_too_large_too_deep_or_of_another_kind_are_refused() {
    let world = world().await;
    let admin = world.admin.as_str();
    let path = format!("/v1/secrets/{}", fresh("abuse"));
    let send = async |kind: &str, body: Vec<u8>| {
        let headers = [("Authorization", admin), ("Content-Type", kind)];
        world.send(0, "POST", &path, &headers, body).await.unwrap()
    };
    let json = "application/json";
    send(json, vec![b' '; 2 << 20]).await.fails(413, "larger than");
    let large = json!({"data": {"a": "x".repeat(70 << 10)}}).to_string().into_bytes();
    send(json, large).await.fails(413, "data is larger");
    let deep = format!("{{\"data\": {{\"a\": {}{}}}}}", "[".repeat(40), "]".repeat(40));
    send(json, deep.into_bytes()).await.fails(400, "deeper");
    let deeper = "[".repeat(100_000).into_bytes();
    send(json, deeper).await.fails(400, "must be a JSON object");
    for body in [
        "{",
        "[]",
        "null",
        "\"a\"",
        "{\"data\": 1}",
        "{\"data\": {}, \"Data\": {}}",
    ] {
        assert_eq!(send(json, body.into()).await.code, 400, "{body}");
    }
    // The seed's own example has a comma too many.
    let comma = "{\"path\": \"a\", \"data\": {},}";
    assert_eq!(send(json, comma.into()).await.code, 400);
    for kind in ["application/xml", "multipart/form-data; boundary=x", "text/html"] {
        send(kind, b"{}".to_vec()).await.fails(415, "must be JSON");
    }
    assert_eq!(
        world.get(path.trim_start_matches("/v1/")).await.code,
        404,
        "nothing of it was kept"
    );
}

#[tokio::test]
async fn paths_and_headers_carry_nothing_in() {
    let world = world().await;
    let admin = [("Authorization", world.admin.as_str())];
    for path in [
        "a%00b",
        "a%0d%0aX-Evil:%20y",
        "%2e%2e/%2e%2e/etc",
        "a'%20OR%201=1--",
        "a%22b",
        "%e2%80%aeabc",
        "%ff",
        "a%3Fb",
        "%c3%a4",
        "a;b",
        "a%5cb",
        "--",
        "a/../../x",
    ] {
        let answer = world
            .send(0, "GET", &format!("/v1/secrets/{path}"), &admin, Vec::new())
            .await
            .unwrap();
        assert_eq!(answer.code, 400, "{path}: {}", answer.text);
        assert!(!answer.text.contains("etc") && !answer.text.contains("evil"));
    }
    // A plus is a plus.
    let name = format!("{}+a@b", fresh("plus"));
    world
        .call(&format!("POST secrets/{name}"), &json!({"data": {}}))
        .await
        .is(201);
    let read = world.get(&format!("secrets/{name}")).await.is(200);
    assert_eq!(text(&read, "/path"), name);
    // Descriptions and attributes are kept as they are, and never end up in a header or a label.
    let odd = "line\r\nX-Evil: 1 \u{202e} ' \" \\ {{.}}";
    let body = json!({"data": {odd: odd}, "description": odd, "attributes": {"k": odd, "type": odd}});
    let path = format!("secrets/{}", fresh("odd"));
    let made = world.call(&format!("POST {path}"), &body).await.is(201);
    assert_eq!(
        (&made["data"][odd], text(&made, "/description")),
        (&json!(odd), odd.to_owned())
    );
    assert_eq!(world.get(&path).await.is(200), made);
}

#[tokio::test]
async fn forged_tokens_open_nothing() {
    let world = world().await;
    let parts: Vec<&str> = world.admin.split('.').collect();
    let encode = |value: &Value| data_encoding::BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let none = encode(&json!({"alg": "none", "typ": "JWT"}));
    let (head, body, signature) = (parts[0], parts[1], parts[2]);
    let claims: Value =
        serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(body.as_bytes()).unwrap()).unwrap();
    let mut other = claims.clone();
    other["sub"] = json!("users:chief");
    let mut later = claims.clone();
    later["exp"] = json!(claims["exp"].as_i64().unwrap() + 100_000);
    for token in [
        format!("{none}.{body}."),
        format!("{none}.{body}.{signature}"),
        format!("{head}.{}.{signature}", encode(&other)),
        format!("{head}.{}.{signature}", encode(&later)),
        format!("{head}.{body}.{}", "A".repeat(signature.len())),
        format!("{head}.{body}"),
        format!(
            "{}.{body}.{signature}",
            encode(&json!({"alg": "HS256", "typ": "JWT", "kid": "x"}))
        ),
        "a".repeat(4000),
        "Basic YWRtaW46YWRtaW4=".to_owned(),
    ] {
        let answer = world.at(0, &token, "GET secrets/none", &Value::Null).await;
        answer.fails(401, "unable to authenticate");
    }
}

#[tokio::test]
async fn whoever_says_nothing_is_hung_up_on_and_holds_nobody_up() {
    let world = world().await;
    let mut silent = world.connect(0).await.unwrap();
    silent
        .write_all(b"GET /v1/secrets/a HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        .await
        .unwrap();
    world.get("heartbeat").await.is(200);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_mins(2), silent.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection is still open");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_and_holds_nobody_up() {
    let world = world().await;
    let name = fresh("slow");
    let mut slow = world.connect(0).await.unwrap();
    let head = format!(
        "POST /v1/secrets/{name} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nContent-Type: application/json\r\n\
         Content-Length: 1000\r\n\r\n{{\"data\": ",
        world.admin
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    world.get("heartbeat").await.is(200);
    // A byte now and then buys no more time.
    let ended = async {
        let mut buffer = [0; 4096];
        loop {
            tokio::select! {
                read = slow.read(&mut buffer) => {
                    let count = read.unwrap_or(0);
                    return String::from_utf8_lossy(&buffer[..count]).into_owned();
                }
                () = tokio::time::sleep(Duration::from_secs(3)) => {}
            }
            if slow.write_all(b" ").await.is_err() {
                return String::new();
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_mins(2), ended).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    world.get(&format!("secrets/{name}")).await.fails(404, "unable to find");
}

#[tokio::test]
async fn what_a_replica_leaves_behind_that_dies_with_a_reader_counts_and_ends_at_its_ttl() {
    let world = world().await;
    let (pool, engine) = world.pool_with_engine().await;
    let base = world.base().await;
    let path = world.dynamic(&base, &pool, &json!({"ttl": 60, "maxLeases": 1})).await;
    let id = text(&world.get(&format!("secrets/{path}::description")).await.is(200), "/id");
    let args = ["--api-addr", "127.0.0.1:0", "--api-tenant", TENANT].map(str::to_owned);
    let third = Operator::start_another(world.stack.run(), world.stack.cluster(), "op-dies", &args)
        .await
        .unwrap();
    let address = world.address_of(&third).await;
    // It listens before it knows its tenants.
    let serves = || async {
        let mut stream = world.connect_to(address).await?;
        stream
            .write_all(b"GET /v1/heartbeat HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(answer.starts_with(b"HTTP/1.1 200").then_some(()))
    };
    let minutes = Duration::from_mins(2);
    world
        .stack
        .eventually("another replica answers", minutes, serves)
        .await
        .unwrap();
    // An engine that hangs: the reader waits for his account.
    engine.signal(Signal::SIGSTOP).unwrap();
    let mut reader = world.connect_to(address).await.unwrap();
    let request = format!(
        "GET /v1/secrets/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n",
        world.admin
    );
    reader.write_all(request.as_bytes()).await.unwrap();
    reader.flush().await.unwrap();
    let objects = world.objects().await;
    let leases = || async {
        let all = objects.list("CredentialLease", TENANT).await?;
        let of_it: Vec<Value> = all
            .into_iter()
            .filter(|lease| text(lease, "/spec/dynamicSecret") == id)
            .collect();
        anyhow::Ok(of_it)
    };
    let booked = || async { Ok(leases().await?.pop()) };
    let limit = minutes;
    let lease = world
        .stack
        .eventually("the reader's lease is there", limit, booked)
        .await
        .unwrap();
    third.kill9();
    engine.signal(Signal::SIGCONT).unwrap();
    let name = text(&lease, "/metadata/name");
    let issued = || async {
        let lease = objects.get("CredentialLease", TENANT, &name).await?;
        Ok(lease.filter(|lease| text(lease, "/status/phase") == "Issued"))
    };
    let lease = world
        .stack
        .eventually("the account comes about, though nobody has its password", limit, issued)
        .await
        .unwrap();
    world.get(&format!("secrets/{path}")).await.fails(429, "TooManyLeases");
    let user = text(&lease, "/status/username");
    let gone = || async {
        let administrator = world.stack.postgres().connect("postgres").await?;
        let query = "SELECT 1 FROM pg_roles WHERE rolname = $1";
        Ok(administrator.query(query, &[&user]).await?.is_empty().then_some(()))
    };
    world
        .stack
        .eventually("the account ends at its ttl", limit, gone)
        .await
        .unwrap();
    let again = || async {
        let answer = world.get(&format!("secrets/{path}")).await;
        Ok((answer.code == 200).then_some(()))
    };
    world.stack.eventually("its place is free", limit, again).await.unwrap();
}

/// How many secrets the tenant of this test has: some, so that it is quick. With `DSV_MANY_SECRETS=10000` it measures.
fn many() -> usize {
    let number = std::env::var("DSV_MANY_SECRETS").ok();
    number.and_then(|text| text.parse().ok()).unwrap_or(150)
}

#[tokio::test]
async fn many_secrets_are_found_by_search_and_listed_page_by_page() {
    let world = world().await;
    let (stem, count) = (fresh("many"), many());
    let made = stream::iter(0..count).map(|number| {
        let call = format!("POST secrets/{stem}/s{number:05}");
        async move {
            world
                .call(
                    &call,
                    &json!({"data": {"v": number}, "attributes": {"tier": number % 10}}),
                )
                .await
                .is(201)
        }
    });
    made.buffer_unordered(8).for_each(|_| async {}).await;
    let found = world.get(&format!("secrets?searchTerm={stem}&limit=1")).await.is(200);
    assert_eq!(found["total"], count);
    let last = format!("{stem}:s{:05}", count - 1);
    let mut took = Vec::new();
    for call in [
        format!("secrets?searchTerm={last}&search.comparison=equal"),
        format!("secrets?searchTerm={stem}&sort=asc"),
        "secrets?search.field=attributes.tier&search.type=number&searchTerm=3&limit=100".to_owned(),
        format!("secrets/{stem}::listpaths?limit=50"),
    ] {
        for _ in 0..50 {
            let start = std::time::Instant::now();
            let answer = world.get(&call).await.is(200);
            took.push(start.elapsed());
            assert!(!answer["data"].as_array().unwrap().is_empty(), "{call}");
        }
    }
    took.sort();
    say(format!(
        "{count} secrets: of {} searches and lists, each on a connection of its own, half took {:?} at most, 99 of 100 {:?}",
        took.len(),
        took[took.len() / 2],
        took[took.len() * 99 / 100]
    ));
    let (mut seen, mut cursor) = (0, String::new());
    loop {
        let page = world
            .get(&format!("secrets?searchTerm={stem}&limit=100&cursor={cursor}"))
            .await
            .is(200);
        seen += page["data"].as_array().unwrap().len();
        cursor = text(&page, "/cursor");
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(seen, count);
}
