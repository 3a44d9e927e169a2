//! The Kubernetes a stack runs on: a control plane of its own, or the cluster that `E2E_KUBECONFIG` names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use kube::Client;
use kube::config::Kubeconfig;

use crate::control_plane::{self, ControlPlane};
use crate::kubeconfig::Endpoint;
use crate::programs;
use crate::run_dir::RunDir;
use crate::say::say;

/// Environment variable with the kubeconfig of a cluster to use instead of an own one.
pub const EXTERNAL: &str = "E2E_KUBECONFIG";

pub struct Cluster {
    kind: Kind,
    kubectl: PathBuf,
    endpoint: Endpoint,
}

enum Kind {
    Own(Box<ControlPlane>),
    External(PathBuf),
}

impl Cluster {
    /// The external cluster if one is named, else a new control plane.
    pub async fn start(run: Arc<RunDir>) -> Result<Self> {
        match std::env::var_os(EXTERNAL) {
            Some(path) => Self::external(PathBuf::from(path)).await,
            None => Ok(Self::own(ControlPlane::start_in(run).await?)),
        }
    }

    /// A control plane that somebody started.
    pub fn own(plane: ControlPlane) -> Self {
        let (kubectl, endpoint) = (plane.kubectl(), plane.endpoint().clone());
        Self {
            kind: Kind::Own(Box::new(plane)),
            kubectl,
            endpoint,
        }
    }

    async fn external(kubeconfig: PathBuf) -> Result<Self> {
        if !kubeconfig.is_file() {
            bail!("{EXTERNAL} names {}, which is not a file", kubeconfig.display());
        }
        say(format!("using the cluster of {}", kubeconfig.display()));
        let kubectl = match find_on_path("kubectl") {
            Some(kubectl) => kubectl,
            None => tokio::task::spawn_blocking(programs::cluster).await??.kubectl(),
        };
        let endpoint = endpoint_of(&kubeconfig)?;
        let cluster = Self {
            kind: Kind::External(kubeconfig),
            kubectl,
            endpoint,
        };
        let version = cluster.client().await?.apiserver_version().await;
        version.with_context(|| format!("the cluster of {EXTERNAL} does not answer"))?;
        Ok(cluster)
    }

    /// Kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        match &self.kind {
            Kind::Own(plane) => plane.kubeconfig(),
            Kind::External(path) => path.clone(),
        }
    }

    /// The control plane, unless the cluster is somebody else's.
    pub fn control_plane(&self) -> Option<&ControlPlane> {
        match &self.kind {
            Kind::Own(plane) => Some(plane),
            Kind::External(_) => None,
        }
    }

    /// Address of the API server.
    pub fn url(&self) -> &str {
        &self.endpoint.url
    }

    pub fn kubectl_program(&self) -> &Path {
        &self.kubectl
    }

    /// A client with the administrator's rights. It belongs to the calling runtime, so every test makes its own.
    pub async fn client(&self) -> Result<Client> {
        control_plane::client(&self.kubeconfig()).await
    }

    /// Runs kubectl as the administrator.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        control_plane::run_kubectl(&self.kubectl, &self.kubeconfig(), args, None)
    }

    /// `kubectl apply -f -` with one or more manifests.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        self.kubectl_with(&["apply", "-f", "-"], manifests)
    }

    /// Runs kubectl as the administrator with `input` on its standard input.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String> {
        control_plane::run_kubectl(&self.kubectl, &self.kubeconfig(), args, Some(input))
    }

    /// How to reach the API server itself.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Writes a kubeconfig that acts as a ServiceAccount by a token valid for a day, at the API server itself or through
    /// something in front of it.
    pub async fn service_account_kubeconfig(
        &self,
        (namespace, account): (&str, &str),
        endpoint: &Endpoint,
        path: &Path,
    ) -> Result<()> {
        let token = control_plane::token(self.client().await?, namespace, account).await?;
        endpoint.with_token(path, &token)
    }
}

fn endpoint_of(kubeconfig: &Path) -> Result<Endpoint> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let context = config
        .current_context
        .as_deref()
        .context("the kubeconfig has no current context")?;
    let context = config
        .contexts
        .iter()
        .find(|entry| entry.name == context)
        .and_then(|entry| entry.context.as_ref());
    let name = &context.context("the kubeconfig lacks its current context")?.cluster;
    let cluster = config
        .clusters
        .iter()
        .find(|entry| entry.name == *name)
        .and_then(|entry| entry.cluster.as_ref());
    let cluster = cluster.with_context(|| format!("the kubeconfig lacks the cluster {name}"))?;
    let authority = match (&cluster.certificate_authority_data, &cluster.certificate_authority) {
        (Some(data), _) => String::from_utf8(data_encoding::BASE64.decode(data.trim().as_bytes())?)?,
        (None, Some(file)) => std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?,
        (None, None) => bail!("the kubeconfig names no certificate authority"),
    };
    Ok(Endpoint {
        url: cluster.server.clone().context("the kubeconfig names no server")?,
        authority,
    })
}

/// A program on the PATH.
pub fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
