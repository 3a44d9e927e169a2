//! Release programs that need nothing of the machine they run on.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Arch;
use crate::places;

/// Which state of the source is built.
pub struct Source {
    /// `DSV_COMMIT` wins; `unknown` outside a repository; with `-changed` where files differ from the commit.
    pub commit: String,
    /// When it was committed, in seconds since 1970; `SOURCE_DATE_EPOCH` wins.
    pub time: u64,
}

impl Source {
    pub fn look() -> Self {
        let commit = std::env::var("DSV_COMMIT").ok().or_else(commit);
        let given = std::env::var("SOURCE_DATE_EPOCH").ok();
        let time = given.or_else(|| git(&["log", "-1", "--format=%ct"]));
        Self {
            commit: commit.unwrap_or_else(|| "unknown".to_owned()),
            time: time.and_then(|time| time.parse().ok()).unwrap_or_default(),
        }
    }
}

fn commit() -> Option<String> {
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => Some(commit),
        _ => Some(format!("{commit}-changed")),
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(places::workspace())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Builds the programs of the product and the client of the scenarios, and gives the folder in which they lie.
///
/// The C library is linked in: no musl target has to be installed, and names are resolved by the same code as elsewhere.
/// Paths of this machine are written as others, so that two clones give the same bytes.
/// `DSV_IMAGE_PROGRAMS` names a folder with programs that are built already.
pub fn build(source: &Source, arch: Arch) -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("DSV_IMAGE_PROGRAMS") {
        return Ok(PathBuf::from(folder));
    }
    let target = arch.target();
    let workspace = places::workspace();
    let output = places::target_dir()?;
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned(), remap(&workspace, "/dsv")];
    if let Some(cargo_home) = cargo_home() {
        flags.push(remap(&cargo_home, "/cargo"));
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args([
            "build",
            "--locked",
            "--release",
            "--bins",
            "-p",
            "dsv-operator",
            "-p",
            "dsv-client",
        ])
        .args(["--target", &target])
        .arg("--target-dir")
        .arg(&output)
        // A space may be in a path; the other variable splits at spaces.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("DSV_COMMIT", &source.commit)
        .envs(arch.linker()?)
        .current_dir(&workspace);
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(
        status.success(),
        "the release programs do not build; cargo's messages are above"
    );
    Ok(output.join(target).join("release"))
}

fn cargo_home() -> Option<PathBuf> {
    let given = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    given.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))
}
