//! What a machine must have for a node. Asked before anything is built, and answered in one sentence.

use anyhow::{Result, bail};
use nix::unistd::Uid;

use crate::cluster::find_on_path;

/// A program, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 8] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];
/// Where Debian has the programs that connect pods.
pub const CNI: &str = "/usr/lib/cni";
const CNI_PROGRAMS: [&str; 4] = ["ptp", "host-local", "portmap", "loopback"];

/// Fails with what is missing.
pub fn check() -> Result<()> {
    if !Uid::effective().is_root() {
        bail!("a node needs root, since it makes network namespaces and mounts; `make test` covers the rest without");
    }
    let mut packages: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| find_on_path(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    let cni = std::path::Path::new(CNI);
    if CNI_PROGRAMS.iter().any(|program| !cni.join(program).is_file()) {
        packages.push("containernetworking-plugins");
    }
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let packages = packages.join(" ");
    bail!("a node needs programs that this machine lacks: run `apt-get install --no-install-recommends {packages}`")
}
