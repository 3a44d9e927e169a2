//! Versions, updates, searches, homes, and two writers at once on two replicas.

use e2e::objects::text;
use serde_json::{Value, json};

use crate::world::{TENANT, fresh, world};

const NONE: Value = Value::Null;

#[tokio::test]
async fn updates_merge_overwrites_replace_and_versions_roll_forward() {
    let world = world().await;
    let path = format!("secrets/app/{}", fresh("v"));
    let body = |data: Value, description: &str, overwrite: bool| json!({"Data": data, "Description": description, "Attributes": {}, "Overwrite": overwrite});
    let call = async |call: &str, body: &Value| world.call(call, body).await.is(200);
    let first = body(json!({"a": 1, "b": "x"}), "one", false);
    world.call(&format!("POST {path}"), &first).await.is(201);
    let put = format!("PUT {path}");
    let merged = call(&put, &body(json!({"b": "y", "c": true}), "", false)).await;
    assert_eq!(merged["data"], json!({"a": 1, "b": "y", "c": true}));
    assert_eq!(
        (text(&merged, "/description"), text(&merged, "/version")),
        ("one".into(), "1".into())
    );
    let replaced = call(&put, &body(json!({"z": null}), "", true)).await;
    assert_eq!(
        (&replaced["data"], &replaced["description"]),
        (&json!({"z": null}), &json!(""))
    );
    let all = call(&format!("GET {path}/version/3?edit=false"), &NONE).await;
    let versions: Vec<String> = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| text(one, "/version"))
        .collect();
    assert_eq!(versions, ["2", "1", "0"]);
    let rolled = call(&format!("PUT {path}/rollback/0"), &NONE).await;
    assert_eq!(
        (&rolled["data"], text(&rolled, "/version")),
        (&json!({"a": 1, "b": "x"}), "3".into())
    );
    assert_eq!(text(&rolled, "/description"), "one");
    world
        .call(&format!("PUT {path}/rollback/77"), &NONE)
        .await
        .fails(404, "not kept");
    for _ in 0..10 {
        call(&put, &body(json!({"n": 1}), "", false)).await;
    }
    let all = call(&format!("GET {path}/version/50"), &NONE).await;
    assert_eq!(all["data"].as_array().unwrap().len(), 10, "ten versions are kept");
}

#[tokio::test]
async fn a_dynamic_secret_is_versioned_too_and_is_one_with_its_resource() {
    let world = world().await;
    let objects = world.objects().await;
    let pool = fresh("pool");
    world.call("POST pools/", &json!({"name": pool})).await.is(201);
    let path = world.dynamic(&world.base().await, &pool, &json!({"team": "x"})).await;
    let made = world.get(&format!("secrets/{path}?edit=true")).await.is(200);
    let name = text(&made, "/id");
    let resource = objects.get("DynamicSecret", TENANT, &name).await.unwrap().unwrap();
    assert_eq!(resource["spec"]["ttl"], 1000);
    assert_eq!(text(&resource, "/spec/issuance/mode"), "OnDemand");
    // By API: a new version; by kubectl: shown at once.
    let mut attributes = made["attributes"].clone();
    attributes["ttl"] = json!(2000);
    let body = json!({"attributes": attributes, "data": {}, "description": "longer"});
    let updated = world.call(&format!("PUT secrets/{path}"), &body).await.is(200);
    assert_eq!(
        (text(&updated, "/version"), &updated["attributes"]["ttl"]),
        ("1".into(), &json!(2000))
    );
    let change = json!({"spec": {"ttl": "1h", "userPrefix": "kube_"}});
    objects.merge("DynamicSecret", TENANT, &name, &change).await.unwrap();
    let read = world.get(&format!("secrets/{path}::description")).await.is(200);
    assert_eq!(
        (&read["attributes"]["ttl"], &read["attributes"]["userPrefix"]),
        (&json!(3600), &json!("kube_"))
    );
    assert_eq!(read["attributes"]["team"], "x");
    let back = world
        .call(&format!("PUT secrets/{path}/rollback/0"), &NONE)
        .await
        .is(200);
    assert_eq!(
        (text(&back, "/version"), &back["attributes"]["ttl"]),
        ("2".into(), &json!(1000))
    );
    let linked = text(&made, "/attributes/linkConfig/linkedSecret");
    let found = world
        .get(&format!("secrets?searchTerm={linked}&search.links=true"))
        .await
        .is(200);
    assert_eq!(
        (&found["total"], text(&found, "/data/0/path")),
        (&json!(1), path.clone())
    );
    let gone = world.call(&format!("DELETE secrets/{path}"), &NONE).await.is(200);
    assert!(text(&gone, "/message").contains("marked for deletion"));
    let resource = objects.get("DynamicSecret", TENANT, &name).await.unwrap().unwrap();
    assert_eq!(resource["spec"]["suspend"], true, "what is marked issues nothing");
    world
        .get(&format!("secrets/{path}"))
        .await
        .fails(400, "marked for deletion");
    world.call(&format!("PUT secrets/{path}/restore"), &NONE).await.is(204);
    assert_eq!(
        text(
            &world.get(&format!("secrets/{path}::description")).await.is(200),
            "/version"
        ),
        "2"
    );
    // One that was made with kubectl has its name for a path.
    let mine = fresh("by-kubectl");
    let mut copy = json!({"apiVersion": "dsv.dev/v1alpha1", "kind": "DynamicSecret", "metadata": {"name": mine, "namespace": TENANT}});
    copy["spec"] = resource["spec"].clone();
    objects.create(&copy).await.unwrap();
    let shown = world.get(&format!("secrets/{mine}::description")).await.is(200);
    assert_eq!((text(&shown, "/path"), text(&shown, "/id").len()), (mine, 36));
    assert_eq!(text(&shown, "/attributes/linkConfig/linkedSecret"), linked);
}

#[tokio::test]
async fn of_two_writers_on_two_replicas_none_is_lost_unseen() {
    let world = world().await;
    let path = format!("secrets/race/{}", fresh("w"));
    let create = |replica| async move { replica };
    let post = format!("POST {path}");
    let body = json!({"data": {"n": 0}});
    let (one, two) = tokio::join!(
        world.at(0, &world.admin, &post, &body),
        world.at(1, &world.admin, &post, &body)
    );
    let mut codes = [one.code, two.code];
    codes.sort_unstable();
    assert_eq!(codes, [201, 400], "one makes it, the other is told");
    let mut taken = 0;
    for round in 0..10 {
        let put = format!("PUT {path}");
        let key = |replica: u8| json!({"data": {format!("r{replica}-{round}"): true}});
        let (bodies, _) = ((key(0), key(1)), create(0).await);
        let (one, two) = tokio::join!(
            world.at(0, &world.admin, &put, &bodies.0),
            world.at(1, &world.admin, &put, &bodies.1)
        );
        for answer in [one, two] {
            match answer.code {
                200 => taken += 1,
                409 => {}
                code => panic!("{code}: {}", answer.text),
            }
        }
    }
    let read = world.get(&path).await.is(200);
    // Every write that was answered with 200 is there: data merges.
    assert_eq!(read["data"].as_object().unwrap().len(), taken + 1, "{read}");
    assert_eq!(text(&read, "/version"), taken.to_string());
}

#[tokio::test]
async fn searches_compare_page_and_sort() {
    let world = world().await;
    let stem = fresh("find");
    for number in 0..7 {
        let body = json!({"data": {"v": "hidden-value"}, "description": format!("number {number}"), "attributes": {"size": number, "kind": {"deep": stem}}});
        world
            .call(&format!("POST secrets/{stem}/part-{number}"), &body)
            .await
            .is(201);
    }
    let search = async |query: &str| world.get(&format!("secrets?{query}")).await.is(200);
    let page = search(&format!("searchTerm={stem}&limit=&cursor=&search.type=&sort=")).await;
    assert_eq!(
        (&page["length"], &page["limit"], &page["total"]),
        (&json!(7), &json!(25), &json!(7))
    );
    assert_eq!(page["cursor"], "");
    assert!(!page.to_string().contains("hidden-value"), "a search shows no values");
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for _ in 0..4 {
        let page = search(&format!("searchTerm={stem}&limit=2&cursor={cursor}&sort=asc")).await;
        seen.extend(page["data"].as_array().unwrap().iter().map(|one| text(one, "/path")));
        cursor = text(&page, "/cursor");
    }
    let expected: Vec<String> = (0..7).map(|number| format!("{stem}:part-{number}")).collect();
    assert_eq!((seen, cursor), (expected, String::new()));
    let total = async |query: &str| search(query).await["total"].clone();
    assert_eq!(
        total(&format!("searchTerm={stem}/part-3&search.comparison=equal")).await,
        1
    );
    assert_eq!(
        total(&format!("searchTerm={stem}&search.comparison=begins_with")).await,
        7
    );
    assert_eq!(
        total(&format!(
            "searchTerm={stem}&search.field=attributes.kind.deep&search.comparison=equal"
        ))
        .await,
        7
    );
    assert_eq!(total("searchTerm=nothing-like-this").await, 0);
    assert!(search("searchTerm=nothing-like-this").await["data"].is_array());
    let sized = search("searchTerm=3&search.field=attributes.size&search.type=number").await;
    let paths = sized["data"].as_array().unwrap().iter().map(|one| text(one, "/path"));
    assert!(
        paths.clone().any(|path| path == format!("{stem}:part-3")),
        "{:?}",
        paths.collect::<Vec<_>>()
    );
    let paths = world.get(&format!("secrets/{stem}::listpaths")).await.is(200);
    assert_eq!(paths["data"].as_array().unwrap().len(), 7);
    world
        .get("secrets?search.comparison=like")
        .await
        .fails(400, "search.comparison");
    world.get("secrets?limit=many").await.fails(400, "limit");
    world.get("secrets?cursor=nonsense").await.fails(400, "cursor");
}

#[tokio::test]
async fn a_home_is_its_owners_whatever_the_policies_say() {
    let world = world().await;
    let name = fresh("note");
    let made = world
        .call(&format!("POST home/{name}"), &json!({"data": {"a": 1}}))
        .await
        .is(201);
    assert_eq!(text(&made, "/path"), format!("users:admin:{name}"));
    for path in [
        format!("home/{name}"),
        format!("home/users:admin/{name}"),
        format!("home/users:admin//{name}"),
    ] {
        assert_eq!(world.get(&path).await.is(200), made, "{path}");
    }
    // The stock CLI names the owner when it searches, too.
    for path in ["home", "home/users:admin", "home/users:admin/"] {
        let found = world.get(&format!("{path}?searchTerm={name}")).await.is(200);
        assert_eq!(
            (&found["total"], text(&found, "/data/0/path")),
            (&json!(1), text(&made, "/path"))
        );
    }
    let everything = json!({"actions": ["<.*>"], "resources": ["<.*>"]});
    let token = world.token(&everything).await;
    for path in [
        format!("home/users:admin/{name}"),
        format!("home/users:admin?searchTerm={name}"),
        format!("home/{}", text(&made, "/id")),
    ] {
        world
            .at(0, &token, &format!("GET {path}"), &NONE)
            .await
            .fails(403, "Invalid permissions");
    }
    world
        .at(0, &token, &format!("GET home/{name}"), &NONE)
        .await
        .fails(404, "unable to find");
    let own = world
        .at(0, &token, &format!("POST home/{name}"), &json!({"data": {}}))
        .await
        .is(201);
    assert!(text(&own, "/path").starts_with("roles:"));
    let id = text(&made, "/id");
    world.get(&format!("secrets/{id}")).await.fails(404, "unable to find");
}
