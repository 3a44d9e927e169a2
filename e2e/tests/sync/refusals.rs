//! What is refused, with a text that says what to do, and who may not push.

use std::time::Duration;

use serde_json::json;

use crate::setup::{Setup, message, peace, says};

#[tokio::test]
async fn what_cannot_be_meant_is_refused_with_the_next_step() {
    let _peace = peace().await;
    let setup = Setup::new(None).await;
    setup.tenant("short", "login", &json!({"syncInterval": 0}));
    let told = |name: &'static str, reason: &'static str| {
        let setup = &setup;
        async move {
            let what = format!("{name} says {reason}");
            let tenant = setup
                .until("DsvTenant", name, &what, |tenant| says(tenant) == reason)
                .await;
            message(&tenant)
        }
    };
    let text = told("short", "InvalidSpec").await;
    assert!(text.contains("the minimum is 1 second"), "{text}");
    setup.tenant("nobody", "no-such-secret", &json!({}));
    assert!(told("nobody", "CredentialsInvalid").await.contains("no-such-secret"));
    setup.secret("half", &json!({"client-id": "a"}));
    setup.tenant("half", "half", &json!({}));
    assert!(told("half", "CredentialsInvalid").await.contains("client-secret"));
    for (name, url) in [
        ("private", "https://10.96.0.1"),
        ("metadata", "https://169.254.169.254"),
    ] {
        setup.tenant(name, "login", &json!({"url": url}));
        assert!(
            told(name, "DestinationRefused")
                .await
                .contains("--sync-allow-destinations")
        );
    }
    setup.secret(
        "wrong",
        &json!({"client-id": "a", "client-secret": "hunter2", "tenant-url": setup.world.url()}),
    );
    setup.tenant("wrong", "wrong", &json!({}));
    let text = told("wrong", "TenantRefused").await;
    assert!(text.contains("credentials") && !text.contains("hunter2"), "{text}");

    setup.sync("unknown", &json!({"path": [setup.root, "$nobody"]}));
    let sync = setup.says("unknown", "InvalidSpec").await;
    assert!(
        message(&sync).contains("$domain, $notes, $password"),
        "{}",
        message(&sync)
    );
    setup.sync("shown", &json!({"path": [setup.root, "$password"]}));
    assert!(message(&setup.says("shown", "InvalidSpec").await).contains("must not hold the field password"));
    setup.sync("nowhere", &json!({"tenant": "no-such-tenant"}));
    setup
        .until("SecretSync", "nowhere", "it says that there is no tenant", |sync| {
            says(sync) == "TenantMissing"
        })
        .await;
    // The login may write below its own part only.
    setup.sync("foreign", &json!({"path": ["elsewhere", "x"]}));
    let sync = setup.says("foreign", "TenantRefused").await;
    assert!(message(&sync).contains("grant it there"), "{}", message(&sync));
}

#[tokio::test]
async fn a_definition_refuses_what_is_no_path_and_what_must_not_change() {
    let _peace = peace().await;
    let setup = Setup::new(None).await;
    setup.sync("fixed", &json!({"active": false}));
    let refused = |kind: &str, name: &str, spec: serde_json::Value, says: &str| {
        let manifest = json!({
            "apiVersion": "dsv.dev/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": setup.namespace}, "spec": spec,
        });
        let error = format!("{:#}", setup.world.stack.apply(&manifest).unwrap_err());
        assert!(error.contains(says), "{error}");
    };
    let sync = |path: serde_json::Value| json!({"source": {"name": "source"}, "tenant": "tenant", "path": path});
    for path in [json!(["a/b"]), json!([".."]), json!(["a b"]), json!(["$"])] {
        refused("SecretSync", "wrong", sync(path), "each part of path");
    }
    let other = json!({"source": {"name": "other"}, "tenant": "tenant", "path": ["a"], "active": false});
    refused("SecretSync", "fixed", other, "cannot change");
    for url in ["http://a.example", "https://u:p@a.example", "https://a.example/x?y"] {
        let spec = json!({"url": url, "credentials": {"secretName": "login"}});
        refused("DsvTenant", "wrong", spec, "url must be https");
    }
}

#[tokio::test]
async fn who_may_not_read_a_secret_cannot_have_it_pushed() {
    let _peace = peace().await;
    let setup = Setup::new(None).await;
    let stack = &setup.world.stack;
    let namespace = setup.namespace.as_str();
    let rules = json!([
        {"apiGroups": ["dsv.dev"], "resources": ["dsvtenants", "secretsyncs"], "verbs": ["get", "create", "update", "patch"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"], "verbs": ["get"]},
    ]);
    let meta = json!({"name": "pusher", "namespace": namespace});
    let subjects = json!([{"kind": "User", "name": "pusher", "apiGroup": "rbac.authorization.k8s.io"}]);
    let role = json!({"kind": "Role", "name": "pusher", "apiGroup": "rbac.authorization.k8s.io"});
    let group = "rbac.authorization.k8s.io/v1";
    stack
        .apply(&json!({"apiVersion": group, "kind": "Role", "metadata": meta, "rules": rules}))
        .unwrap();
    let binding =
        json!({"apiVersion": group, "kind": "RoleBinding", "metadata": meta, "subjects": subjects, "roleRef": role});
    stack.apply(&binding).unwrap();

    let folder = stack.run().subfolder("pusher").unwrap();
    let file = folder.join("manifest.json");
    let as_pusher = |kind: &str, spec: serde_json::Value| {
        let manifest = json!({
            "apiVersion": "dsv.dev/v1alpha1", "kind": kind,
            "metadata": {"name": "theirs", "namespace": namespace}, "spec": spec,
        });
        std::fs::write(&file, manifest.to_string()).unwrap();
        stack.kubectl(&[
            "--as=pusher",
            "create",
            "--dry-run=server",
            "-f",
            file.to_str().unwrap(),
        ])
    };
    let sync =
        |kind: &str, name: &str| json!({"source": {"kind": kind, "name": name}, "tenant": "tenant", "path": ["a"]});
    // A policy is in force a moment after it was installed.
    let refused = || async {
        match as_pusher("SecretSync", sync("Secret", "source")) {
            Ok(_) => Ok(None),
            Err(error) => Ok(Some(format!("{error:#}"))),
        }
    };
    let text = stack
        .eventually(
            "a sync of somebody else's Secret is refused",
            Duration::from_mins(1),
            refused,
        )
        .await
        .unwrap();
    assert!(text.contains("must be allowed to get its source"), "{text}");
    as_pusher("SecretSync", sync("Secret", "mine")).unwrap();
    let text = format!(
        "{:#}",
        as_pusher("SecretSync", sync("DynamicSecret", "mine")).unwrap_err()
    );
    assert!(text.contains("all Secrets of the namespace"), "{text}");
    let tenant = |secret: &str| json!({"credentials": {"secretName": secret}});
    let text = format!("{:#}", as_pusher("DsvTenant", tenant("login")).unwrap_err());
    assert!(text.contains("the Secret with its credentials"), "{text}");
    as_pusher("DsvTenant", tenant("mine")).unwrap();
}
