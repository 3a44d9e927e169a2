//! Leases that end with a Pod, Job or ServiceAccount.
//!
//! There is no node here, so pods never run: that one has run to its end is written into its status by the test, as a kubelet
//! would. What follows for a Job is the work of the real controller.

use anyhow::ensure;
use e2e::objects::{condition, text};
use e2e::scene::{PATIENCE, Scene};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::modes::scene;

fn containers() -> Value {
    json!([{"name": "app", "image": "app.invalid/app"}])
}

async fn make(scene: &Scene<'_>, kind: &str, name: &str) -> Value {
    let (version, spec) = match kind {
        "Pod" => (
            "v1",
            json!({"automountServiceAccountToken": false, "containers": containers()}),
        ),
        "Job" => (
            "batch/v1",
            json!({"template": {"spec": {"restartPolicy": "Never", "automountServiceAccountToken": false, "containers": containers()}}}),
        ),
        _ => ("v1", Value::Null),
    };
    let mut whole = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": &*scene.shop}});
    if !spec.is_null() {
        whole["spec"] = spec;
    }
    // The account that pods run as comes a moment after their namespace.
    let create = || async { Ok(Some(scene.objects.create(&whole).await?)) };
    let what = format!("{kind} {name} is made");
    scene.stack.eventually(&what, PATIENCE, create).await.unwrap()
}

/// Asks for a lease that is bound to such an object, with a Secret of the same name.
async fn ask(scene: &Scene<'_>, name: &str, kind: &str, owner: &Value) {
    let bound = json!({"kind": kind, "name": text(owner, "/metadata/name"), "uid": text(owner, "/metadata/uid")});
    let spec = json!({"target": {"name": name}, "boundTo": bound});
    scene.lease("app", name, &spec).await.unwrap();
}

async fn succeed(scene: &Scene<'_>, pod: &str) {
    let pods = scene.objects.api("Pod", &scene.shop).unwrap();
    let done = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    pods.patch_status(pod, &PatchParams::default(), &done).await.unwrap();
}

async fn pod_of_job(scene: &Scene<'_>, job: &str) -> String {
    let find = || async {
        let pods = scene.objects.list("Pod", &scene.shop).await?;
        let of_job = |pod: &&Value| text(pod, "/metadata/labels/batch.kubernetes.io~1job-name") == job;
        Ok(pods.iter().find(of_job).map(|pod| text(pod, "/metadata/name")))
    };
    let what = format!("job {job} has a pod");
    scene.stack.eventually(&what, PATIENCE, find).await.unwrap()
}

async fn ended(scene: &Scene<'_>, name: &str, user: &str) {
    scene.wait_no_role(user).await.unwrap();
    assert!(scene.credential(name).await.unwrap().is_none(), "{name}");
    let told = || async {
        let seen = scene.seen("app").await?;
        let history = seen["status"]["history"].as_array().cloned().unwrap_or_default();
        let record = history.iter().find(|record| record["lease"] == name);
        ensure!(
            record.is_some_and(|record| record["why"] == "OwnerEnded"),
            "{history:?}"
        );
        Ok(Some(()))
    };
    let what = format!("the history tells why {name} ended");
    // In its first minute a lease stays on the books until its deadline has proven that nothing comes any more.
    scene.stack.eventually(&what, 2 * PATIENCE, told).await.unwrap();
}

#[tokio::test]
async fn a_lease_ends_when_the_pod_job_or_account_that_it_is_bound_to_has_ended() {
    let scene = scene().await;
    scene
        .ask("app", &json!({"ttl": "30m", "issuance": {"mode": "OnDemand"}}))
        .await
        .unwrap();
    let owners = [
        ("gone", "Pod"),
        ("done", "Pod"),
        ("work", "Job"),
        ("who", "ServiceAccount"),
        ("lives", "Pod"),
    ];
    for (name, kind) in owners {
        let owner = make(&scene, kind, name).await;
        ask(&scene, name, kind, &owner).await;
    }
    let mut users = Vec::new();
    for (name, _) in owners {
        let credential = scene.wait_credential_of_lease(name).await.unwrap();
        scene.use_account(&credential.login).await.unwrap();
        users.push(credential.login.user);
    }

    let live = scene.objects.get("Pod", &scene.shop, "lives").await.unwrap().unwrap();
    let mut other = live.clone();
    other["metadata"]["uid"] = json!("6f1b9f7e-3a53-4b36-9d0f-0f8e9f6c2a11");
    ask(&scene, "namesake", "Pod", &other).await;
    scene
        .wait_absent("CredentialLease", &scene.shop, "namesake")
        .await
        .unwrap();
    assert!(scene.credential("namesake").await.unwrap().is_none());
    assert_eq!(scene.accounts("app").await.unwrap().len(), owners.len());
    let events = scene.objects.list("Event", &scene.shop).await.unwrap();
    let told = |event: &Value| event["reason"] == "OwnerEnded" && event["regarding"]["name"] == "namesake";
    assert!(events.iter().any(told), "{events:?}");

    scene.objects.delete("Pod", &scene.shop, "gone").await.unwrap();
    succeed(&scene, "done").await;
    succeed(&scene, &pod_of_job(&scene, "work").await).await;
    scene
        .objects
        .delete("ServiceAccount", &scene.shop, "who")
        .await
        .unwrap();
    for ((name, _), user) in owners.iter().zip(&users).take(4) {
        ended(&scene, name, user).await;
    }
    let lease = scene
        .objects
        .get("CredentialLease", &scene.shop, "lives")
        .await
        .unwrap();
    assert_eq!(condition(&lease.unwrap(), "Ready"), "True/Issued");
    assert!(scene.has_role(&users[4]).await.unwrap(), "what lives keeps its account");
}
