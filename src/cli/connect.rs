//! From the command line to a client.

use super::{Error, Target, error::Intention};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::time::Duration;

/// A person waits: an API server that does not answer is reported after this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The API server, and the namespace that is meant where none is named.
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
}

/// Reads the kubeconfig. Nothing is sent yet.
pub async fn connect(target: &Target) -> Result<Cluster, Error> {
    let mut config = config(target).await?;
    config.connect_timeout = Some(PATIENCE);
    let namespace = target
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).to(|| "set up the client for the API server".to_owned())?;
    Ok(Cluster { client, namespace })
}

async fn config(target: &Target) -> Result<Config, Error> {
    let options = KubeConfigOptions {
        context: target.context.clone(),
        ..KubeConfigOptions::default()
    };
    match (&target.kubeconfig, &target.context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path).map_err(Error::Kubeconfig)?;
            Config::from_custom_kubeconfig(file, &options)
                .await
                .map_err(Error::Kubeconfig)
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(Error::Kubeconfig),
        (None, None) => Config::infer().await.map_err(Error::NoCluster),
    }
}
