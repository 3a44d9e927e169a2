//! Chromium and its driver, from the machine's own packages: nobody builds a browser for a test, and any recent one will do.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use crate::cluster::find_on_path;
use crate::say::say;

const INSTALL: [&str; 6] = [
    "-o",
    "DPkg::Lock::Timeout=600",
    "install",
    "--yes",
    "--no-install-recommends",
    "--quiet",
];
const PACKAGES: [&str; 2] = ["chromium", "chromium-driver"];

/// Where the programs lie.
#[derive(Clone, Debug)]
pub struct BrowserPrograms {
    pub chromium: PathBuf,
    pub driver: PathBuf,
}

fn found() -> Option<BrowserPrograms> {
    Some(BrowserPrograms {
        chromium: find_on_path("chromium").or_else(|| find_on_path("google-chrome"))?,
        driver: find_on_path("chromedriver")?,
    })
}

/// The browser of this machine; installed now if there is none, we are root and Debian's packages can be had. Fails with
/// what is missing, in one sentence.
pub fn browser() -> Result<BrowserPrograms> {
    if let Some(found) = found() {
        return Ok(found);
    }
    let by_hand = format!("run `apt-get install --no-install-recommends {}`", PACKAGES.join(" "));
    if !Uid::effective().is_root() || find_on_path("apt-get").is_none() {
        bail!("this machine has no chromium and chromedriver: {by_hand} as root");
    }
    say(format!("installing {} from Debian", PACKAGES.join(" and ")));
    if !apt(&[INSTALL.as_slice(), &PACKAGES].concat())? {
        // The lists of packages may be old, or not there yet.
        apt(&["update", "--quiet"])?;
        apt(&[INSTALL.as_slice(), &PACKAGES].concat())?;
    }
    found().with_context(|| format!("chromium and chromedriver could not be installed: {by_hand} to see why"))
}

fn apt(args: &[&str]) -> Result<bool> {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    let output = command.output().context("apt-get cannot be started")?;
    Ok(output.status.success())
}
