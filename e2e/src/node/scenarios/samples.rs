//! The consumers of `config/samples`, as they are but for image and command: a Deployment and a StatefulSet that mount the
//! Secret, a Job that has it in its environment, and a CronJob that has an account made for each run.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::image::TAG;
use crate::node::world::{LIMIT, SHOP, World};
use crate::objects::{number, text};
use crate::places;

/// What the samples consume.
const DYNAMIC_SECRETS: [&str; 2] = ["dynamicsecret-rotate.yaml", "dynamicsecret-ondemand.yaml"];
const CONSUMERS: [&str; 4] = [
    "consumer-deployment.yaml",
    "consumer-statefulset.yaml",
    "consumer-job.yaml",
    "consumer-cronjob.yaml",
];
/// The DynamicSecret whose Secret is mounted.
const MOUNTED: &str = "orders-web";
const SETS: [(&str, usize); 2] = [("deployment/orders-web", 2), ("statefulset/orders-worker", 3)];

/// Starts all of them, and has each read rows once.
pub async fn run(world: &World) -> Result<()> {
    world.apply(&read(&DYNAMIC_SECRETS)?)?;
    world.apply(&read(&CONSUMERS)?)?;
    world.until_ready(MOUNTED)?;
    for (set, _) in SETS {
        rolled_out(world, set)?;
    }
    let account = world.account(MOUNTED)?;
    reads_as(world, &account).await?;
    ended_well(world, "orders-export").await?;
    let said = said(world, "job/orders-export")?;
    let user = said.first().map(|line| text(line, "/user")).unwrap_or_default();
    ensure!(user.starts_with("shop_orders-export_"), "the Job logged in as {user:?}");
    nightly(world).await
}

/// One run of the CronJob, as its schedule would start it; its account ends with it.
async fn nightly(world: &World) -> Result<()> {
    let start = Instant::now();
    let run = "orders-nightly-now";
    world.kubectl(&["create", "job", run, "-n", SHOP, "--from=cronjob/orders-nightly"])?;
    ended_well(world, run).await?;
    world.figure(
        "a run of a CronJob, with an account of its own that ends with it",
        start.elapsed(),
    );
    let said = said(world, &format!("job/{run}"))?;
    let user = said.first().map(|line| text(line, "/user")).unwrap_or_default();
    ensure!(user.starts_with("shop_orders-adhoc_"), "the run logged in as {user:?}");
    world.until_role_is_gone(&user).await
}

/// Another credential for those that mount it, and at the same time the Deployment's pods are replaced one by one.
pub fn rotate(world: &World) -> Result<()> {
    world.kubectl(&[
        "annotate",
        "-n",
        SHOP,
        "dynamicsecret",
        MOUNTED,
        "dsv.dev/rotate-at=now",
    ])?;
    let (deployment, _) = SETS[0];
    world.kubectl(&["rollout", "restart", "-n", SHOP, deployment]).map(drop)
}

/// After that: the new pods and those that run on read rows as the new account, and none ever failed. Then all of it goes.
pub async fn rotated(world: &World) -> Result<()> {
    rolled_out(world, SETS[0].0)?;
    let account = world.account(MOUNTED)?;
    reads_as(world, &account).await?;
    for file in CONSUMERS.iter().chain(&DYNAMIC_SECRETS) {
        let path = places::workspace().join("config/samples").join(file);
        world.kubectl(&["delete", "--wait=false", "-f", &path.display().to_string()])?;
    }
    Ok(())
}

fn rolled_out(world: &World, set: &str) -> Result<()> {
    let limit = format!("--timeout={}s", LIMIT.as_secs());
    world
        .kubectl(&["rollout", "status", "-n", SHOP, set, &limit])
        .map(drop)
        .with_context(|| world.report())
}

async fn ended_well(world: &World, job: &str) -> Result<()> {
    let succeeded = ["get", "job", job, "-n", SHOP, "-o=jsonpath={.status.succeeded}"];
    world.until(&format!("job {job} ends well"), &succeeded, "1").await
}

/// Until each pod of the sets has rows as this account. A login that failed is an error at once.
async fn reads_as(world: &World, account: &str) -> Result<()> {
    for (set, replicas) in SETS {
        let (_, name) = set.split_once('/').context("a set has a kind and a name")?;
        let what = format!("all pods of {set} read rows as {account}");
        let selector = format!("app={name}");
        world
            .eventually(&what, || async {
                let pods = [
                    "get",
                    "pods",
                    "-n",
                    SHOP,
                    "-l",
                    &selector,
                    "--field-selector=status.phase=Running",
                    "-o=name",
                ];
                let pods = world.kubectl(&pods)?;
                let mut reading = 0;
                for pod in pods.lines() {
                    let said = said(world, pod)?;
                    let last = said.last().context("it has said nothing yet")?;
                    ensure!(
                        number(last, "/answer") == 3 && text(last, "/user") == account,
                        "{pod} says {last}"
                    );
                    reading += 1;
                }
                Ok((reading >= replicas).then_some(()))
            })
            .await?;
    }
    Ok(())
}

/// What a pod or job printed. A login that failed is an error that no waiting mends, so it is one here.
fn said(world: &World, whose: &str) -> Result<Vec<Value>> {
    let log = world.kubectl(&["logs", "-n", SHOP, whose])?;
    let lines: Vec<Value> = log
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{whose} printed {log}"))?;
    if let Some(bad) = lines.iter().find(|line| line.get("error").is_some()) {
        bail!("a login of {whose} failed: {bad}");
    }
    Ok(lines)
}

/// The objects of these samples, ready for this node.
fn read(files: &[&str]) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for file in files {
        let path = places::workspace().join("config/samples").join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for part in text.split("\n---\n") {
            let mut object: Value = serde_saphyr::from_str(part).with_context(|| format!("{file} is no YAML"))?;
            adapt(&mut object)?;
            objects.push(object);
        }
    }
    Ok(objects)
}

/// Puts our own image and its arguments in place of those of a sample, and changes nothing else.
fn adapt(object: &mut Value) -> Result<()> {
    let pointer = match text(object, "/kind").as_str() {
        "Deployment" | "StatefulSet" | "Job" => "/spec/template/spec/containers/0",
        "CronJob" => "/spec/jobTemplate/spec/template/spec/containers/0",
        _ => return Ok(()),
    };
    let kind = text(object, "/kind");
    let container = object.pointer_mut(pointer).and_then(Value::as_object_mut);
    let container = container.with_context(|| format!("the sample's {kind} has no container"))?;
    container.insert("image".into(), json!(format!("dsv-client:{TAG}")));
    let command = container.remove("command").unwrap_or_default();
    match kind.as_str() {
        "Job" => container.insert("args".into(), json!(["ask"])),
        "CronJob" => container.insert("command".into(), wrapped(&command)?),
        _ => {
            // A sample loops over psql; this is a login a second with whatever the files say then.
            let mount = container
                .get("volumeMounts")
                .and_then(|mounts| mounts.pointer("/0/mountPath"));
            let folder = mount
                .and_then(Value::as_str)
                .context("the sample mounts nothing")?
                .to_owned();
            let every = Duration::from_secs(1).as_millis().to_string();
            container.insert("args".into(), json!(["follow", "--folder", folder, "--every", every]))
        }
    };
    Ok(())
}

/// `kubectl-dsv exec ... -- psql ...` with our client in place of psql.
fn wrapped(command: &Value) -> Result<Value> {
    let words = command.as_array().context("the CronJob has no command")?;
    let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
    let end = words
        .iter()
        .position(|word| *word == "--")
        .context("the command runs nothing")?;
    let (plugin, rest) = words.split_first().context("the command is empty")?;
    let plugin = format!("/{plugin}");
    let kept = rest.iter().take(end).copied();
    let all: Vec<&str> = std::iter::once(plugin.as_str())
        .chain(kept)
        .chain(["/dsv-client", "ask"])
        .collect();
    Ok(json!(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_keep_everything_but_image_and_command() {
        let all = read(&CONSUMERS).unwrap();
        let of = |kind: &str| all.iter().find(|object| object["kind"] == kind).unwrap();
        let web = &of("Deployment")["spec"]["template"]["spec"];
        assert_eq!(
            web["containers"][0]["args"],
            json!(["follow", "--folder", "/run/db", "--every", "1000"])
        );
        assert_eq!(web["containers"][0]["command"], Value::Null);
        assert_eq!(web["volumes"][0]["secret"]["secretName"], "orders-web-db");
        let export = &of("Job")["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(export["envFrom"][0]["secretRef"]["name"], "orders-export");
        let run = &of("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"];
        assert_eq!(run["serviceAccountName"], "orders-nightly");
        let command: Vec<&str> = run["containers"][0]["command"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap())
            .collect();
        assert_eq!(
            command.join(" "),
            "/kubectl-dsv exec orders-adhoc --namespace shop --ttl 20m -- /dsv-client ask"
        );
    }
}
