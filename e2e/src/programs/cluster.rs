//! etcd, kube-apiserver, kube-controller-manager and kubectl, built from the Go modules that `e2e/cluster/go.mod` pins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::{digest, entry};
use crate::places;
use crate::say::say;

/// Kubernetes release of the local cluster; the same as in `go.mod`.
pub const KUBERNETES: &str = "v1.34.4";

const TARGETS: [(&str, &str); 4] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    (
        "kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
];
const OLDEST_GO: (u32, u32) = (1, 24);
pub(super) const LDFLAGS: &str = "-s -w \
    -X k8s.io/component-base/version.gitVersion=v1.34.4 \
    -X k8s.io/component-base/version.gitMajor=1 \
    -X k8s.io/component-base/version.gitMinor=34";

/// Where the built programs lie.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub dir: PathBuf,
}

impl Cluster {
    pub fn etcd(&self) -> PathBuf {
        self.dir.join("etcd")
    }

    pub fn apiserver(&self) -> PathBuf {
        self.dir.join("kube-apiserver")
    }

    pub fn controller_manager(&self) -> PathBuf {
        self.dir.join("kube-controller-manager")
    }

    pub fn kubectl(&self) -> PathBuf {
        self.dir.join("kubectl")
    }
}

/// The programs, built now if the cache has none for these modules and flags.
pub fn cluster() -> Result<Cluster> {
    let module = places::workspace().join("e2e/cluster");
    let read = |name: &str| fs::read(module.join(name)).with_context(|| format!("cannot read e2e/cluster/{name}"));
    let key = digest([
        &read("go.mod")?,
        &read("go.sum")?,
        LDFLAGS.as_bytes(),
        std::env::consts::ARCH.as_bytes(),
    ]);
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    let dir = entry(
        &places::cache_dir()?,
        &format!("kubernetes-{KUBERNETES}-{key}"),
        &names,
        |half| {
            say(format!(
                "building Kubernetes {KUBERNETES} and etcd from Go modules; the first time this takes several minutes"
            ));
            build(&module, &TARGETS, half)
        },
    )?;
    Ok(Cluster { dir })
}

/// Builds programs, each from its package in `module`.
pub(super) fn build(module: &Path, targets: &[(&str, &str)], out: &Path) -> Result<()> {
    check_go()?;
    for (number, (name, package)) in targets.iter().enumerate() {
        say(format!("  building {name} ({} of {})", number + 1, targets.len()));
        let start = Instant::now();
        let status = Command::new("go")
            .args([
                "build",
                "-mod=readonly",
                "-trimpath",
                "-buildvcs=false",
                "-ldflags",
                LDFLAGS,
                "-o",
            ])
            .arg(out.join(name))
            .arg(package)
            .current_dir(module)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "")
            .env("GOWORK", "off")
            .env("GOTOOLCHAIN", "local")
            .stdin(Stdio::null())
            .status()
            .context("cannot run go")?;
        if !status.success() {
            bail!("go could not build {name} ({status}); its message stands above");
        }
        say(format!("  built {name} in {:.0} s", start.elapsed().as_secs_f64()));
    }
    Ok(())
}

fn check_go() -> Result<()> {
    let (major, minor) = OLDEST_GO;
    let wanted = format!("Go {major}.{minor} or newer is needed to build the local Kubernetes");
    let Ok(output) = Command::new("go")
        .args(["env", "GOVERSION"])
        .env("GOTOOLCHAIN", "local")
        .output()
    else {
        bail!("{wanted}, and there is no `go` on the PATH");
    };
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match parse_go_version(&version) {
        Some(found) if found >= OLDEST_GO => Ok(()),
        _ => bail!("{wanted}, but this machine has {version:?}"),
    }
}

fn parse_go_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix("go")?.split(['.', '-', ' ']);
    // A release candidate of 1.30 calls itself go1.30rc1.
    let number = |part: &str| part.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    Some((number(parts.next()?)?, number(parts.next()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_read_as_numbers() {
        assert_eq!(parse_go_version("go1.26.8"), Some((1, 26)));
        assert_eq!(parse_go_version("go1.9"), Some((1, 9)));
        assert_eq!(parse_go_version("go1.30rc1"), Some((1, 30)));
        assert_eq!(parse_go_version("devel"), None);
        assert!(Some((1, 9)) < Some(OLDEST_GO));
    }

    #[test]
    fn the_flags_name_the_release_of_the_module_file() {
        let module = fs::read_to_string(places::workspace().join("e2e/cluster/go.mod")).unwrap();
        assert!(module.contains(&format!("k8s.io/kubernetes {KUBERNETES} ")));
        assert!(LDFLAGS.contains(&format!("gitVersion={KUBERNETES}")));
    }
}
