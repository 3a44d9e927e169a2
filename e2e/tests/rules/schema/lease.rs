//! `CredentialLease`: which requests are accepted, and that none is ever changed.

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::schema::world::{accepts, api, changed, client, covers_every_rule, object, refuses};

const IMMUTABLE: &str = "the spec of a lease cannot change; make another lease";

fn verifier() -> String {
    format!(
        "SCRAM-SHA-256$4096:{}==${}=:{}=",
        "A".repeat(22),
        "b".repeat(42) + "c",
        "/".repeat(42) + "8"
    )
}

fn spec(patch: &Value) -> Value {
    changed(json!({"dynamicSecret": "orders-app", "verifier": verifier()}), patch)
}

#[allow(clippy::too_many_lines, reason = "one table")]
fn refused() -> Vec<(Value, &'static str)> {
    let form = "verifier must be SCRAM-SHA-256$4096:<salt of 16 bytes>$<stored key>:<server key>, in base64";
    let either = "write either verifier (you keep the password) or target (a Secret is made)";
    let name = "target name must be a Kubernetes object name";
    let good = verifier();
    let mut rows: Vec<_> = [
        // PostgreSQL takes whatever is not exactly a verifier for a plain password.
        "a-password".to_owned(),
        "md5d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        String::new(),
        good.replace("4096", "1"),
        good.replace("4096", "4097"),
        good.replace("SHA-256", "SHA-1"),
        good.replace("==$", "$"),
        good.replace("AAAA", "AA"),
        good.replace('b', "!"),
        format!("{good}\n"),
        format!(" {good}"),
        format!("{good}x"),
    ]
    .into_iter()
    .map(|wrong| (spec(&json!({"verifier": wrong})), form))
    .collect();
    for wrong in ["Orders", "a_b", "../x", "a/b"] {
        rows.push((spec(&json!({"verifier": null, "target": {"name": wrong}})), name));
    }
    for wrong in ["../x", "a/b", "A"] {
        rows.push((
            spec(&json!({"dynamicSecret": wrong})),
            "dynamicSecret must be a Kubernetes object name",
        ));
    }
    let bound = |patch: Value| {
        let pod = json!({"kind": "Pod", "name": "worker", "uid": "6f1b9f7e-3a53-4b36-9d0f-0f8e9f6c2a11"});
        spec(&json!({"boundTo": changed(pod, &patch)}))
    };
    for wrong in ["../x", "a/b", "A"] {
        rows.push((
            bound(json!({"name": wrong})),
            "boundTo name must be a Kubernetes object name",
        ));
    }
    rows.extend([
        (
            bound(json!({"kind": "Deployment"})),
            "spec.boundTo.kind: Unsupported value",
        ),
        // Whoever has the name later is somebody else.
        (bound(json!({"uid": null})), "spec.boundTo.uid: Required value"),
        (bound(json!({"uid": ""})), "spec.boundTo.uid"),
    ]);
    // The same bytes spelt otherwise: one verifier has one spelling, and engines take no other.
    for (last, other) in [("A==", "B=="), ("c=:", "d=:"), ("8=", "9=")] {
        let spelt = verifier().replace(last, other);
        rows.push((spec(&json!({"verifier": spelt})), "verifier must be SCRAM-SHA-256$4096"));
    }
    rows.extend([
        (spec(&json!({"target": {"name": "x"}})), either),
        (spec(&json!({"verifier": null})), either),
        (
            spec(&json!({"verifier": null, "target": {"name": ""}})),
            "spec.target.name",
        ),
        (
            spec(&json!({"dynamicSecret": null})),
            "spec.dynamicSecret: Required value",
        ),
        (spec(&json!({"dynamicSecret": ""})), "spec.dynamicSecret"),
        (spec(&json!({"ttl": 9})), "ttl must be at least 10 seconds"),
        (spec(&json!({"ttl": "9s"})), "ttl must be at least 10 seconds"),
        (spec(&json!({"ttl": "soon"})), "a length of time is seconds"),
    ]);
    rows
}

#[tokio::test]
async fn a_sound_request_for_a_credential_is_stored_as_it_was_written() {
    let rows = vec![
        spec(&json!({})),
        spec(&json!({"ttl": "10m"})),
        spec(&json!({"verifier": null, "target": {"name": "my-db"}})),
        spec(&json!({"boundTo": {"kind": "Job", "name": "nightly", "uid": "6f1b9f7e-3a53-4b36-9d0f-0f8e9f6c2a11"}})),
    ];
    accepts("CredentialLease", rows).await;
}

#[tokio::test]
async fn an_unsound_request_for_a_credential_is_refused_with_what_would_be_right() {
    refuses("CredentialLease", &refused()).await;
}

#[tokio::test]
async fn every_rule_for_leases_has_an_example_that_it_refuses() {
    // The pairs inside a claim are written by the operator, in the form that dynamic secrets are held to.
    let elsewhere = [IMMUTABLE, "what must be words", "where must be"];
    covers_every_rule("credentialleases", &refused(), &elsewhere).await;
}

#[tokio::test]
async fn nothing_in_the_spec_of_a_lease_ever_changes() {
    let leases = api(&client().await, "CredentialLease");
    let lease = serde_json::from_value(object("CredentialLease", "settled", &spec(&json!({"ttl": 60})))).unwrap();
    leases.create(&PostParams::default(), &lease).await.unwrap();
    let other = verifier().replace('b', "c");
    let changes = [
        json!({"dynamicSecret": "another"}),
        json!({"verifier": other}),
        json!({"verifier": null, "target": {"name": "x"}}),
        json!({"ttl": 61}),
        json!({"ttl": "60"}),
        json!({"ttl": null}),
        json!({"boundTo": {"kind": "Pod", "name": "another", "uid": "u"}}),
        json!({"claim": claim()}),
    ];
    for change in changes {
        let patch = Patch::Merge(json!({"spec": change}));
        let refused = leases.patch("settled", &PatchParams::default(), &patch).await;
        let text = refused.expect_err(&format!("{change} was accepted")).to_string();
        assert!(text.contains(IMMUTABLE), "{change}: {text}");
    }
    let labelled = Patch::Merge(json!({"metadata": {"labels": {"team": "shop"}}}));
    leases
        .patch("settled", &PatchParams::default(), &labelled)
        .await
        .unwrap();
    leases.delete("settled", &DeleteParams::default()).await.unwrap();
}

fn claim() -> Value {
    let at = "2030-01-01T00:00:00Z";
    json!({
        "maker": {"holder": "op-1", "term": 1}, "dynamicSecretUid": "u", "serial": 1, "server": "server-x",
        "pool": {"namespace": "databases", "name": "orders", "uid": "p"},
        "group": {"name": "dsvg_x", "grants": [], "since": at}, "userPrefix": "", "fingerprint": "f", "ttlSeconds": 60,
        "claimedAt": at, "issueDeadline": at, "validUntil": at, "expiresAt": at, "ownedObjects": "Reassign",
    })
}
