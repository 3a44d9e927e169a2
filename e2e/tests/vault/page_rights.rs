//! The page shows to each what the API would give him, and its forms do what he may do.

use serde_json::json;

use crate::person::{Person, login, place, source, user};
use crate::world::{fresh, world};

#[tokio::test]
async fn a_page_shows_and_does_what_the_api_would_for_the_same_principal() {
    let world = world().await;
    let root = fresh("rights");
    let (credentials, _) = login(world, &format!("Login {root}"), &root).await;
    let secret = source(world, &root, 2, &[("domain", "d"), ("password", "p")]).await;
    let (pool, _engine) = world.pool_with_engine().await;
    let base = world.base().await;
    let dynamic = world.dynamic(&base, &pool, &json!({"ttl": 600})).await;
    let account = world.read(&format!("secrets/{dynamic}")).await;
    let account = account["data"]["username"].as_str().unwrap().to_owned();
    let mut admin = Person::signed_in(world, "admin", &world.password).await;
    admin.page("/admin/tenants/new").await;
    let fields = [
        ("name", root.as_str()),
        ("secret", &credentials),
        ("interval", "60"),
        ("active", "true"),
    ];
    let made = admin.post("/admin/tenants", &fields).await;
    assert_eq!(made.code, 303, "{}", made.text);
    let tenant = place(&made).split_once('?').unwrap().0.to_owned();
    let path = format!("{root}/x");
    let made = admin
        .post(&format!("{tenant}/secrets"), &[("secret", &secret), ("path", &path)])
        .await;
    assert_eq!(made.code, 303, "{}", made.text);
    let sync = place(&made).split_once('?').unwrap().0.to_owned();
    let number = sync.rsplit('/').next().unwrap().to_owned();

    // The administrator sees all of it, with time left and heartbeat.
    let leases = admin.page(&format!("/admin/leases?secret={dynamic}")).await;
    assert!(
        leases.contains(&account) && leases.contains(">Issued<") && leases.contains(" min"),
        "{leases}"
    );
    let engines = admin.until("/admin/engines", ">Connected<").await;
    assert!(engines.contains(&pool) && engines.contains("<time"), "{engines}");
    assert!(admin.page("/admin/dynamic-secrets").await.contains(&dynamic));

    let nobody = user(world, &[]).await;
    let mut nobody = Person::signed_in(world, &nobody, &nobody).await;
    for page in [
        "/admin",
        "/admin/tenants",
        "/admin/syncs",
        "/admin/engines",
        "/admin/dynamic-secrets",
        "/admin/leases",
        "/admin/blocked",
    ] {
        let text = nobody.page(page).await;
        for hidden in [&root, &pool, &dynamic, &account] {
            assert!(!text.contains(hidden.as_str()), "{page} shows {hidden}");
        }
        assert!(!text.contains("/admin/audit") && !text.contains("New tenant"), "{page}");
    }
    for page in [
        "/admin/audit",
        &tenant,
        &sync,
        &format!("{tenant}/secrets"),
        &format!("{tenant}/edit"),
    ] {
        let answer = nobody.get(page).await;
        assert_eq!(answer.code, 403, "{page}: {}", answer.text);
        assert!(!answer.text.contains(&root));
    }
    nobody.page("/admin/tenants/new").await;
    for (form, fields) in [
        ("/admin/tenants".to_owned(), fields.to_vec()),
        (tenant.clone(), fields.to_vec()),
        (format!("{tenant}/active"), vec![("active", "false")]),
        (
            format!("{tenant}/secrets"),
            vec![("secret", secret.as_str()), ("path", &path)],
        ),
        (sync.clone(), vec![("path", "stolen")]),
        (format!("{sync}/active"), vec![("active", "true")]),
        (format!("{sync}/push"), vec![]),
    ] {
        let answer = nobody.post(&form, &fields).await;
        assert_eq!(answer.code, 403, "{form}: {}", answer.text);
    }

    // Who may look and not touch has no buttons; who may push has that one.
    let looks = [
        json!({"actions": ["<read|list>"], "resources": [format!("dsv-tenants:{root}"), format!("dsv-syncs:{number}")]}),
        json!({"actions": ["list"], "resources": [format!("secrets:{dynamic}")]}),
    ];
    let reader = user(world, &looks).await;
    let mut reader = Person::signed_in(world, &reader, &reader).await;
    assert!(reader.page("/admin/tenants").await.contains(&tenant));
    for page in [&tenant, &sync] {
        let text = reader.page(page).await;
        assert!(
            text.contains(&root) && !text.contains("Pause") && !text.contains("Activate"),
            "{text}"
        );
        assert!(!text.contains("Push now") && !text.contains(">Edit<"), "{text}");
    }
    assert!(reader.page("/admin/dynamic-secrets").await.contains(&dynamic));
    let text = reader.page("/admin/leases").await;
    assert!(
        !text.contains(&account),
        "accounts are for who may read the dynamic secret"
    );
    assert_eq!(
        reader.post(&format!("{sync}/active"), &[("active", "true")]).await.code,
        403
    );

    let all = [
        &looks[..],
        &[json!({"actions": ["update"], "resources": [format!("dsv-syncs:{number}")]})],
    ]
    .concat();
    let pusher = user(world, &all).await;
    let mut pusher = Person::signed_in(world, &pusher, &pusher).await;
    assert!(pusher.page(&sync).await.contains("Activate"));
    let on = pusher.post(&format!("{sync}/active"), &[("active", "true")]).await;
    // Who changes a sync must be allowed to read what is pushed, here as in the API.
    assert_eq!(on.code, 400, "{}", on.text);
    let answer = pusher.post(&format!("{sync}/push"), &[]).await;
    assert_eq!((answer.code, place(&answer)), (303, format!("{sync}?done=left")));
    assert_eq!(
        pusher
            .post(&format!("{tenant}/active"), &[("active", "false")])
            .await
            .code,
        403
    );
    let path = format!("/api/v1/devops-secrets-vault/sync/status/{number}");
    let bearer = [("Authorization", world.admin.as_str())];
    let unchanged = world.send(0, "GET", &path, &bearer, Vec::new()).await.unwrap();
    assert_eq!(unchanged.is(200)["active"], false);
}
