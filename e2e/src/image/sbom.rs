//! The list of components that a program is made of, as CycloneDX, from what Cargo resolved with `Cargo.lock`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::places;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// Nothing for what is linked; `dev` and `build` otherwise.
    kind: Option<String>,
}

/// Everything that is linked into the programs of a package.
pub fn of(package: &str) -> Result<Value> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform"])
        .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .current_dir(places::workspace())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo metadata failed; its message is above");
    list(&serde_json::from_slice(&output.stdout)?, package)
}

fn list(metadata: &Metadata, package: &str) -> Result<Value> {
    let root = metadata.packages.iter().find(|found| found.name == package);
    let root = root.with_context(|| format!("Cargo knows no package {package}"))?;
    let nodes: BTreeMap<&str, &Node> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| (node.id.as_str(), node))
        .collect();
    let (mut linked, mut open) = (BTreeSet::new(), vec![root.id.as_str()]);
    while let Some(id) = open.pop() {
        let Some(node) = nodes.get(id).filter(|_| linked.insert(id)) else {
            continue;
        };
        let links = |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
        open.extend(node.deps.iter().filter(links).map(|dependency| dependency.pkg.as_str()));
    }
    let mut components: Vec<(&str, &str, Value)> = metadata
        .packages
        .iter()
        .filter(|found| found.id != root.id && linked.contains(found.id.as_str()))
        .map(|found| (found.name.as_str(), found.version.as_str(), component(found)))
        .collect();
    components.sort_by_key(|(name, version, _)| (*name, *version));
    let components: Vec<Value> = components.into_iter().map(|(_, _, value)| value).collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": root.name, "version": root.version}},
        "components": components,
    }))
}

fn component(package: &Package) -> Value {
    let licenses: Vec<Value> = package
        .license
        .iter()
        .map(|license| json!({"expression": license}))
        .collect();
    json!({
        "type": "library",
        "name": package.name,
        "version": package.version,
        "purl": format!("pkg:cargo/{}@{}", package.name, package.version),
        "licenses": licenses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_tests_and_builds_use_is_not_listed() {
        let metadata: Metadata = serde_json::from_value(json!({
            "packages": [
                {"id": "a", "name": "a", "version": "1.0.0", "license": "MIT"},
                {"id": "b", "name": "b", "version": "2.0.0", "license": null},
                {"id": "c", "name": "c", "version": "3.0.0", "license": "MIT"},
            ],
            "resolve": {"nodes": [
                {"id": "a", "deps": [
                    {"pkg": "b", "dep_kinds": [{"kind": "dev"}, {"kind": null}]},
                    {"pkg": "c", "dep_kinds": [{"kind": "build"}]},
                ]},
                {"id": "b", "deps": []},
                {"id": "c", "deps": []},
            ]},
        }))
        .unwrap();
        let list = list(&metadata, "a").unwrap();
        let purls: Vec<&Value> = list["components"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["purl"])
            .collect();
        assert_eq!(purls, ["pkg:cargo/b@2.0.0"]);
    }
}
