//! What a machine must have for a node. Seen to before anything is built; what cannot be had is told in one sentence.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Uid;

use crate::cluster::find_on_path;
use crate::programs::debian;

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

/// Installs what is missing, and fails with what cannot be had.
pub fn check() -> Result<()> {
    if !Uid::effective().is_root() {
        bail!("a node needs root, since it makes network namespaces and mounts; `make test` covers the rest without");
    }
    let packages = lacking();
    if !packages.is_empty() {
        debian::install(&packages).context("a node needs programs that this machine lacks")?;
        let packages = lacking();
        ensure!(
            packages.is_empty(),
            "{} were installed, and their programs are not on the PATH",
            packages.join(" ")
        );
    }
    namespaces()
}

/// Packages of which a program is missing.
fn lacking() -> Vec<&'static str> {
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
    packages
}

/// Root in a container often may not make any.
fn namespaces() -> Result<()> {
    let tried = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--", "true"])
        .output()?;
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr);
        bail!(
            "a node needs namespaces of its own, and root may make none here ({})",
            why.trim()
        );
    }
    Ok(())
}
