//! The Secret that is delivered: what is in it, and what happens when people reach into it.

use std::time::Duration;

use e2e::objects::text;
use e2e::postgres::Login;
use e2e::scene::{Credential, Scene, grace};
use serde_json::json;

use crate::modes::{nothing_follows, scene};

/// Does something to the Secret of a live credential of mode Once; returns the credential.
async fn meddle_once(scene: &Scene<'_>, name: &str, meddling: Meddling) -> Credential {
    scene.ask(name, &json!({"ttl": 20})).await.unwrap();
    let credential = scene.wait_credential(name).await.unwrap();
    scene.wait_ready(name, "True/Issued").await.unwrap();
    meddling.apply(scene, name).await;
    scene.wait_no_role(&credential.login.user).await.unwrap();
    credential
}

#[derive(Clone, Copy)]
enum Meddling {
    Delete,
    Edit,
    Release,
}

impl Meddling {
    async fn apply(self, scene: &Scene<'_>, secret: &str) {
        let patch = match self {
            Self::Delete => return scene.objects.delete("Secret", &scene.shop, secret).await.unwrap(),
            Self::Edit => json!({"stringData": {"password": "changed by hand"}}),
            Self::Release => json!({"metadata": {"labels": {"dsv.dev/lease": null}}}),
        };
        scene
            .objects
            .merge("Secret", &scene.shop, secret, &patch)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn in_mode_once_a_deleted_or_edited_secret_ends_the_account_and_nothing_follows() {
    let scene = scene().await;
    for (name, meddling) in [("deleted", Meddling::Delete), ("edited", Meddling::Edit)] {
        meddle_once(&scene, name, meddling).await;
        assert!(scene.credential(name).await.unwrap().is_none());
    }
    nothing_follows(&scene, "deleted", 0).await;
    nothing_follows(&scene, "edited", 0).await;
    scene.wait_ready("deleted", "False/TargetDeleted").await.unwrap();
    let seen = scene.wait_ready("edited", "False/TargetEdited").await.unwrap();
    assert_eq!(text(&seen, "/status/history/0/why"), "TargetEdited");
}

#[tokio::test]
async fn in_mode_once_a_deleted_lease_ends_the_account_and_the_status_says_so() {
    let scene = scene().await;
    scene.ask("once-less", &json!({"ttl": 20})).await.unwrap();
    let credential = scene.wait_credential("once-less").await.unwrap();
    scene.wait_ready("once-less", "True/Issued").await.unwrap();
    let lease = text(&scene.leases().await.unwrap()[0], "/metadata/name");
    scene
        .objects
        .delete("CredentialLease", &scene.shop, &lease)
        .await
        .unwrap();
    scene.wait_no_role(&credential.login.user).await.unwrap();
    let seen = scene.wait_ready("once-less", "False/LeaseDeleted").await.unwrap();
    assert_eq!(text(&seen, "/status/history/0/why"), "Deleted");
    nothing_follows(&scene, "once-less", 0).await;
}

#[tokio::test]
async fn a_secret_without_our_label_is_left_alone_and_its_account_ends() {
    let scene = scene().await;
    let once = meddle_once(&scene, "once", Meddling::Release).await;
    let spec = json!({"ttl": 20, "issuance": {"mode": "Rotate", "overlap": 1}});
    scene.ask("rotate", &spec).await.unwrap();
    let rotate = scene.wait_credential("rotate").await.unwrap();
    scene.wait_ready("rotate", "True/Issued").await.unwrap();
    Meddling::Release.apply(&scene, "rotate").await;
    scene.wait_no_role(&rotate.login.user).await.unwrap();
    for (name, was) in [("once", once), ("rotate", rotate)] {
        nothing_follows(&scene, name, was.serial).await;
        let left = scene
            .credential(name)
            .await
            .unwrap()
            .expect("the Secret is the user's now");
        assert_eq!((left.uid, left.login), (was.uid, was.login), "its data is not touched");
    }
    scene.wait_ready("once", "False/TargetReleased").await.unwrap();
}

#[tokio::test]
async fn in_mode_rotate_a_deleted_or_edited_secret_is_replaced_by_a_fresh_credential() {
    let scene = scene().await;
    let spec = json!({"ttl": 30, "issuance": {"mode": "Rotate", "overlap": 1}});
    scene.ask("app", &spec).await.unwrap();
    let first = scene.wait_credential("app").await.unwrap();
    Meddling::Delete.apply(&scene, "app").await;
    let second = scene.wait_serial("app", 2).await.unwrap();
    scene.use_account(&second.login).await.unwrap();
    Meddling::Edit.apply(&scene, "app").await;
    let third = scene.wait_serial("app", 3).await.unwrap();
    scene.use_account(&third.login).await.unwrap();
    for old in [first, second] {
        assert_ne!(old.login.password, third.login.password);
        scene.wait_no_role(&old.login.user).await.unwrap();
    }
    nothing_follows(&scene, "app", 3).await;
}

#[tokio::test]
async fn labels_that_others_put_on_the_secret_are_no_edit() {
    let scene = scene().await;
    scene.ask("app", &json!({"ttl": 20})).await.unwrap();
    let credential = scene.wait_credential("app").await.unwrap();
    let patch = json!({"metadata": {"labels": {"seen-by": "somebody"}, "annotations": {"note": "mine"}}});
    scene.objects.merge("Secret", &scene.shop, "app", &patch).await.unwrap();
    nothing_follows(&scene, "app", 1).await;
    scene.use_account(&credential.login).await.unwrap();
    scene.ended("app", &credential, grace()).await.unwrap();
}

#[tokio::test]
async fn the_secret_is_as_the_target_says_and_holds_all_that_a_client_needs() {
    let scene = scene().await;
    let target = json!({
        "name": "db-of-app",
        "type": "servicebinding.io/postgresql",
        "labels": {"app": "orders"},
        "annotations": {"example.com/owner": "shop"},
        "formats": ["jdbc", "libpq", "pgpass", "dotnet"],
        "template": {"app.properties": "db.url={{ jdbc-uri }}\ndb.user={{ username }}\n"},
    });
    scene.ask("app", &json!({"ttl": 60, "target": target})).await.unwrap();
    let credential = scene.wait_credential("db-of-app").await.unwrap();
    let seen = scene.wait_ready("app", "True/Issued").await.unwrap();
    assert_eq!(text(&seen, "/status/binding/name"), "db-of-app", "for Service Binding");
    let secret = &credential.secret;
    assert_eq!(text(secret, "/type"), "servicebinding.io/postgresql");
    assert_eq!(text(secret, "/metadata/labels/app"), "orders");
    assert_eq!(text(secret, "/metadata/annotations/example.com~1owner"), "shop");
    assert!(
        scene.credential("app").await.unwrap().is_none(),
        "only the named Secret is made"
    );
    let server = scene.server();
    for (key, value) in [
        ("type", "postgresql".to_owned()),
        ("host", server.host().to_owned()),
        ("port", server.port().to_string()),
        ("database", "orders".to_owned()),
        ("sslmode", "verify-full".to_owned()),
        ("PGUSER", credential.login.user.clone()),
        ("PGPASSWORD", credential.login.password.clone()),
        ("PGHOST", server.host().to_owned()),
        ("ca.crt", server.authority().to_owned()),
    ] {
        assert_eq!(credential.value(key).unwrap(), value, "{key}");
    }
    let filled = credential.value("app.properties").unwrap();
    assert!(
        filled.starts_with("db.url=jdbc:postgresql://") && filled.contains(&credential.login.user),
        "{filled}"
    );
    for key in ["pgpass", "dotnet", "jdbc-uri"] {
        assert!(
            credential.value(key).unwrap().contains(&credential.login.password),
            "{key}"
        );
    }
    // The URI alone is enough to connect: a real client library reads it.
    let mut config: tokio_postgres::Config = credential
        .value("uri")
        .unwrap()
        .replace("verify-full", "require")
        .parse()
        .unwrap();
    config.connect_timeout(Duration::from_secs(5));
    let session = server.open(&config).await.unwrap();
    session.query("SELECT item FROM public.orders", &[]).await.unwrap();
}

#[tokio::test]
async fn a_template_that_cannot_be_filled_is_named_and_nothing_is_issued() {
    let scene = scene().await;
    let target = json!({"template": {"dsn": "{{ user }}:{{ password }}"}});
    scene.ask("app", &json!({"ttl": 60, "target": target})).await.unwrap();
    let seen = scene.wait_ready("app", "False/InvalidSpec").await.unwrap();
    let conditions = seen["status"]["conditions"].to_string();
    assert!(
        conditions.contains("spec.target.template, key dsn: `{{ user }}` names no key; there are"),
        "{conditions}"
    );
    assert_eq!(scene.accounts("app").await.unwrap(), [""; 0]);
    let mended = json!({"target": {"template": {"dsn": "{{ username }}:{{ password }}"}}});
    scene.change("app", &mended).await.unwrap();
    let credential = scene.wait_credential("app").await.unwrap();
    let Login { user, password } = &credential.login;
    assert_eq!(credential.value("dsn").unwrap(), format!("{user}:{password}"));
}

#[tokio::test]
async fn a_secret_that_is_not_ours_is_never_overwritten() {
    let scene = scene().await;
    let foreign = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "taken", "namespace": &*scene.shop, "labels": {"app.kubernetes.io/managed-by": "dsv-operator"}},
        "stringData": {"password": "theirs"},
    });
    let was = scene.objects.create(&foreign).await.unwrap();
    scene.ask("taken", &json!({})).await.unwrap();
    scene.wait_ready("taken", "False/TargetNotOurs").await.unwrap();
    // Another dynamic secret's Secret is not ours either.
    scene.ask("app", &json!({"ttl": 20})).await.unwrap();
    let credential = scene.wait_credential("app").await.unwrap();
    scene.ask("rival", &json!({"target": {"name": "app"}})).await.unwrap();
    scene.wait_ready("rival", "False/TargetShared").await.unwrap();
    let now = scene
        .objects
        .get("Secret", &scene.shop, "taken")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(now["metadata"]["resourceVersion"], was["metadata"]["resourceVersion"]);
    let still = scene.credential("app").await.unwrap().unwrap();
    assert_eq!(still.version, credential.version);
    for name in ["taken", "rival"] {
        assert_eq!(
            scene.accounts(name).await.unwrap(),
            [""; 0],
            "nothing is issued that cannot be delivered"
        );
    }
    // When the place is free, it goes on by itself.
    scene.objects.delete("Secret", &scene.shop, "taken").await.unwrap();
    scene.wait_credential("taken").await.unwrap();
}
