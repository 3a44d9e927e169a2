//! A network, a process table and a mount table of our own, in which the node and everything around it live.
//!
//! Routes, rules and mounts stay away from the machine, and all of it ends with the first process in there, however that one ends.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};

/// The node's address.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// A tenant's name for the operator, as engines outside the cluster dial it.
pub const TENANT_HOST: &str = "databases.ws.dsv.example";
/// Only there to be routed to: without a default route kubelet finds no address for the node.
const NOWHERE: &str = "172.30.0.254";
/// What kubelet and containerd use whatever they are told.
const OVERLAID: [&str; 3] = ["/run", "/var/lib/kubelet", "/var/log/containers"];

/// Runs this program again in there, with `arguments`, and waits.
pub fn enter(arguments: &[String]) -> Result<ExitStatus> {
    for folder in OVERLAID {
        fs::create_dir_all(folder)?;
    }
    let status = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ])
        .arg(std::env::current_exe()?)
        .args(arguments)
        .status()
        .context("cannot run unshare")?;
    remove_cgroups();
    Ok(status)
}

/// Makes the network and the folders; the first thing done in there.
pub fn furnish() -> Result<()> {
    if std::process::id() != 1 {
        bail!("this command is run by `dsv-dev e2e` in namespaces of its own");
    }
    for folder in OVERLAID {
        run("mount", &["-t", "tmpfs", "-o", "mode=755", "none", folder])?;
    }
    // What runs beside the node finds Services by their names too, as a machine in the same network would.
    let names = format!("search cluster.local\nnameserver {ADDRESS}\noptions ndots:5\n");
    let hosts = format!("127.0.0.1 localhost\n{ADDRESS} {TENANT_HOST}\n");
    for (file, text) in [("resolv.conf", names), ("hosts", hosts)] {
        let (ours, theirs) = (format!("/run/{file}"), format!("/etc/{file}"));
        fs::write(&ours, text)?;
        run("mount", &["--bind", &ours, &theirs])?;
    }
    let address = format!("{ADDRESS}/24");
    for words in [
        &["link", "set", "lo", "up"][..],
        // Not every kernel has the dummy device.
        &["link", "add", "node0", "type", "bridge"],
        &["addr", "add", &address, "dev", "node0"],
        &["link", "set", "node0", "up"],
        &["route", "add", "default", "via", NOWHERE],
    ] {
        run("ip", words)?;
    }
    Ok(fs::write("/proc/sys/net/ipv4/ip_forward", "1")?)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("`{program} {}` failed: {}", arguments.join(" "), why.trim());
    }
    Ok(())
}

/// Control groups of pods outlive their processes.
fn remove_cgroups() {
    let root = Path::new("/sys/fs/cgroup");
    let mut roots = vec![root.to_path_buf()];
    roots.extend(
        fs::read_dir(root)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()),
    );
    for root in roots {
        remove_group(&root.join("kubepods"));
    }
}

/// Depth first. One that has processes is somebody else's, and stays.
fn remove_group(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
