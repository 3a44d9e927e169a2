//! What a control plane has and does differently where a node joins it.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;

use crate::certificates::{Authority, Signed};
use crate::kubeconfig::Endpoint;

/// Name of the one node.
pub const NAME: &str = "node1";
/// Addresses of pods.
pub const PODS: &str = "10.244.0.0/16";

/// Certificates and kubeconfigs of those that come with the node.
pub fn write(authority: &Authority, endpoint: &Endpoint, dir: &Path, address: Ipv4Addr) -> Result<()> {
    authority
        .server(NAME, &[NAME], &[address.into()])?
        .write(dir, "kubelet")?;
    authority
        .client("kube-apiserver-kubelet-client", Some("system:masters"))?
        .write(dir, "kubelet-client")?;
    let user = |file: &str, signed: Signed| endpoint.with_certificate(&dir.join(file), &signed);
    let node = format!("system:node:{NAME}");
    user("kubelet.kubeconfig", authority.client(&node, Some("system:nodes"))?)?;
    user("scheduler.kubeconfig", authority.client("system:kube-scheduler", None)?)?;
    user("proxy.kubeconfig", authority.client("system:kube-proxy", None)?)?;
    // The cluster's DNS reads Services and EndpointSlices.
    user("dns.kubeconfig", authority.client("dsv-dns", Some("system:masters"))?)
}

/// Further arguments of the API server; the last of two wins.
pub fn apiserver(address: Ipv4Addr) -> Vec<String> {
    vec![
        "--bind-address=0.0.0.0".to_owned(),
        format!("--advertise-address={address}"),
        "--endpoint-reconciler-type=lease".to_owned(),
        // By default it dials a node by its name, which nobody resolves.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--kubelet-certificate-authority=ca.crt".to_owned(),
        "--kubelet-client-certificate=kubelet-client.crt".to_owned(),
        "--kubelet-client-key=kubelet-client.key".to_owned(),
    ]
}

/// Further arguments of the controller manager.
pub fn controller_manager() -> Vec<String> {
    vec!["--allocate-node-cidrs".to_owned(), format!("--cluster-cidr={PODS}")]
}
