//! Putting the product's own manifests into a cluster, the way the manual tells users to.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::places;

/// The operator's namespace.
pub const NAMESPACE: &str = "dsv-system";
/// The operator's ServiceAccount.
pub const SERVICE_ACCOUNT: &str = "dsv-operator";

const LIMIT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(100);

/// Definitions, rights and admission policies, and waits until all of them are in force.
pub async fn install(cluster: &Cluster) -> Result<()> {
    if cluster.kubectl(&["get", "namespace", NAMESPACE]).is_err() {
        cluster.kubectl(&["create", "namespace", NAMESPACE])?;
    }
    for folder in ["crds", "config/rbac"] {
        let path = places::workspace().join(folder);
        if !path.is_dir() {
            bail!("{folder}/ is missing in the workspace: run `make crds`");
        }
        let path = path.to_str().context("the path of the workspace is not UTF-8")?;
        cluster.kubectl(&["apply", "-f", path])?;
    }
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    for probe in probes() {
        wait_refused(cluster, &probe).await?;
    }
    Ok(())
}

/// A request that one admission policy must refuse. Nothing is stored: it is a dry run.
struct Probe {
    policy: &'static str,
    /// On whose behalf; the administrator himself if none.
    user: Option<String>,
    manifest: Value,
}

fn probes() -> [Probe; 2] {
    let name = "dsv-e2e-probe";
    [
        Probe {
            policy: "dsv-operator-secrets",
            user: Some(format!("system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}")),
            manifest: json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}}),
        },
        Probe {
            policy: "dsv-operator-leases",
            user: None,
            manifest: json!({
                "apiVersion": "dsv.dev/v1alpha1",
                "kind": "CredentialLease",
                "metadata": {"name": name, "namespace": NAMESPACE, "finalizers": ["dsv.dev/revoke"]},
                "spec": {"dynamicSecret": name, "target": {"name": name}},
            }),
        },
    ]
}

/// A new policy takes a few seconds to be in force; until then what it forbids would be allowed.
async fn wait_refused(cluster: &Cluster, probe: &Probe) -> Result<()> {
    let start = Instant::now();
    let mut args = vec!["create", "--dry-run=server", "-f", "-"];
    let user = probe.user.as_ref().map(|user| format!("--as={user}"));
    args.extend(user.as_deref());
    let manifest = probe.manifest.to_string();
    loop {
        let answer = cluster.kubectl_with(&args, &manifest);
        let refused = answer.as_ref().err().map(|error| format!("{error:#}"));
        if refused.as_deref().is_some_and(|text| text.contains(probe.policy)) {
            return Ok(());
        }
        if start.elapsed() > LIMIT {
            let answer = refused.unwrap_or_else(|| "the request was allowed".to_owned());
            bail!(
                "the admission policy {} is not in force after {LIMIT:?}: {answer}",
                probe.policy
            );
        }
        tokio::time::sleep(POLL).await;
    }
}
