//! The OpenAPI document is what is served: every call in it is answered, and answers have the fields that it says.

use std::collections::BTreeSet;

use e2e::objects::text;
use e2e::places;
use serde_json::{Value, json};

use crate::world::{Answer, fresh, world};

const NONE: Value = Value::Null;

/// The document as a browser gets it, without a token.
async fn document() -> Value {
    let world = world().await;
    let answer = world.send(0, "GET", "/openapi.json", &[], Vec::new()).await.unwrap();
    answer.is(200)
}

#[tokio::test]
async fn every_call_of_the_document_is_served_and_it_is_the_committed_one() {
    let world = world().await;
    let document = document().await;
    let committed = std::fs::read_to_string(places::workspace().join("docs/openapi.json")).unwrap();
    let committed: Value = serde_json::from_str(&committed).unwrap();
    assert_eq!(document, committed, "run `make crds` and commit the result");
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let mut target = path.replace("{count}", "1").replace("{version}", "0");
            for name in ["path", "prefix", "name", "id", "refreshToken"] {
                // A number where numbers are.
                let value = if path.starts_with("/api/") {
                    "1"
                } else {
                    "none-like-this"
                };
                target = target.replace(&format!("{{{name}}}"), value);
            }
            assert!(!target.contains('{'), "{target}");
            let headers = [
                ("Authorization", world.admin.as_str()),
                ("Content-Type", "application/json"),
            ];
            let answer = world
                .send(0, &method.to_uppercase(), &target, &headers, Vec::new())
                .await
                .unwrap();
            let said = answer.text.as_str();
            assert!(
                !([405, 500, 501].contains(&answer.code)
                    || path.starts_with("/api/") && said.contains("unable to find item")),
                "{method} {path}: {} {said}",
                answer.code
            );
            asked += 1;
        }
    }
    assert!(asked > 70, "{asked}");
    let page = world.send(0, "GET", "/docs", &[], Vec::new()).await.unwrap();
    assert!(
        page.code == 200 && page.text.contains("/v1/secrets/{path}"),
        "{}",
        page.text
    );
    let looks = world.send(0, "GET", "/docs.css", &[], Vec::new()).await.unwrap();
    assert_eq!(looks.code, 200);
    // What is in no row is not answered.
    for (call, code) in [
        ("PATCH secrets/a", 405),
        ("PUT pools/a", 405),
        ("GET nothing/here", 404),
        ("GET config/policiesX", 501),
    ] {
        assert_eq!(world.call(call, &NONE).await.code, code, "{call}");
    }
}

/// Holds an answer against the shape that the document gives it.
fn holds(document: &Value, call: &str, answer: &Answer) {
    let (method, path) = call.split_once(' ').unwrap();
    let code = answer.code.to_string();
    let body = answer.json();
    let at = |segments: &[&str]| segments.iter().fold(document, |value, key| &value[*key]).clone();
    let reply = at(&["paths", path, &method.to_lowercase(), "responses", &code]);
    assert!(!reply.is_null(), "{call} is not said to answer {code}: {body}");
    let name = text(&reply, "/content/application~1json/schema/$ref");
    check(document, &name, &body, call);
}

fn check(document: &Value, reference: &str, body: &Value, call: &str) {
    let name = reference.rsplit('/').next().unwrap();
    let shape = &document["components"]["schemas"][name];
    let known: BTreeSet<&String> = shape["properties"].as_object().unwrap().keys().collect();
    let has: BTreeSet<&String> = body
        .as_object()
        .unwrap_or_else(|| panic!("{call}: {body}"))
        .keys()
        .collect();
    let more: Vec<_> = has.difference(&known).collect();
    assert!(more.is_empty(), "{call}: {name} has no {more:?}");
    for field in shape["required"].as_array().into_iter().flatten() {
        assert!(
            body.get(field.as_str().unwrap()).is_some(),
            "{call}: no {field} in {body}"
        );
    }
    for (field, property) in shape["properties"].as_object().unwrap() {
        let inner = property.pointer("/items/$ref").and_then(Value::as_str);
        if let (Some(inner), Some(items)) = (inner, body.get(field).and_then(Value::as_array)) {
            for item in items {
                check(document, inner, item, call);
            }
        }
    }
}

#[tokio::test]
async fn answers_have_the_fields_that_the_document_says() {
    let world = world().await;
    let document = document().await;
    let (path, name) = (format!("shapes:{}", fresh("s")), fresh("shape"));
    let policy = json!({"permissionDocument": [{"subjects": ["users:x"], "actions": ["read"], "effect": "allow"}]});
    let policy = json!({"path": format!("secrets:{name}"), "policy": policy.to_string(), "serialization": "json"});
    let rows: Vec<(&str, String, Value)> = vec![
        (
            "POST /v1/secrets/{path}",
            format!("secrets/{path}"),
            json!({"data": {"a": 1}}),
        ),
        ("GET /v1/secrets/{path}", format!("secrets/{path}"), NONE),
        (
            "GET /v1/secrets/{path}::description",
            format!("secrets/{path}::description"),
            NONE,
        ),
        (
            "GET /v1/secrets/{path}/version/{count}",
            format!("secrets/{path}/version/2"),
            NONE,
        ),
        (
            "PUT /v1/secrets/{path}",
            format!("secrets/{path}"),
            json!({"data": {"b": 1}}),
        ),
        (
            "PUT /v1/secrets/{path}/rollback/{version}",
            format!("secrets/{path}/rollback/0"),
            NONE,
        ),
        ("GET /v1/secrets", "secrets?searchTerm=shapes".into(), NONE),
        (
            "GET /v1/secrets/{prefix}::listpaths",
            "secrets/shapes::listpaths".into(),
            NONE,
        ),
        ("DELETE /v1/secrets/{path}", format!("secrets/{path}"), NONE),
        (
            "POST /v1/home/{path}",
            format!("home/{name}"),
            json!({"data": {"a": 1}}),
        ),
        ("GET /v1/home", "home".into(), NONE),
        ("POST /v1/pools", "pools/".into(), json!({"name": name})),
        ("GET /v1/pools", "pools?limit=2".into(), NONE),
        (
            "POST /v1/engines",
            "engines/".into(),
            json!({"name": name, "poolName": name}),
        ),
        ("GET /v1/engines/{name}", format!("engines/{name}"), NONE),
        ("GET /v1/engines", "engines".into(), NONE),
        (
            "POST /v1/users",
            "users/".into(),
            json!({"userName": name, "password": "long enough"}),
        ),
        ("GET /v1/users", "users".into(), NONE),
        (
            "GET /v1/users/{name}/version/{count}",
            format!("users/{name}/version/1"),
            NONE,
        ),
        (
            "PUT /v1/users/{name}",
            format!("users/{name}"),
            json!({"displayName": "D"}),
        ),
        ("GET /v1/users/{name}/groups", format!("users/{name}/groups"), NONE),
        ("POST /v1/roles", "roles/".into(), json!({"name": name})),
        (
            "PUT /v1/roles/{name}",
            format!("roles/{name}"),
            json!({"description": "d"}),
        ),
        ("GET /v1/roles", "roles".into(), NONE),
        ("POST /v1/clients", "clients/".into(), json!({"role": name, "ttl": 600})),
        ("GET /v1/clients", "clients".into(), NONE),
        (
            "POST /v1/groups",
            "groups/".into(),
            json!({"groupName": name, "members": [name, "nobody"]}),
        ),
        (
            "POST /v1/groups/{name}/members",
            format!("groups/{name}/members"),
            json!({"memberNames": [name]}),
        ),
        ("GET /v1/groups", "groups".into(), NONE),
        ("POST /v1/config/policies", "config/policies/".into(), policy),
        ("GET /v1/config/policies", "config/policies".into(), NONE),
        ("GET /v1/config", "config".into(), NONE),
        ("GET /v1/audit", "audit?limit=5".into(), NONE),
        ("GET /v1/usage", "usage".into(), NONE),
        ("GET /v1/heartbeat", "heartbeat".into(), NONE),
        (
            "POST /v1/token",
            "token".into(),
            json!({"grant_type": "password", "username": name, "password": "long enough"}),
        ),
    ];
    for (row, target, body) in rows {
        let method = row.split_once(' ').unwrap().0;
        let answer = world.call(&format!("{method} {target}"), &body).await;
        holds(&document, row, &answer);
    }
    let refused = world.get("pools/none-like-this").await.is(404);
    check(&document, "Error", &refused, "an error");
}
