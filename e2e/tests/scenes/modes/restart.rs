//! Workloads that are restarted at a rotation, and the replaced account that lives until they have moved.
//!
//! There is no node here: the Deployment's pods are made by the real controller and never run. The test stands in for the
//! kubelet and writes the status of each pod that says it is ready; what follows from that is the controller's own work.

use anyhow::ensure;
use e2e::objects::{condition, number, text};
use e2e::places;
use e2e::scene::{PATIENCE, Scene};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::modes::{NOTICE, scene};

const NOTE: &str = "/spec/template/metadata/annotations/restarted-for.dsv.dev~1app";

fn deployment(scene: &Scene<'_>, name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": &*scene.shop},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"automountServiceAccountToken": false, "containers": [{"name": "app", "image": "app.invalid/app"}]},
            },
        },
    })
}

/// What a kubelet says of pods that run.
async fn run_pods(scene: &Scene<'_>) -> anyhow::Result<()> {
    let now = jiff::Timestamp::now().to_string();
    for pod in scene.objects.list("Pod", &scene.shop).await? {
        if condition(&pod, "Ready").starts_with("True") {
            continue;
        }
        let ready = json!({"status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
        }});
        let pods = scene.objects.api("Pod", &scene.shop)?;
        let patch = kube::api::Patch::Merge(&ready);
        match pods
            .patch_status(
                &text(&pod, "/metadata/name"),
                &kube::api::PatchParams::default(),
                &patch,
            )
            .await
        {
            // The controller removed an old one meanwhile.
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            other => drop(other?),
        }
    }
    Ok(())
}

/// Waits until the Deployment, whose pods run, is rolled out.
async fn rolled_out(scene: &Scene<'_>, name: &str) {
    let check = || async {
        run_pods(scene).await?;
        let seen = scene
            .objects
            .get("Deployment", &scene.shop, name)
            .await?
            .unwrap_or_default();
        let status = [
            "/status/observedGeneration",
            "/status/replicas",
            "/status/updatedReplicas",
            "/status/availableReplicas",
        ]
        .map(|pointer| number(&seen, pointer));
        ensure!(
            status == [number(&seen, "/metadata/generation"), 1, 1, 1],
            "{}",
            seen["status"]
        );
        Ok(Some(()))
    };
    scene
        .stack
        .eventually("the Deployment is rolled out", PATIENCE, check)
        .await
        .unwrap();
}

/// Waits for the condition; what waits for a person is looked at once a minute, and at once when the object is touched.
async fn restarted(scene: &Scene<'_>, expected: &str) -> Value {
    let check = || async {
        let touch = json!({"metadata": {"annotations": {"example.com/touched": jiff::Timestamp::now().to_string()}}});
        scene.objects.merge("DynamicSecret", &scene.shop, "app", &touch).await?;
        sleep(NOTICE / 3).await;
        let seen = scene.seen("app").await?;
        let now = condition(&seen, "Restarted");
        ensure!(now == expected, "it is {now}: {}", seen["status"]);
        Ok(Some(seen))
    };
    let what = format!("the condition Restarted becomes {expected}");
    scene.stack.eventually(&what, PATIENCE, check).await.unwrap()
}

async fn change(scene: &Scene<'_>, patch: Value) {
    scene
        .objects
        .merge("Deployment", &scene.shop, "web", &patch)
        .await
        .unwrap();
}

async fn note(scene: &Scene<'_>) -> String {
    let seen = scene.objects.get("Deployment", &scene.shop, "web").await.unwrap();
    text(&seen.unwrap(), NOTE)
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one story")]
async fn a_rotation_restarts_what_allows_it_and_the_old_account_lives_until_all_have_moved() {
    let scene = scene().await;
    scene.objects.create(&deployment(&scene, "web")).await.unwrap();
    rolled_out(&scene, "web").await;
    let spec = json!({
        "ttl": "30m",
        "issuance": {"mode": "Rotate", "overlap": "1s"},
        "target": {"restart": [{"kind": "Deployment", "name": "web"}]},
    });
    scene.ask("app", &spec).await.unwrap();
    let first = scene.wait_credential("app").await.unwrap();

    // Without the optional rights: told, and rotated all the same.
    let seen = restarted(&scene, "False/RestartForbidden").await;
    let told = seen["status"]["conditions"].to_string();
    assert!(told.contains("restarts.enabled=true"), "{told}");
    assert_eq!(condition(&seen, "Ready"), "True/Issued");
    scene.rotate("app", "one").await.unwrap();
    let second = scene.wait_serial("app", 2).await.unwrap();
    scene.use_account(&second.login).await.unwrap();

    let rights = places::workspace().join("config/rbac/optional/restarts.yaml");
    let cluster = scene.stack.cluster();
    cluster.kubectl(&["apply", "-f", rights.to_str().unwrap()]).unwrap();
    restarted(&scene, "False/RestartNotAllowed").await;
    assert_eq!(note(&scene).await, "", "nobody allowed it");
    let session = scene.use_account(&first.login).await.expect("nobody has moved yet");

    change(
        &scene,
        json!({"metadata": {"annotations": {"dsv.dev/restart": "allowed"}}}),
    )
    .await;
    let seen = restarted(&scene, "False/RollingOut").await;
    assert_eq!(note(&scene).await, second.lease, "the credential is the value");
    assert_eq!(text(&seen, "/status/restarts/0/revision"), second.lease);
    assert!(scene.has_role(&first.login.user).await.unwrap(), "old pods still run");
    rolled_out(&scene, "web").await;
    let seen = restarted(&scene, "True/RolledOut").await;
    let told = seen["status"]["conditions"].to_string();
    assert!(told.contains("the replaced account has sessions"), "{told}");
    scene
        .use_account(&first.login)
        .await
        .expect("somebody has a session of it");
    drop(session);
    scene.wait_no_role(&first.login.user).await.unwrap();
    scene.use_account(&second.login).await.expect("the current one stays");

    // Once for each credential: who rolls the template back is not fought.
    change(
        &scene,
        json!({"spec": {"template": {"metadata": {"annotations": {"restarted-for.dsv.dev/app": null}}}}}),
    )
    .await;
    restarted(&scene, "True/RolledOut").await;
    sleep(NOTICE).await;
    assert_eq!(note(&scene).await, "");

    // One that somebody paused waits for him, and no new pod is made behind his back.
    change(&scene, json!({"spec": {"paused": true}})).await;
    scene.rotate("app", "two").await.unwrap();
    let third = scene.wait_serial("app", 3).await.unwrap();
    restarted(&scene, "False/RestartPaused").await;
    assert_eq!(note(&scene).await, "");
    assert!(scene.has_role(&second.login.user).await.unwrap());
    change(&scene, json!({"spec": {"paused": false}})).await;
    restarted(&scene, "False/RollingOut").await;
    assert_eq!(note(&scene).await, third.lease);
    rolled_out(&scene, "web").await;
    restarted(&scene, "True/RolledOut").await;
    scene.wait_no_role(&second.login.user).await.unwrap();
    scene
        .change("app", &json!({"target": {"restart": null}}))
        .await
        .unwrap();
    restarted(&scene, "").await;
}
