//! Callers whom Kubernetes knows: a ServiceAccount's token gets in, and what RBAC gives is what it gets.

use std::time::Duration;

use e2e::objects::text;
use e2e::postgres::Login;
use serde_json::{Value, json};

use crate::world::{Answer, OTHER, TENANT, World, fresh, world};

const NONE: Value = Value::Null;
const DENIED: &str = "Invalid permissions";
/// Authorizers and authenticators of an API server learn of a change a moment later.
const LIMIT: Duration = Duration::from_mins(1);

/// A ServiceAccount, and its token for an audience.
struct Account<'a> {
    world: &'a World,
    name: String,
}

impl Account<'_> {
    fn make(world: &World) -> Account<'_> {
        let name = fresh("app");
        world
            .stack
            .kubectl(&["create", "serviceaccount", &name, "-n", TENANT])
            .unwrap();
        Account { world, name }
    }

    fn token(&self, audience: &str) -> String {
        let args = ["create", "token", &self.name, "-n", TENANT, "--duration", "30m"];
        let token = self
            .world
            .stack
            .kubectl(&[&args[..], &["--audience", audience]].concat());
        token.unwrap().trim().to_owned()
    }

    async fn log_in(&self, token: &str) -> Answer {
        let body = json!({"grant_type": "kubernetes", "jwt": token});
        self.world.at(1, "", "POST token", &body).await
    }

    /// Gives it a right by a role of its own; returns the name of the binding.
    fn grant(&self, verbs: &str, resource: &str) -> String {
        let name = fresh("right");
        let (verb, resource) = (format!("--verb={verbs}"), format!("--resource={resource}"));
        let account = format!("--serviceaccount={TENANT}:{}", self.name);
        let role = format!("--role={name}");
        let stack = &self.world.stack;
        stack
            .kubectl(&["create", "role", &name, "-n", TENANT, &verb, &resource])
            .unwrap();
        stack
            .kubectl(&["create", "rolebinding", &name, "-n", TENANT, &role, &account])
            .unwrap();
        name
    }

    /// The answer to a call as soon as it has that code.
    async fn until(&self, token: &str, call: &str, code: u16) -> Answer {
        let ask = || async {
            let answer = self.world.at(0, token, call, &NONE).await;
            Ok((answer.code == code).then_some(answer))
        };
        let what = format!("{call} is answered with {code}");
        self.world.stack.eventually(&what, LIMIT, ask).await.unwrap()
    }
}

#[tokio::test]
async fn a_service_account_gets_in_by_its_token_and_has_what_kubernetes_gives_it() {
    let world = world().await;
    let (pool, _engine) = world.pool_with_engine().await;
    let base = world.base().await;
    let dynamic = world.dynamic(&base, &pool, &NONE).await;
    let fixed = format!("fixed:{}", fresh("x"));
    let body = json!({"data": {"v": "seen"}});
    world.call(&format!("POST secrets/{fixed}"), &body).await.is(201);
    let (read_fixed, read_dynamic) = (format!("GET secrets/{fixed}"), format!("GET secrets/{dynamic}"));

    let account = Account::make(world);
    let granted = account.log_in(&account.token("dsv.dev")).await.is(200);
    let token = text(&granted, "/accessToken");
    let life = granted["expiresIn"].as_i64().unwrap();
    assert!(life > 0 && life <= 1800, "no longer than what it stands for: {life}");
    assert_eq!(text(&granted, "/refreshToken"), "");
    let claims = token.split('.').nth(1).unwrap();
    let claims = data_encoding::BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let subject = format!("users:kubernetes:system:serviceaccount:{TENANT}:{}", account.name);
    assert_eq!(text(&claims, "/sub"), subject);

    let call = async |call: &str, body: &Value| world.at(0, &token, call, body).await;
    for (nothing, body) in [
        (read_fixed.as_str(), NONE),
        (&read_dynamic, NONE),
        ("GET pools/none", NONE),
        ("POST pools/", json!({"name": fresh("p")})),
        ("POST secrets/new", json!({"data": {}})),
        ("GET users/admin", NONE),
        ("GET config/policies/default:admin", NONE),
        ("GET audit", NONE),
        ("GET home/mine", NONE),
        ("POST home/mine", json!({"data": {}})),
    ] {
        call(nothing, &body).await.fails(403, DENIED);
    }
    assert_eq!(call("GET secrets", &NONE).await.is(200)["total"], 0);

    // Secrets alone: no dynamic one is there for it.
    account.grant("get,list", "secrets");
    let seen = account.until(&token, &read_fixed, 200).await.is(200);
    assert_eq!(seen["data"]["v"], "seen");
    call(&read_dynamic, &NONE).await.fails(404, "unable to find");
    let term = fixed.split(':').next_back().unwrap();
    let found = call(&format!("GET secrets?searchTerm={term}"), &NONE).await.is(200);
    assert_eq!(found["total"], 1);
    let found = call(&format!("GET secrets?searchTerm={dynamic}"), &NONE).await.is(200);
    assert_eq!(found["total"], 0);
    for (write, body) in [
        (format!("PUT secrets/{fixed}"), json!({"data": {"v": 2}})),
        (format!("DELETE secrets/{fixed}?force=true"), NONE),
        (format!("POST secrets/{}", fresh("new")), json!({"data": {}})),
    ] {
        call(&write, &body).await.fails(403, DENIED);
    }

    // An account is had by whoever may make leases.
    account.grant("get", "dynamicsecrets.dsv.dev");
    let described = account
        .until(&token, &format!("{read_dynamic}::description"), 200)
        .await;
    assert_eq!(text(&described.json(), "/path"), dynamic);
    call(&read_dynamic, &NONE).await.fails(403, DENIED);
    let leases = account.grant("create", "credentialleases.dsv.dev");
    let read = account.until(&token, &read_dynamic, 200).await.is(200);
    let login = Login {
        user: text(&read, "/data/username"),
        password: text(&read, "/data/password"),
    };
    let session = world.stack.postgres().connect_as(&login, "orders").await.unwrap();
    assert_eq!(
        session.query("SELECT * FROM public.orders", &[]).await.unwrap().len(),
        3
    );
    world
        .stack
        .kubectl(&["delete", "rolebinding", &leases, "-n", TENANT])
        .unwrap();
    account.until(&token, &read_dynamic, 403).await.fails(403, DENIED);

    // Whoever is no more has nothing more.
    world
        .stack
        .kubectl(&["delete", "serviceaccount", &account.name, "-n", TENANT])
        .unwrap();
    account.until(&token, &read_fixed, 401).await;
    let lines = world.get(&format!("audit?principal={subject}&limit=1")).await.is(200);
    assert_eq!(lines["length"], 1, "its calls are in the audit stream of replica 0");
}

#[tokio::test]
async fn only_tokens_that_kubernetes_made_for_us_get_in_and_only_where_they_were_changed() {
    let world = world().await;
    let account = Account::make(world);
    let plain = r#"{"code":401,"message":"unable to authenticate"}"#;
    let good = account.token("dsv.dev");
    let parts: Vec<&str> = good.split('.').collect();
    for token in [
        account.token("https://kubernetes.default.svc.cluster.local"),
        format!("{}.{}.{}", parts[0], parts[1], "A".repeat(parts[2].len())),
        world.admin.clone(),
        "no token".to_owned(),
        "x".repeat(20_000),
    ] {
        let answer = account.log_in(&token).await;
        assert_eq!((answer.code, answer.text.as_str()), (401, plain));
    }
    let body = json!({"grant_type": "kubernetes"});
    world.at(0, "", "POST token", &body).await.fails(400, "jwt");
    // The ServiceAccount's own token is no access token, and one of ours is none of another tenant.
    world
        .at(0, &good, "GET secrets", &NONE)
        .await
        .fails(401, "unable to authenticate");
    let ours = text(&account.log_in(&good).await.is(200), "/accessToken");
    let there = [("Host", "umbrella.example.com"), ("Authorization", ours.as_str())];
    let answer = world.send(0, "GET", "/v1/secrets", &there, Vec::new()).await.unwrap();
    answer.fails(401, "unable to authenticate");
    // Rights in one namespace are none in another tenant's.
    let edit = format!("--serviceaccount={TENANT}:{}", account.name);
    let name = fresh("edit");
    world
        .stack
        .kubectl(&[
            "create",
            "rolebinding",
            &name,
            "-n",
            TENANT,
            "--clusterrole=edit",
            &edit,
        ])
        .unwrap();
    let path = format!("secrets/{}", fresh("kube"));
    let made = || async {
        let answer = world
            .at(1, &ours, &format!("POST {path}"), &json!({"data": {"v": 1}}))
            .await;
        Ok((answer.code == 201).then_some(answer))
    };
    let made = world
        .stack
        .eventually("the built-in role edit may write secrets", LIMIT, made)
        .await
        .unwrap();
    assert!(text(&made.json(), "/createdBy").starts_with("users:kubernetes:"));
    let headers = [("Host", "umbrella.example.com"), ("Content-Type", "application/json")];
    let body = json!({"grant_type": "kubernetes", "jwt": good})
        .to_string()
        .into_bytes();
    let elsewhere = world
        .send(0, "POST", "/v1/token", &headers, body)
        .await
        .unwrap()
        .is(200);
    let elsewhere = text(&elsewhere, "/accessToken");
    let there = [("Host", "umbrella.example.com"), ("Authorization", elsewhere.as_str())];
    let answer = world.send(0, "GET", "/v1/secrets/a", &there, Vec::new()).await.unwrap();
    answer.fails(403, DENIED);
    assert_ne!(TENANT, OTHER);
}
