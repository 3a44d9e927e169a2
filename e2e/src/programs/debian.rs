//! Programs that nobody builds for a test come from the machine's own packages: installed now, if we are root and it is a
//! Debian.

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

/// Installs these packages. Fails with what one can do instead, in one sentence.
pub fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    let by_hand = format!("run `apt-get install --no-install-recommends {list}`");
    if !Uid::effective().is_root() || find_on_path("apt-get").is_none() {
        bail!("this machine lacks {list}: {by_hand} as root");
    }
    say(format!("installing {list} from Debian"));
    let install = [INSTALL.as_slice(), packages].concat();
    // The lists of packages may be old, or not there yet.
    if apt(&install)? || (apt(&["update", "--quiet"])? && apt(&install)?) {
        return Ok(());
    }
    bail!("{list} could not be installed: {by_hand} to see why")
}

fn apt(args: &[&str]) -> Result<bool> {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    let output = command.output().context("apt-get cannot be started")?;
    Ok(output.status.success())
}
