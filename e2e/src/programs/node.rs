//! What a node needs besides the control plane, and helm: built from the Go modules below `e2e/cluster`, and only where
//! somebody asks for a node.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::cluster::{KUBERNETES, LDFLAGS, build};
use super::{digest, entry};
use crate::places;
use crate::say::say;

const HELM: [(&str, &str); 1] = [("helm", "helm.sh/helm/v3/cmd/helm")];
const NODE: [(&str, &str); 3] = [
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
];
const DNS: [(&str, &str); 1] = [("coredns", ".")];

/// Where the built programs lie.
#[derive(Clone, Debug)]
pub struct Node {
    helm: PathBuf,
    kubernetes: PathBuf,
    dns: PathBuf,
}

impl Node {
    pub fn helm(&self) -> PathBuf {
        self.helm.clone()
    }

    pub fn kubelet(&self) -> PathBuf {
        self.kubernetes.join("kubelet")
    }

    pub fn proxy(&self) -> PathBuf {
        self.kubernetes.join("kube-proxy")
    }

    pub fn scheduler(&self) -> PathBuf {
        self.kubernetes.join("kube-scheduler")
    }

    pub fn dns(&self) -> PathBuf {
        self.dns.join("coredns")
    }
}

/// Helm alone, for those who only look at the chart.
pub fn helm() -> Result<PathBuf> {
    Ok(module("cluster/node", "helm", &["go.mod", "go.sum"], &HELM)?.join("helm"))
}

/// The programs, built now if the cache has none for these modules and flags.
pub fn node() -> Result<Node> {
    Ok(Node {
        helm: helm()?,
        kubernetes: module(
            "cluster/node",
            &format!("node-{KUBERNETES}"),
            &["go.mod", "go.sum"],
            &NODE,
        )?,
        dns: module("cluster/dns", "dns", &["go.mod", "go.sum", "main.go"], &DNS)?,
    })
}

/// Programs of a Go module below `e2e`. They are built anew when one of `files` changes.
pub(super) fn module(folder: &str, name: &str, files: &[&str], targets: &[(&str, &str)]) -> Result<PathBuf> {
    let module = places::workspace().join("e2e").join(folder);
    let mut parts = files
        .iter()
        .map(|file| fs::read(module.join(file)).with_context(|| format!("cannot read e2e/{folder}/{file}")))
        .collect::<Result<Vec<_>>>()?;
    parts.push(LDFLAGS.as_bytes().to_vec());
    parts.push(std::env::consts::ARCH.as_bytes().to_vec());
    let key = digest(parts.iter().map(Vec::as_slice));
    let names: Vec<&str> = targets.iter().map(|(name, _)| *name).collect();
    entry(&places::cache_dir()?, &format!("{name}-{key}"), &names, |half| {
        say(format!(
            "building {} from Go modules; the first time this takes several minutes",
            names.join(", ")
        ));
        build(&module, targets, half)
    })
}
