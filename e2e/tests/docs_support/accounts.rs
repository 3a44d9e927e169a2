//! Programs that act with the rights of a ServiceAccount that a manifest gives them, and no others; and what Argo CD says
//! of the objects that all of this leaves.

use e2e::service::Service;

use super::argocd::health;
use super::text::page;
use super::world::World;

/// What the pod of `helm test` does, with its rights and no others. It goes on beside the rest.
pub fn trial(world: &World) -> Service {
    let manifest = "charts/dsv-operator/templates/rights-trial.yaml";
    let script = format!(
        "sed -e '/^{{{{-/d' -e 's/{{{{.Release.Namespace}}}}/dsv-system/' -e 's/{{{{.Values.trial.namespace}}}}/shop/' {manifest} | kubectl apply -f -"
    );
    world.bash("trial-rights", &script).unwrap();
    let kubeconfig = world.act_as("dsv-system", "dsv-operator-trial");
    let script = format!(
        "KUBECONFIG={} exec dsv-operator trial --namespace shop --dynamic-secret orders-adhoc",
        kubeconfig.display()
    );
    world.service("trial", &script).unwrap()
}

pub async fn trial_ended_well(world: &World, trial: &Service) {
    let ended = || (!trial.is_running()).then(|| trial.log_text());
    let said = world.eventually("`dsv-operator trial` ends", ended).await.unwrap();
    for step in [
        "the account was issued, and is being taken back",
        "the account is proven gone",
    ] {
        assert!(said.contains(step), "{said}");
    }
    let left = world
        .bash("trials", "kubectl -n shop get credentialleases -o name")
        .unwrap();
    assert!(!left.contains("dsv-trial-"), "{left}");
}

/// The program of the sample's CronJob, with the rights that the sample gives it.
pub fn nightly(world: &World) {
    let sample = page("config/samples/consumer-cronjob.yaml");
    let rights = sample.split("---\n").filter(|part| !part.contains("kind: CronJob"));
    let rights = rights.collect::<Vec<_>>().join("---\n");
    let script = format!("kubectl apply -f - <<'YAML'\n{rights}\nYAML");
    world.bash("nightly-rights", &script).unwrap();
    let (_, command) = sample.split_once("command: [").unwrap();
    let (command, _) = command.split_once(", psql,").unwrap();
    let command = command.replace(',', " ");
    let kubeconfig = world.act_as("shop", "orders-nightly");
    let script = format!(
        "KUBECONFIG={} {command} sh -c 'echo \"$PGUSER@$PGHOST:$PGPORT/$PGDATABASE\"'",
        kubeconfig.display()
    );
    let said = world.bash("nightly", &script).unwrap();
    let end = format!(":{}/orders", world.port());
    assert!(
        said.lines()
            .any(|line| line.starts_with("shop_orders-adhoc_") && line.ends_with(&end)),
        "{said}"
    );
}

/// Objects as the operator leaves them are healthy for Argo CD.
pub fn argo_cd(world: &World) {
    let objects = world.json("kubectl get enginepools,engines,dynamicsecrets,credentialleases -A -o json");
    let objects = objects["items"].as_array().unwrap();
    assert!(objects.len() > 6, "{objects:?}");
    for object in objects
        .iter()
        .filter(|object| object["metadata"]["deletionTimestamp"].is_null())
    {
        let health = health(object);
        let issued = object["status"]["phase"].as_str().is_none_or(|phase| phase == "Issued");
        let own_key = object["metadata"]["name"] == "dc-east-1";
        assert!(
            health.status == "Healthy" || !issued || own_key,
            "{health:?} for {object}"
        );
    }
}
