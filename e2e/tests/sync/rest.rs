//! The calls of Secret Server: what its manual shows, and what follows from it in the cluster.

use anyhow::{Context, ensure};
use e2e::objects::text;
use serde_json::{Value, json};
use std::time::Duration;

use crate::setup::peace;
use crate::world::{Answer, OTHER, TENANT, World, fresh, world};

const PATIENCE: Duration = Duration::from_mins(2);
const SYNC: &str = "devops-secrets-vault";

/// A body exactly as it stands in the manual, where a dollar has a backslash before it; only numbers and names differ.
const ADD_SYNC: &str = r#"
{
"data": {
  "secretId": {
    "dirty": true,
    "value": SECRET
  },

  "dsvTenantId": {
    "dirty": true,
    "value": TENANT
  },

  "active": {
    "dirty": true,
    "value": true
  },

  "fieldNamesPath":{
    "dirty": true,
    "value": [
      "DEMO","\$domain","qagreentest"
      ]
    }
  }
}
"#;
const ADD_TENANT: &str = r#"
{
  "Data": {
    "secretId": { "value": SECRET, "dirty": true },
    "tenantName": { "value": "NAME", "dirty": true },
    "syncInterval": { "value": 60, "dirty": true },
    "active": { "value": true, "dirty": true }
  }
}
"#;

struct Caller<'a> {
    world: &'a World,
    token: String,
}

impl Caller<'_> {
    async fn send(&self, call: &str, body: &str) -> Answer {
        let (method, path) = call.split_once(' ').unwrap();
        let bearer = format!("Bearer {}", self.token);
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let path = format!("/api/v1/{path}");
        self.world.send(0, method, &path, &headers, body.into()).await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        self.send(&format!("GET {path}"), "").await.is(200)
    }

    /// A secret of a template; returns its number.
    async fn secret(&self, name: &str, template: i64, items: &[(&str, &str)]) -> i64 {
        let items: Vec<Value> = items
            .iter()
            .map(|(field, value)| json!({"fieldName": field, "itemValue": value}))
            .collect();
        let body = json!({"name": name, "secretTemplateId": template, "items": items});
        let made = self.send("POST secrets", &body.to_string()).await.is(200);
        made["id"].as_i64().unwrap()
    }

    async fn until(&self, path: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        let look = || async {
            let answer = self.send(&format!("GET {path}"), "").await;
            ensure!(answer.code == 200, "{}", answer.text);
            let body = answer.json();
            ensure!(check(&body), "{body}");
            Ok(Some(body))
        };
        self.world.stack.eventually(what, PATIENCE, look).await.unwrap()
    }
}

fn form(pairs: &Value) -> String {
    let fields: serde_json::Map<String, Value> = pairs
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), json!({"value": value, "dirty": true})))
        .collect();
    json!({"data": fields}).to_string()
}

/// The administrator, logged in as Secret Server's clients do.
async fn administrator(world: &World) -> Caller<'_> {
    let form = format!("grant_type=password&username=admin&password={}", world.password);
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let path = "/SecretServer/oauth2/token";
    let answer = world
        .send(0, "POST", path, &headers, form.into_bytes())
        .await
        .unwrap()
        .is(200);
    assert_eq!(text(&answer, "/token_type"), "bearer");
    let wrong = b"grant_type=password&username=nobody&password=x".to_vec();
    let refused = world.send(0, "POST", path, &headers, wrong).await.unwrap();
    assert_eq!(refused.is(400)["message"], "Login failed.");
    Caller {
        world,
        token: text(&answer, "/access_token"),
    }
}

/// The number of a secret with a login that may write below `root`.
async fn login(caller: &Caller<'_>, root: &str) -> i64 {
    let world = caller.world;
    let statement = json!({"actions": ["<create|read|update|delete>"], "resources": [format!("secrets:{root}:<.*>")]});
    let (id, secret) = world.client(&statement).await;
    let items = [
        ("Client ID", id.as_str()),
        ("Client Secret", &secret),
        ("Tenant URL", &world.url()),
        ("CA Bundle", &world.authority),
    ];
    caller.secret(&fresh("Login"), 1, &items).await
}

#[tokio::test]
async fn the_bodies_of_the_manual_register_a_tenant_and_push_a_secret() {
    let _peace = peace().await;
    let world = world().await;
    let caller = administrator(world).await;
    let root = fresh("Demo");
    let templates = caller.get("secret-templates?filter.searchText=client").await;
    assert_eq!(templates["records"][0]["fields"][2]["fieldSlugName"], "tenant-url");
    let credentials = login(&caller, &root).await;
    let name = fresh("LJDevTenant");
    let body = ADD_TENANT
        .replace("SECRET", &credentials.to_string())
        .replace("NAME", &name);
    let tenant = caller.send(&format!("POST {SYNC}/tenant"), &body).await.is(200);
    let id = tenant["dsvTenantId"].as_i64().unwrap();
    assert_eq!(
        (tenant["id"].as_i64(), tenant["syncInterval"].as_i64()),
        (Some(id), Some(60))
    );
    assert_eq!(
        (text(&tenant, "/tenantName"), tenant["secretId"].as_i64()),
        (name.clone(), Some(credentials))
    );

    let items = [
        ("Domain", "corp.example"),
        ("User Name", "svc"),
        ("Password", "first"),
        ("Notes", "by hand"),
    ];
    let source = caller.secret(&fresh("Source"), 2, &items).await;
    let body = ADD_SYNC
        .replace("SECRET", &source.to_string())
        .replace("TENANT", &id.to_string())
        .replace("DEMO", &root);
    let added = caller.send(&format!("POST {SYNC}/add-sync"), &body).await.is(200);
    let map = added["devOpsSyncMapId"].as_i64().unwrap();
    let synced = |body: &Value| body["status"] == "Synced";
    let status = caller
        .until(&format!("{SYNC}/sync/status/{map}"), "the first sync is done", synced)
        .await;
    assert_eq!(
        text(&status, "/devOpsSecretVaultPath"),
        format!("{root}/corp.example/qagreentest")
    );
    for field in ["lastSyncTime", "nextSyncTime", "dateAdded"] {
        assert!(text(&status, &format!("/{field}")).ends_with('Z'), "{status}");
    }
    let there = world
        .get(&format!("secrets/{root}/corp.example/qagreentest"))
        .await
        .is(200);
    assert_eq!(
        (text(&there, "/data/Password"), text(&there, "/description")),
        ("first".into(), "by hand".into())
    );
    assert_eq!(there["data"].as_object().unwrap().len(), 3);

    // By hand, also where nothing changed; an unknown id beside a known one does not matter.
    let manual = json!({"data": [map, 987_654]}).to_string();
    let views = caller.send(&format!("POST {SYNC}/sync"), &manual).await.is(200);
    assert_eq!(views[0]["devOpsSyncMapId"]["value"], map);
    assert_eq!(views[0]["lastSyncTime"]["label"], "Last Sync Time");
    let pushed = || async {
        let there = world
            .get(&format!("secrets/{root}/corp.example/qagreentest"))
            .await
            .is(200);
        ensure!(text(&there, "/version") == "1", "{}", there["version"]);
        Ok(Some(()))
    };
    world
        .stack
        .eventually("the manual push arrives", PATIENCE, pushed)
        .await
        .unwrap();
    let nobody = caller
        .send(&format!("POST {SYNC}/sync"), r#"{"data": [987654]}"#)
        .await
        .is(400);
    assert!(nobody["modelState"]["data"].is_array(), "{nobody}");

    // One tenant of many, and the map in its lists; inactive ones only where they are asked for.
    let page = caller
        .get(&format!("{SYNC}/tenant?filter.nameSearch={}", name.to_lowercase()))
        .await;
    assert_eq!(
        (page["total"].as_i64(), page["records"][0]["dsvTenantId"].as_i64()),
        (Some(1), Some(id))
    );
    assert!(page["records"][0]["lastSynced"].is_string(), "{page}");
    let one = caller.get(&format!("{SYNC}/tenant/{id}")).await;
    assert_eq!(text(&one, "/tenantName"), name);
    for (filter, count) in [
        (format!("filter.secretId={source}"), 1),
        (format!("filter.tenantId={id}"), 1),
        (format!("filter.tenantId={id}&filter.secretId=987654"), 0),
    ] {
        let page = caller.get(&format!("{SYNC}/sync/status?{filter}")).await;
        assert_eq!(page["total"], count, "{filter}");
    }
    let off = form(&json!({"active": false}));
    let changed = caller.send(&format!("PUT {SYNC}/sync/{map}"), &off).await.is(200);
    assert_eq!(
        (changed["active"].clone(), text(&changed, "/status")),
        (json!(false), "Inactive".into())
    );
    for (filter, count) in [("", 0), ("&filter.includeInactive=true", 1)] {
        let page = caller
            .get(&format!("{SYNC}/sync/status?filter.tenantId={id}{filter}"))
            .await;
        assert_eq!(page["total"], count, "{filter}");
    }
    // Left as it is.
    let views = caller
        .send(&format!("POST {SYNC}/sync"), &json!({"data": [map]}).to_string())
        .await
        .is(200);
    assert_eq!(views[0]["active"]["value"], false);
    caller.send(&format!("PUT {SYNC}/tenant/{id}"), &off).await.is(200);
    for (filter, count) in [("", 0), ("&filter.includeInactive=true", 1)] {
        let page = caller
            .get(&format!("{SYNC}/tenant?filter.nameSearch={name}{filter}"))
            .await;
        assert_eq!(page["total"], count, "{filter}");
    }
    let audits = caller.get(&format!("{SYNC}/tenant/audits?filter.tenantId={id}")).await;
    let mut actions: Vec<String> = audits["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| text(a, "/action"))
        .collect();
    actions.sort();
    assert_eq!(actions, ["Create", "Update"]);
    assert_eq!(caller.get(&format!("{SYNC}/tenant/stub")).await["dsvTenantId"], 0);
    assert_eq!(
        text(
            &world
                .get(&format!("secrets/{root}/corp.example/qagreentest"))
                .await
                .is(200),
            "/version"
        ),
        "1"
    );
}

#[tokio::test]
async fn tenants_and_syncs_of_the_api_are_the_custom_resources_and_the_other_way_round() {
    let _peace = peace().await;
    let world = world().await;
    let caller = administrator(world).await;
    let root = fresh("both");
    let credentials = login(&caller, &root).await;
    let tenant =
        form(&json!({"secretId": credentials, "tenantName": fresh("both"), "syncInterval": 60, "active": true}));
    let tenant = caller.send(&format!("POST {SYNC}/tenant"), &tenant).await.is(200);
    let objects = world.objects().await;
    let number = tenant["dsvTenantId"].clone();
    let object = || async {
        let all = objects.list("DsvTenant", TENANT).await?;
        let found = all.into_iter().find(|one| one["status"]["number"] == number);
        Ok(Some(found.context("no DsvTenant has the number")?))
    };
    let object = world
        .stack
        .eventually("the tenant is an object", PATIENCE, object)
        .await
        .unwrap();
    let tenant_object = text(&object, "/metadata/name");

    let body = json!({"data": {"domain": "d", "password": "p"}, "attributes": null, "description": ""});
    let path = format!("{root}-source");
    let id = text(&world.call(&format!("POST secrets/{path}"), &body).await.is(201), "/id");
    let sync = json!({
        "apiVersion": "dsv.dev/v1alpha1", "kind": "SecretSync",
        "metadata": {"name": root, "namespace": TENANT},
        "spec": {"source": {"name": id}, "tenant": tenant_object, "path": [root, "x"]},
    });
    world.stack.apply(&sync).unwrap();
    let listed = format!("{SYNC}/sync/status?filter.tenantId={number}");
    let page = caller
        .until(&listed, "the API lists the sync", |page| {
            page["records"][0]["status"] == "Synced"
        })
        .await;
    assert_eq!(text(&page["records"][0], "/secretName"), path);
    let there = world.get(&format!("secrets/{root}/x")).await.is(200);
    assert_eq!(there["data"], json!({"domain": "d", "password": "p"}));
    let secrets = caller.get(&format!("secrets?filter.searchText={path}")).await;
    assert_eq!(secrets["records"][0]["id"], page["records"][0]["secretId"]);
    assert!(!secrets.to_string().contains("items"), "a list shows no values");
}

#[tokio::test]
async fn what_the_api_refuses_it_refuses_in_secret_servers_form() {
    let _peace = peace().await;
    let world = world().await;
    let caller = administrator(world).await;
    let root = fresh("no");
    let credentials = login(&caller, &root).await;
    let plain = caller
        .secret(&fresh("plain"), 2, &[("domain", "d"), ("password", "hunter2")])
        .await;
    let tenant = |changes: &Value| {
        let mut all = json!({"secretId": credentials, "tenantName": root, "syncInterval": 60, "active": true});
        for (name, value) in changes.as_object().unwrap() {
            all[name] = value.clone();
        }
        form(&all)
    };
    for (changes, field, says) in [
        (json!({"secretId": 987_654}), "secretId", "is unknown"),
        (
            json!({"secretId": plain}),
            "secretId",
            "Client ID, Client Secret and Tenant URL",
        ),
        (json!({"syncInterval": 0}), "syncInterval", "the minimum is 1 second"),
        (json!({"syncInterval": -5}), "syncInterval", "number of minutes"),
        (json!({"tenantName": " "}), "tenantName", "is required"),
    ] {
        let refused = caller
            .send(&format!("POST {SYNC}/tenant"), &tenant(&changes))
            .await
            .is(400);
        let model = refused["modelState"][field].to_string();
        assert!(model.contains(says), "{refused}");
        assert!(
            refused["message"].is_string() && refused.get("code").is_none(),
            "{refused}"
        );
    }
    let made = caller
        .send(&format!("POST {SYNC}/tenant"), &tenant(&json!({})))
        .await
        .is(200);
    let id = made["dsvTenantId"].clone();
    let again = caller
        .send(
            &format!("POST {SYNC}/tenant"),
            &tenant(&json!({"tenantName": fresh("n")})),
        )
        .await;
    assert!(
        again.is(400).to_string().contains("login of another tenant"),
        "one secret backs one tenant"
    );
    let sync =
        |path: Value| form(&json!({"secretId": plain, "dsvTenantId": id, "active": true, "fieldNamesPath": path}));
    for (path, says) in [
        (json!([root, "$nobody"]), "$domain, $password"),
        (json!([root, "$password"]), "must not hold the field password"),
        (json!([]), "is required"),
        (json!([root, "a/b"]), "part 2 of the path"),
    ] {
        let refused = caller.send(&format!("POST {SYNC}/add-sync"), &sync(path)).await.is(400);
        assert!(
            refused.to_string().contains(says) && !refused.to_string().contains("hunter2"),
            "{refused}"
        );
    }
    let missing = caller.send(&format!("GET {SYNC}/tenant/987654"), "").await.is(404);
    assert!(
        missing["message"].is_string() && missing.get("code").is_none(),
        "{missing}"
    );

    // Who has no policy sees nothing and registers nothing; another tenant's numbers mean nothing here.
    let statement = json!({"actions": ["read"], "resources": ["secrets:nothing"]});
    let nobody = Caller {
        world,
        token: world.token(&statement).await,
    };
    for call in [
        format!("GET {SYNC}/tenant/{id}"),
        format!("GET {SYNC}/sync/status/1"),
        format!("POST {SYNC}/tenant"),
    ] {
        let body = if call.starts_with("POST") {
            tenant(&json!({}))
        } else {
            String::new()
        };
        assert_eq!(
            nobody.send(&call, &body).await.is(403),
            json!({"message": "Invalid permissions"}),
            "{call}"
        );
    }
    assert_eq!(nobody.get(&format!("{SYNC}/tenant")).await["total"], 0);
    let refused = nobody.send(&format!("GET secrets/{plain}"), "").await.is(400);
    assert!(!refused.to_string().contains("hunter2"), "{refused}");
    let bare = world
        .send(0, "GET", &format!("/api/v1/{SYNC}/tenant"), &[], Vec::new())
        .await
        .unwrap();
    bare.is(401);
    let host = format!("{OTHER}.example.com");
    let bearer = format!("Bearer {}", caller.token);
    let headers = [("Authorization", bearer.as_str()), ("Host", &host)];
    let path = format!("/api/v1/{SYNC}/tenant/{id}");
    world.send(0, "GET", &path, &headers, Vec::new()).await.unwrap().is(401);
}
