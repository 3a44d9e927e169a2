//! An interpreter with the stock Python SDK of DevOps Secrets Vault in it, from the package index, made once per machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::entry;
use crate::places;

/// Exact versions, so that the same bytes run everywhere.
const PACKAGES: [&str; 3] = ["python-dsv-sdk==1.0.4", "requests==2.32.5", "psycopg[binary]==3.2.12"];

/// The interpreter. Fails with what the machine lacks.
pub fn python_sdk() -> Result<PathBuf> {
    let made = entry(
        &places::cache_dir()?,
        "python-dsv-sdk-1.0.4-psycopg-3.2.12",
        &["bin/python"],
        install,
    );
    let folder = made.context("the stock client needs python3 with venv, and a package index that pip reaches")?;
    Ok(folder.join("bin/python"))
}

fn install(folder: &Path) -> Result<()> {
    let path = folder.to_str().context("the cache folder's name is no text")?;
    run("python3", &["-m", "venv", "--clear", path])?;
    let python = folder.join("bin/python");
    let python = python.to_str().context("the cache folder's name is no text")?;
    let mut arguments = vec!["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    arguments.extend(PACKAGES);
    run(python, &arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("{program} cannot be started"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    bail!("{program} {} ended with {}: {last}", arguments.join(" "), output.status)
}
