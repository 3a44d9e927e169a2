//! `kubectl dsv who`: to whom an account of the database belongs, and which pods use it.

use super::connect::Cluster;
use super::error::Intention;
use super::get::target;
use super::{Error, Output, exec, show};
use crate::api::CredentialLease;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;

/// Runs the command.
pub async fn run(cluster: &Cluster, asked: &str, via: Option<String>, output: Output) -> Result<(), Error> {
    let Ok(process) = asked.parse::<u32>() else {
        return of_user(cluster, asked, output).await;
    };
    let Some(name) = via else {
        return Err(Error::Refused(format!(
            "only the database knows its processes: SELECT usename FROM pg_stat_activity WHERE pid = {process} names the \
             user; or let kubectl dsv ask it by an account of its own: kubectl dsv who {process} --via DYNAMICSECRET"
        )));
    };
    let user = Box::pin(user_of(cluster, name, process)).await?;
    of_user(cluster, &user, output).await
}

/// The user of a server process, as the server of a dynamic secret tells an account that is made for the question.
async fn user_of(cluster: &Cluster, name: String, process: u32) -> Result<String, Error> {
    // A number, so nothing of it is quoted.
    let query = format!("SELECT usename FROM pg_catalog.pg_stat_activity WHERE pid = {process}");
    let words = [
        "psql",
        "--no-psqlrc",
        "--tuples-only",
        "--no-align",
        "--command",
        &query,
    ];
    let answer = Box::pin(exec::answer(cluster, name.clone(), &words)).await?;
    let user = answer.trim().to_owned();
    if user.is_empty() {
        return Err(Error::Refused(format!(
            "the server of DynamicSecret {name} has no process {process} of any user; has it ended, or is it of another server?"
        )));
    }
    Ok(user)
}

async fn of_user(cluster: &Cluster, user: &str, output: Output) -> Result<(), Error> {
    let leases: Api<CredentialLease> = Api::all(cluster.client.clone());
    let all = leases
        .list(&ListParams::default())
        .await
        .to(|| "list the leases of all namespaces".to_owned())?;
    let owns = |lease: &&CredentialLease| {
        let status = lease.status.as_ref();
        status.and_then(|status| status.username.as_deref()) == Some(user)
    };
    let Some(lease) = all.items.iter().find(owns) else {
        return Err(Error::Refused(format!(
            "no lease has the account {user}: either its lease is over and the account with it, or it is not of this \
             installation; the condition Audited of the EnginePool tells of accounts that nobody knows"
        )));
    };
    let pods = match target(lease) {
        Some(secret) => pods_with(cluster, &lease.namespace().unwrap_or_default(), &secret).await?,
        None => Vec::new(),
    };
    tell(user, lease, &pods, output)
}

fn tell(user: &str, lease: &CredentialLease, pods: &[String], output: Output) -> Result<(), Error> {
    let status = lease.status.clone().unwrap_or_default();
    let expires = status.expires_at.as_ref().map(|at| at.0);
    let namespace = lease.namespace().unwrap_or_default();
    if output != Output::Table {
        return show::print_value(
            output,
            &json!({
                "user": user, "namespace": namespace, "dynamicSecret": lease.spec.dynamic_secret, "lease": lease.name_any(),
                "secret": target(lease), "pods": pods, "boundTo": lease.spec.bound_to, "engine": status.issued_by,
                "expiresAt": expires.map(|at| at.to_string()),
            }),
        );
    }
    let unknown = || "-".to_owned();
    let now = Timestamp::now();
    let asked_by = match target(lease) {
        Some(secret) => format!("Secret {namespace}/{secret}"),
        None => "whoever made the lease".to_owned(),
    };
    let rows = [
        ("user", user.to_owned()),
        ("DynamicSecret", format!("{namespace}/{}", lease.spec.dynamic_secret)),
        ("lease", format!("{namespace}/{}", lease.name_any())),
        ("password in", asked_by),
        ("pods", if pods.is_empty() { unknown() } else { pods.join(", ") }),
        (
            "ends with",
            lease.spec.bound_to.as_ref().map_or_else(unknown, ToString::to_string),
        ),
        ("issued by", status.issued_by.unwrap_or_else(unknown)),
        ("ends", expires.map_or_else(unknown, |at| show::from_now(now, at))),
    ];
    let rows = rows.map(|(name, value)| [name.to_owned(), value]);
    show::print(&show::table(["FIELD", "VALUE"], rows.into()))
}

/// Pods of the namespace that read the Secret, by mount or by environment.
async fn pods_with(cluster: &Cluster, namespace: &str, secret: &str) -> Result<Vec<String>, Error> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let pods = match api.list(&ListParams::default()).await {
        Ok(pods) => pods,
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            show::remark(&format!("you may not list the pods of namespace {namespace}"));
            return Ok(Vec::new());
        }
        other => other.to(|| format!("list the pods of namespace {namespace}"))?,
    };
    let reads = |pod: &&Pod| pod.spec.as_ref().is_some_and(|spec| reads(spec, secret));
    Ok(pods.items.iter().filter(reads).map(ResourceExt::name_any).collect())
}

fn reads(spec: &PodSpec, secret: &str) -> bool {
    let mounted = spec.volumes.iter().flatten().any(|volume| holds(volume, secret));
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    mounted || containers.into_iter().any(|container| sees(container, secret))
}

fn holds(volume: &Volume, secret: &str) -> bool {
    let plain = volume.secret.as_ref().and_then(|source| source.secret_name.as_deref()) == Some(secret);
    let sources = volume
        .projected
        .iter()
        .flat_map(|projected| projected.sources.iter().flatten());
    plain
        || sources
            .filter_map(|source| source.secret.as_ref())
            .any(|source| source.name == secret)
}

fn sees(container: &Container, secret: &str) -> bool {
    let whole = container
        .env_from
        .iter()
        .flatten()
        .filter_map(|from| from.secret_ref.as_ref());
    let one = container.env.iter().flatten().filter_map(|variable| {
        let from = variable.value_from.as_ref()?;
        from.secret_key_ref.as_ref()
    });
    whole
        .map(|from| &from.name)
        .chain(one.map(|from| &from.name))
        .any(|name| name == secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(fields: &serde_json::Value) -> PodSpec {
        let mut whole = json!({"containers": [{"name": "app"}]});
        for (name, value) in fields.as_object().unwrap() {
            whole[name] = value.clone();
        }
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn every_way_to_read_a_secret_is_seen() {
        for fields in [
            json!({"volumes": [{"name": "v", "secret": {"secretName": "app"}}]}),
            json!({"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "app"}}]}}]}),
            json!({"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "app"}}]}]}),
            json!({"containers": [{"name": "c", "env": [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "app", "key": "k"}}}]}]}),
            json!({"initContainers": [{"name": "c", "envFrom": [{"secretRef": {"name": "app"}}]}]}),
        ] {
            assert!(reads(&spec(&fields), "app"), "{fields}");
            assert!(!reads(&spec(&fields), "other"), "{fields}");
        }
        assert!(!reads(&spec(&json!({})), "app"));
    }
}
