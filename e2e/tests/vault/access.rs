//! Who gets in, and how far: tokens, policies, tenants.

use e2e::install::NAMESPACE;
use e2e::objects::text;
use serde_json::{Value, json};

use crate::world::{OTHER, TENANT, fresh, world};

const NONE: Value = Value::Null;

#[tokio::test]
async fn tokens_are_taken_bare_and_behind_bearer_and_refreshed_until_revoked() {
    let world = world().await;
    let name = fresh("user");
    let user = json!({"userName": name, "password": "long enough", "displayName": "D"});
    let made = world.call("POST users/", &user).await.is(201);
    for key in ["userName", "displayName", "provider", "externalId"] {
        assert!(made[key].is_string(), "{key}");
    }
    let granted = world.log_in(&name, "long enough").await.unwrap().is(200);
    assert_eq!(
        (text(&granted, "/tokenType"), &granted["expiresIn"]),
        ("bearer".into(), &json!(3600))
    );
    let access = text(&granted, "/accessToken");
    let parts: Vec<&str> = access.split('.').collect();
    let claims = data_encoding::BASE64URL_NOPAD.decode(parts[1].as_bytes()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((parts.len(), text(&claims, "/sub")), (3, format!("users:{name}")));
    for form in [access.clone(), format!("Bearer {access}")] {
        world
            .at(1, &form, "GET home/none", &NONE)
            .await
            .fails(404, "unable to find");
    }
    world
        .at(0, "", "GET home/none", &NONE)
        .await
        .fails(401, "unable to authenticate");
    // A form, as the vendor's description has it.
    let form = format!("grant_type=password&username={name}&password=long+enough");
    let headers = [
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Authorization", ""),
    ];
    world
        .send(1, "POST", "/v1/token", &headers, form.into_bytes())
        .await
        .unwrap()
        .is(200);
    let refresh = text(&granted, "/refreshToken");
    let body = json!({"grant_type": "refresh_token", "refresh_token": refresh});
    let again = world.at(1, "", "POST token", &body).await.is(200);
    world
        .at(0, &text(&again, "/accessToken"), "GET home/none", &NONE)
        .await
        .fails(404, "unable");
    world.at(0, "", &format!("POST revoke/{refresh}"), &NONE).await.is(204);
    world
        .at(0, "", "POST token", &body)
        .await
        .fails(401, "unable to authenticate");
    // A login that goes takes its tokens along.
    world
        .call(&format!("DELETE users/{name}?force=true"), &NONE)
        .await
        .is(204);
    let refused = || async {
        let answer = world.at(1, &access, "GET home/none", &NONE).await;
        Ok((answer.code == 401).then_some(()))
    };
    let limit = std::time::Duration::from_secs(60);
    world
        .stack
        .eventually("the token is void at the other replica", limit, refused)
        .await
        .unwrap();
}

#[tokio::test]
async fn policies_allow_deny_and_are_seen_at_once() {
    let world = world().await;
    let stem = fresh("pol");
    for path in ["open/a", "open/hidden/b", "shut/c"] {
        world
            .call(&format!("POST secrets/{stem}/{path}"), &json!({"data": {"v": 1}}))
            .await
            .is(201);
    }
    let statement = json!({"actions": ["read", "list"], "resources": [format!("secrets:{stem}:open:<.*>")]});
    let (id, secret) = world.client(&statement).await;
    let body = json!({"grant_type": "client_credentials", "client_id": id, "client_secret": secret});
    let granted = world.at(1, "", "POST token", &body).await.is(200);
    let token = text(&granted, "/accessToken");
    let call = async |call: &str, body: &Value| world.at(0, &token, &call.replace("STEM", &stem), body).await;
    call("GET secrets/STEM/open/a", &NONE).await.is(200);
    for (forbidden, body) in [
        ("GET secrets/STEM/shut/c", NONE),
        ("GET secrets/STEM/none", NONE),
        ("PUT secrets/STEM/open/a", json!({"data": {}})),
        ("DELETE secrets/STEM/open/a", NONE),
        ("POST secrets/STEM/open/new", json!({"data": {}})),
        (
            "POST users/",
            json!({"userName": "intruder", "password": "long enough"}),
        ),
        ("POST pools/", json!({"name": "intruder"})),
        ("GET audit", NONE),
        (
            "POST config/policies/",
            json!({"path": "secrets:STEM", "policy": "{\"permissionDocument\":[]}", "serialization": "json"}),
        ),
        ("GET config/policies/default:admin", NONE),
    ] {
        call(forbidden, &body).await.fails(403, "Invalid permissions");
    }
    let found = call("GET secrets?searchTerm=STEM", &NONE).await.is(200);
    assert_eq!(found["total"], 2, "only what may be listed is found");
    // By id, what is forbidden looks like what does not exist.
    let shut = text(&world.get(&format!("secrets/{stem}/shut/c")).await.is(200), "/id");
    for id in [shut.as_str(), "00000000-0000-4000-8000-000000000000"] {
        call(&format!("GET secrets/{id}"), &NONE)
            .await
            .fails(403, "Invalid permissions");
    }
    let role = world.get(&format!("clients/{id}")).await.is(200);
    assert!(role.get("clientSecret").is_none(), "a client secret is shown once");
    let subject = format!("roles:{}", text(&role, "/role"));
    let deny = json!({"permissionDocument": [{"subjects": [subject], "actions": ["<.*>"], "resources": [format!("secrets:{stem}:open:hidden:<.*>")], "effect": "deny"}]});
    let policy =
        json!({"path": format!("secrets:{stem}:open:hidden"), "policy": deny.to_string(), "serialization": "json"});
    call("GET secrets/STEM/open/hidden/b", &NONE).await.is(200);
    let made = world.call("POST config/policies/", &policy).await.is(201);
    assert_eq!(text(&made, "/permissionDocument/0/effect"), "deny");
    call("GET secrets/STEM/open/hidden/b", &NONE)
        .await
        .fails(403, "Invalid permissions");
    let path = format!("config/policies/secrets:{stem}:open:hidden");
    let elsewhere = deny.to_string().replace("hidden", "elsewhere");
    let update = json!({"policy": elsewhere, "serialization": "json"});
    world.call(&format!("PUT {path}"), &update).await.is(200);
    call("GET secrets/STEM/open/hidden/b", &NONE).await.is(200);
    world.call(&format!("PUT {path}/rollback/0"), &NONE).await.is(200);
    call("GET secrets/STEM/open/hidden/b", &NONE)
        .await
        .fails(403, "Invalid permissions");
    let all = world.get(&format!("{path}/version/3")).await.is(200);
    assert_eq!(all["data"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_group_gives_its_members_what_it_may() {
    let world = world().await;
    let (user, group) = (fresh("user"), fresh("group"));
    let body = json!({"userName": user, "password": "long enough"});
    world.call("POST users/", &body).await.is(201);
    let body = json!({"groupName": group, "members": ["nobody-like-this"]});
    let made = world.call("POST groups/", &body).await.is(201);
    assert_eq!(made["addedMemberNames"], json!([]));
    assert!(made["errors"]["nobody-like-this"].is_string());
    let document = json!({"permissionDocument": [{"subjects": [format!("groups:{group}")], "actions": ["create", "read"], "resources": [format!("secrets:{group}:<.*>")], "effect": "allow"}]});
    let policy = json!({"path": format!("secrets:{group}"), "policy": document.to_string(), "serialization": "json"});
    world.call("POST config/policies/", &policy).await.is(201);
    let token = text(
        &world.log_in(&user, "long enough").await.unwrap().is(200),
        "/accessToken",
    );
    let create = format!("POST secrets/{group}/a");
    world
        .at(0, &token, &create, &json!({"data": {}}))
        .await
        .fails(403, "Invalid permissions");
    let members = format!("groups/{group}/members");
    let body = json!({"memberNames": [user]});
    world.call(&format!("POST {members}"), &body).await.is(200);
    world.at(0, &token, &create, &json!({"data": {}})).await.is(201);
    assert_eq!(
        world.get(&format!("users/{user}/groups")).await.is(200)["groups"],
        json!([group])
    );
    world.call(&format!("DELETE {members}"), &body).await.is(204);
    world
        .at(0, &token, &format!("GET secrets/{group}/a"), &NONE)
        .await
        .fails(403, "Invalid permissions");
}

#[tokio::test]
async fn a_dynamic_secret_needs_a_right_to_the_base_secret_that_it_links() {
    let world = world().await;
    let base = world.base().await;
    let pool = fresh("pool");
    world.call("POST pools/", &json!({"name": pool})).await.is(201);
    let own = fresh("own");
    let statement = json!({"actions": ["<.*>"], "resources": [format!("secrets:{own}:<.*>")]});
    let token = world.token(&statement).await;
    let body = json!({"data": {}, "attributes": {
        "linkConfig": {"linkType": "dynamic", "linkedSecret": base},
        "grantPermissions": {"what": "ALL", "where": "*.*"}, "pool": pool, "ttl": 1000}});
    let refused = world.at(0, &token, &format!("POST secrets/{own}/deputy"), &body).await;
    refused.fails(403, "Invalid permissions");
}

#[tokio::test]
async fn a_tenant_is_opened_once_by_dsv_init_and_reaches_nobody_else() {
    let world = world().await;
    let host = [
        ("Host", "umbrella.example.com:443"),
        ("Content-Type", "application/json"),
        ("Authorization", ""),
    ];
    let other = async |call: &str, body: &Value| {
        let (method, path) = call.split_once(' ').unwrap();
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        world
            .send(0, method, &format!("/v1/{path}"), &host, bytes)
            .await
            .unwrap()
    };
    let ready = other("GET heartbeat", &NONE).await.is(200);
    assert_eq!(ready["StatusCode"], 1, "nobody opened it");
    let admin = json!({"UserName": "chief", "Password": "long enough"});
    other("POST initialize", &admin).await.fails(403, "not open");
    let objects = world.objects().await;
    let until = |text: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": "dsv.dev/internal", "metadata": {
        "name": format!("dsv-open-{OTHER}"), "namespace": NAMESPACE,
        "labels": {"app.kubernetes.io/managed-by": "dsv-operator"}, "annotations": {"dsv.dev/until": text}}})
    };
    objects.create(&until("2020-01-01T00:00:00Z")).await.unwrap();
    other("POST initialize", &admin).await.fails(403, "not open");
    objects
        .delete("Secret", NAMESPACE, &format!("dsv-open-{OTHER}"))
        .await
        .unwrap();
    objects.create(&until("2100-01-01T00:00:00Z")).await.unwrap();
    assert_eq!(other("GET heartbeat", &NONE).await.is(200)["StatusCode"], 2);
    let (one, two) = tokio::join!(other("POST initialize", &admin), other("POST initialize", &admin));
    let mut codes = [one.code, two.code];
    codes.sort_unstable();
    assert_eq!(codes, [201, 403], "it is used up once");
    other("POST initialize", &admin).await.fails(403, "not open");
    let body = json!({"grant_type": "password", "username": "chief", "password": "long enough"});
    let granted = other("POST token", &body).await.is(200);
    let foreign = text(&granted, "/accessToken");
    // Neither token opens the other tenant, by path, id or host.
    let path = format!("cross/{}", fresh("x"));
    let made = world
        .call(&format!("POST secrets/{path}"), &json!({"data": {"v": "ours"}}))
        .await
        .is(201);
    for token in [foreign.as_str(), &format!("Bearer {foreign}")] {
        world
            .at(0, token, &format!("GET secrets/{path}"), &NONE)
            .await
            .fails(401, "unable to authenticate");
    }
    let theirs = [("Host", "umbrella.example.com"), ("Authorization", foreign.as_str())];
    for target in [
        path.clone(),
        text(&made, "/id"),
        format!("{TENANT}/{path}"),
        format!("..%2f{TENANT}%2f{path}"),
    ] {
        let answer = world
            .send(0, "GET", &format!("/v1/secrets/{target}"), &theirs, Vec::new())
            .await
            .unwrap();
        assert!(
            [400, 404].contains(&answer.code) && !answer.text.contains("ours"),
            "{target}: {}",
            answer.text
        );
    }
    let ours = [
        ("Host", "umbrella.example.com"),
        ("Authorization", world.admin.as_str()),
    ];
    let answer = world
        .send(0, "GET", &format!("/v1/secrets/{path}"), &ours, Vec::new())
        .await
        .unwrap();
    answer.fails(401, "unable to authenticate");
    let forwarded = [("X-Forwarded-Host", "acme.example.com"), theirs[0], theirs[1]];
    let answer = world
        .send(0, "GET", &format!("/v1/secrets/{path}"), &forwarded, Vec::new())
        .await
        .unwrap();
    answer.fails(404, "unable to find");
}

#[tokio::test]
async fn secrets_of_others_in_the_namespace_are_out_of_reach() {
    let world = world().await;
    let (plain, marked) = (fresh("plain"), fresh("marked"));
    let secret = |name: &str, kind: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": kind,
        "metadata": {"name": name, "namespace": TENANT}, "stringData": {"key": "out-of-reach"}})
    };
    let objects = world.objects().await;
    objects.create(&secret(&plain, "Opaque")).await.unwrap();
    objects.create(&secret(&marked, "dsv.dev/secret")).await.unwrap();
    world
        .get(&format!("secrets/{plain}"))
        .await
        .fails(404, "unable to find");
    let uid = text(
        &objects.get("Secret", TENANT, &plain).await.unwrap().unwrap(),
        "/metadata/uid",
    );
    world.get(&format!("secrets/{uid}")).await.fails(404, "unable to find");
    world
        .call(&format!("DELETE secrets/{plain}?force=true"), &NONE)
        .await
        .fails(404, "unable to find");
    let shown = world.get(&format!("secrets/{marked}")).await.is(200);
    assert_eq!(
        shown["data"],
        json!({"key": "out-of-reach"}),
        "the type is the owner's consent"
    );
}

#[tokio::test]
async fn a_bootstrap_url_gives_a_client_its_secret_once() {
    let world = world().await;
    let role = fresh("role");
    world.call("POST roles/", &json!({"name": role})).await.is(201);
    let made = world
        .call("POST clients/", &json!({"role": role, "url": true, "urlTTL": 600}))
        .await
        .is(201);
    assert!(
        made.get("clientSecret").is_none(),
        "nobody has it before the URL is used"
    );
    let (id, path) = (text(&made, "/clientId"), text(&made, "/urlPath"));
    assert!(text(&made, "/url").starts_with("https://") && text(&made, "/url").ends_with(&path));
    let secret = path.rsplit('/').next().unwrap()[37..].to_owned();
    let log_in = async |secret: &str| {
        let body = json!({"grant_type": "client_credentials", "client_id": id, "client_secret": secret});
        world.at(0, "", "POST token", &body).await
    };
    // What the URL ends with is no secret of the client.
    log_in(&secret).await.fails(401, "unable to authenticate");
    let shown = world.get(&format!("clients/{id}")).await.is(200);
    assert_eq!(text(&shown, "/status"), "waiting");
    assert!(!shown.to_string().contains(&secret));
    let ask = async |replica: usize, path: &str| world.send(replica, "GET", path, &[], Vec::new()).await.unwrap();
    let wrong = format!("{}{}", &path[..path.len() - 4], "AAAA");
    ask(0, &wrong).await.fails(404, "unable to find");
    // Of two at once, at two replicas, one is first.
    let (one, two) = tokio::join!(ask(0, &path), ask(1, &path));
    let (first, second) = if one.code == 200 { (one, two) } else { (two, one) };
    let given = first.is(200);
    second.fails(400, "url has already used");
    ask(1, &path).await.fails(400, "url has already used");
    assert_eq!(text(&given, "/clientId"), id);
    log_in(&text(&given, "/clientSecret")).await.is(200);
    log_in(&secret).await.fails(401, "unable to authenticate");
    let shown = world.get(&format!("clients/{id}")).await.is(200);
    assert_eq!(text(&shown, "/status"), "used");
    for replica in 0..2 {
        let stream = std::fs::read_to_string(world.audit_file(replica)).unwrap();
        assert!(!stream.contains(&secret), "the URL is in the audit stream");
    }
    let short = world
        .call("POST clients/", &json!({"role": role, "url": true, "urlTTL": 1}))
        .await
        .is(201);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    ask(0, &text(&short, "/urlPath")).await.fails(400, "url has expired");
}
