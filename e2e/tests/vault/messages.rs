//! The sentences that stock clients and their tests look for, each as a row.

use dsv::api::names::object_name;
use e2e::objects::text;
use serde_json::{Value, json};

use crate::world::{TENANT, fresh, world};

const NOT_FOUND: &str = "unable to find item with specified identifier";
const MARKED: &str = "marked for deletion and will be removed in about 72 hours";
const NONE: Value = Value::Null;

#[tokio::test]
async fn unknown_things_are_told_with_one_sentence() {
    let world = world().await;
    for path in [
        "secrets/none/here",
        "secrets/none:here::description",
        "secrets/00000000-0000-4000-8000-000000000000",
        "pools/none",
        "engines/none",
        "roles/none",
        "users/none",
        "groups/none",
        "clients/none",
        "config/policies/secrets:none",
        "nothing/like/that",
    ] {
        world.get(path).await.fails(404, NOT_FOUND);
    }
    for call in [
        "DELETE pools/none?force=true",
        "DELETE engines/none",
        "POST engines/none/ping",
        "DELETE roles/none",
    ] {
        world.call(call, &NONE).await.fails(404, NOT_FOUND);
    }
    world
        .call("PUT secrets/none:here/restore", &NONE)
        .await
        .fails(404, NOT_FOUND);
}

#[tokio::test]
async fn names_that_are_taken_and_things_that_are_missing_are_told() {
    let world = world().await;
    let engine = json!({"name": fresh("e"), "poolName": "nowhere"});
    world
        .call("POST engines/", &engine)
        .await
        .fails(400, "specified pool doesn't exist");
    let path = format!("POST secrets/{}", fresh("taken"));
    let body = json!({"Data": {"a": 1}, "Description": "", "Attributes": {}, "Overwrite": false});
    world.call(&path, &body).await.is(201);
    let message = "error creating secret, secret at path already exists";
    world.call(&path, &body).await.fails(400, message);
    let taken = "a security principal with this name already exists";
    for (call, body) in [
        (
            "POST users/",
            json!({"userName": fresh("user"), "password": "long enough"}),
        ),
        ("POST roles/", json!({"name": fresh("role"), "description": ""})),
        ("POST groups/", json!({"groupName": fresh("group"), "members": []})),
    ] {
        world.call(call, &body).await.is(201);
        world.call(call, &body).await.fails(400, taken);
    }
    let user = |more: Value| {
        let mut body = json!({"userName": fresh("user"), "password": "long enough"});
        body["externalId"] = more["externalId"].clone();
        body["provider"] = more["provider"].clone();
        body
    };
    let without = user(json!({"externalId": "x"}));
    world
        .call("POST users/", &without)
        .await
        .fails(400, "provider is required");
    let unknown = user(json!({"externalId": "x", "provider": "none"}));
    let message = "unable to find authentication provider";
    world.call("POST users/", &unknown).await.fails(400, message);
    let client = json!({"role": fresh("none")});
    world.call("POST clients/", &client).await.fails(400, NOT_FOUND);
}

#[tokio::test]
async fn a_failed_login_is_one_compact_line_and_too_many_lock_it() {
    let world = world().await;
    let name = fresh("user");
    let user = json!({"userName": name, "password": "long enough"});
    world.call("POST users/", &user).await.is(201);
    let plain = r#"{"code":401,"message":"unable to authenticate"}"#;
    for (user, password) in [("nobody", "wrong password"), (name.as_str(), "wrong password")] {
        let answer = world.log_in(user, password).await.unwrap();
        assert_eq!((answer.code, answer.text.as_str()), (401, plain));
    }
    let body = json!({"grant_type": "client_credentials", "client_id": "a", "client_secret": "b"});
    let answer = world.at(0, "", "POST token", &body).await;
    assert_eq!((answer.code, answer.text.as_str()), (401, plain));
    world.log_in(&name, "long enough").await.unwrap().is(200);
    for _ in 0..5 {
        world.log_in(&name, "wrong password").await.unwrap();
    }
    world
        .log_in(&name, "long enough")
        .await
        .unwrap()
        .fails(401, "locked out");
    let body = json!({"password": "another one"});
    world.call(&format!("PUT users/{name}"), &body).await.is(200);
    world.log_in(&name, "another one").await.unwrap().is(200);
}

#[tokio::test]
async fn soft_deletion_is_told_can_be_taken_back_and_keeps_the_version() {
    let world = world().await;
    let name = fresh("soft");
    let policy = json!({"permissionDocument": [{"subjects": ["users:x"], "actions": ["read"], "effect": "allow", "resources": null, "conditions": null}]});
    let policy = json!({"path": format!("secrets:{name}"), "policy": policy.to_string(), "serialization": "json"});
    for (make, one, body) in [
        (
            "secrets/PATH",
            "secrets/PATH",
            json!({"data": {"a": 1}, "description": "", "attributes": null}),
        ),
        (
            "users/",
            "users/PATH",
            json!({"userName": name, "password": "long enough"}),
        ),
        ("roles/", "roles/PATH", json!({"name": name})),
        ("groups/", "groups/PATH", json!({"groupName": name})),
        ("config/policies/", "config/policies/secrets:PATH", policy),
        ("home/PATH", "home/PATH", json!({"data": {"a": 1}})),
    ] {
        let (make, one) = (make.replace("PATH", &name), one.replace("PATH", &name));
        world.call(&format!("POST {make}"), &body).await.is(201);
        let before = world.get(&one).await.is(200);
        let gone = world.call(&format!("DELETE {one}?force=false"), &NONE).await.is(200);
        assert!(text(&gone, "/message").ends_with(MARKED), "{gone}");
        world.get(&one).await.fails(400, MARKED);
        world
            .call(&format!("DELETE {one}?force=false"), &NONE)
            .await
            .fails(400, MARKED);
        assert!(
            world.call(&format!("POST {make}"), &body).await.code == 400,
            "{one}: the name stays taken"
        );
        world.call(&format!("PUT {one}/restore"), &NONE).await.is(204);
        assert_eq!(world.get(&one).await.is(200), before, "{one}");
        assert_eq!(
            world.call(&format!("DELETE {one}?force=true"), &NONE).await.is(204),
            NONE
        );
        world.get(&one).await.fails(404, NOT_FOUND);
        world.call(&format!("POST {make}"), &body).await.is(201);
    }
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let world = world().await;
    for call in [
        "GET config/siem",
        "POST config/siem",
        "GET config/auth/x",
        "POST config/auth/",
        "PUT config/keys",
        "PUT config",
        "GET config/version/2",
        "POST pki/root",
        "POST crypto/key",
        "GET breakglass",
        "POST report/query",
        "GET task/status/00000000-0000-4000-8000-000000000000",
    ] {
        world.call(call, &NONE).await.fails(501, "not served");
    }
    for call in ["POST certificate/auth", "POST oidc/auth"] {
        world.at(0, "", call, &NONE).await.fails(501, "not served");
    }
    for grant in ["certificate", "oidc", "aws_iam", "azure", "gcp"] {
        let body = json!({"grant_type": grant});
        world.at(0, "", "POST token", &body).await.fails(501, "not served");
    }
}

#[tokio::test]
async fn base_and_dynamic_secrets_are_checked_when_they_are_written() {
    let world = world().await;
    let post = async |body: Value| world.call(&format!("POST secrets/db/{}", fresh("x")), &body).await;
    let base = json!({"attributes": {"type": "postgresql"}, "data": {"port": "many", "username": ""}});
    let refused = post(base).await.fails(400, "data.host");
    let fields: Vec<&String> = refused["errors"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["data.host", "data.password", "data.port", "data.username"]);
    for kind in ["mysql", "mssql", "oracle", "aws", "azure", "gcp"] {
        let body = json!({"attributes": {"type": kind}, "data": {}});
        post(body).await.fails(400, &format!("type {kind} is not supported"));
    }
    let dynamic = json!({"attributes": {"linkConfig": {}}, "data": {}});
    let refused = post(dynamic).await.fails(400, "attributes.pool");
    assert_eq!(refused["errors"].as_object().unwrap().len(), 6, "{refused}");
    let (root, pool) = (world.base().await, fresh("pool"));
    let attributes = json!({
        "linkConfig": {"linkType": "dynamic", "linkedSecret": root},
        "grantPermissions": {"what": "SELECT", "where": "*.*"},
        "pool": pool,
        "ttl": 1000,
    });
    let with = |change: Value| {
        let mut attributes = attributes.clone();
        for (key, value) in change.as_object().unwrap() {
            attributes[key] = value.clone();
        }
        json!({"attributes": attributes, "data": {}})
    };
    post(with(json!({}))).await.fails(400, "specified pool doesn't exist");
    world.call("POST pools/", &json!({"name": pool})).await.is(201);
    post(with(json!({"ttl": 9})))
        .await
        .fails(400, "must be at least 10 seconds");
    let link = json!({"linkConfig": {"linkType": "dynamic", "linkedSecret": "db:none"}});
    post(with(link)).await.fails(400, "names no secret");
    let mut full = with(json!({}));
    full["data"] = json!({"a": 1});
    post(full).await.fails(400, "must be empty");
    // What only Kubernetes checks is told as well.
    let grants = json!({"grantPermissions": {"what": "DROP TABLE", "where": "*.*"}});
    post(with(grants)).await.fails(400, "what must be words");
    let path = text(&post(with(json!({}))).await.is(201), "/path");
    let delete = format!("DELETE secrets/{root}?force=true");
    world
        .call(&delete, &NONE)
        .await
        .fails(400, &format!("linked to this secret: {path}"));
    world
        .call(&format!("DELETE secrets/{path}?force=true"), &NONE)
        .await
        .is(204);
    world.call(&delete, &NONE).await.is(204);
}

#[tokio::test]
async fn a_pool_with_engines_stays_and_a_private_key_is_never_shown_again() {
    let world = world().await;
    // A name that Kubernetes does not take, as stock clients may send.
    let (pool, engine) = (fresh("Pool_A"), fresh("Engine_A"));
    let made = world.call("POST pools/", &json!({"name": pool})).await.is(201);
    assert_eq!(world.get(&format!("pools/{pool}")).await.is(200), made);
    assert_eq!(
        (text(&made, "/name"), text(&made, "/version")),
        (pool.clone(), "0".into())
    );
    let body = json!({"name": engine, "poolName": pool});
    let made = world.call("POST engines/", &body).await.is(201);
    let key = text(&made, "/privateKey");
    assert!(key.starts_with("dsvk1."));
    let read = world.get(&format!("engines/{engine}")).await.is(200);
    assert_eq!(
        (text(&read, "/name"), text(&read, "/poolName")),
        (engine.clone(), pool.clone())
    );
    assert_eq!(text(&read, "/publicKey"), text(&made, "/publicKey"));
    let list = world
        .get(&format!("engines?poolName={pool}&searchTerm={engine}"))
        .await
        .is(200);
    assert_eq!(list["engines"].as_array().unwrap().len(), 1);
    let pools = world.get(&format!("pools?searchTerm={pool}")).await.is(200);
    assert_eq!(
        (&pools["total"], text(&pools, "/pools/0/name")),
        (&json!(1), pool.clone())
    );
    let second = json!({"name": format!("{engine}-2"), "poolName": pool});
    world.call("POST engines/", &second).await.is(201);
    let page = format!("engines?poolName={pool}&limit=1&sort=asc&sortedBy=name");
    let page = world.get(&page).await.is(200);
    assert_eq!(
        (&page["length"], &page["total"], text(&page, "/engines/0/name")),
        (&json!(1), &json!(2), engine.clone())
    );
    let next = format!(
        "engines?poolName={pool}&cursor={}&sort=asc&sortedBy=name",
        text(&page, "/cursor")
    );
    let next = world.get(&next).await.is(200);
    assert_eq!(
        (text(&next, "/engines/0/name"), text(&next, "/cursor")),
        (format!("{engine}-2"), String::new())
    );
    world.call(&format!("DELETE engines/{engine}-2"), &NONE).await.is(204);
    for shown in [&read, &list] {
        assert!(shown.pointer("/privateKey").is_none() && !shown.to_string().contains(&key));
    }
    let objects = world.objects().await;
    for kind in ["Secret", "Engine"] {
        let all = objects.list(kind, crate::world::TENANT).await.unwrap();
        assert!(
            !json!(all).to_string().contains(&key),
            "the private key is kept in a {kind}"
        );
    }
    world.call("POST engines/", &body).await.fails(400, "already exists");
    let delete = format!("DELETE pools/{pool}?force=true");
    world.call(&delete, &NONE).await.fails(400, "still has engines");
    world
        .call(&format!("POST engines/{engine}/ping"), &NONE)
        .await
        .fails(503, "not connected");
    assert_eq!(
        world.call(&format!("DELETE engines/{engine}"), &NONE).await.is(204),
        NONE
    );
    assert_eq!(world.call(&delete, &NONE).await.is(204), NONE);
    world.get(&format!("pools/{pool}")).await.fails(404, NOT_FOUND);
    let page = world.get("pools?limit=1").await.is(200);
    assert_eq!((&page["limit"], page["pools"].is_array()), (&json!(1), true));
}

#[tokio::test]
async fn a_ping_goes_to_the_engine_and_back() {
    let world = world().await;
    let (_, engine) = world.pool_with_engine().await;
    let name = engine.name().to_owned();
    // At either replica, of which only one holds the engine.
    for replica in 0..2 {
        let answer = world
            .at(replica, &world.admin, &format!("POST engines/{name}/ping"), &NONE)
            .await
            .is(200);
        assert!(text(&answer, "/message").contains("answered in"), "{answer}");
    }
    // What is on record may be minutes old while it is connected; who reads is told when it was heard of last.
    let before = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(3);
    let old = json!({"status": {"lastHeartbeat": before.to_string()}}).to_string();
    let id = object_name(&name);
    world
        .stack
        .kubectl(&[
            "patch",
            "engine",
            &id,
            "-n",
            TENANT,
            "--subresource=status",
            "--type=merge",
            "-p",
            &old,
        ])
        .unwrap();
    let read = world.get(&format!("engines/{name}")).await.is(200);
    let heard: jiff::Timestamp = text(&read, "/lastHeartbeat").parse().unwrap();
    assert!(heard > before + jiff::SignedDuration::from_mins(2), "{read}");
    engine.stop();
    world
        .call(&format!("POST engines/{name}/ping"), &NONE)
        .await
        .fails(503, "not connected");
    let read = world.get(&format!("engines/{name}")).await.is(200);
    assert_eq!(text(&read, "/lastHeartbeat").len(), 20, "{read}");
}
