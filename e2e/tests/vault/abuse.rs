//! What no client of good will sends.

use std::time::Duration;

use e2e::objects::text;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{fresh, world};

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
