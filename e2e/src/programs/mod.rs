//! The programs the local cluster consists of, built or fetched once and kept in the user's cache folder.
//!
//! A cache entry is a folder that appears by rename when it is complete. One builder at a time; whoever comes second waits
//! and finds the work done.

mod browser;
mod cluster;
pub mod debian;
mod node;
mod postgres;
mod python_sdk;
mod stock;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

pub use browser::{BrowserPrograms, browser};
pub use cluster::{Cluster, KUBERNETES, cluster};
pub use node::{Node, helm, node};
pub use postgres::{Major, PostgresPrograms, postgres};
pub use python_sdk::python_sdk;
pub use stock::{StockClients, stock_clients};

use crate::places::Account;
use crate::say::say;

/// Makes sure that everything the tests start is there: Kubernetes and every promised release of PostgreSQL.
pub fn all() -> Result<()> {
    let cluster = cluster()?;
    say(format!("Kubernetes is in {}", cluster.dir.display()));
    for major in Major::ALL {
        let programs = postgres(major, Account::for_postgres())?;
        say(format!("PostgreSQL {major} is in {}", programs.bin.display()));
    }
    let clients = stock_clients()?;
    say(format!("the stock CLI is {}", clients.cli().display()));
    // The one test that needs a browser says so and passes without.
    match browser() {
        Ok(programs) => say(format!("Chromium is {}", programs.chromium.display())),
        Err(why) => say(format!("the page for people will not be tried in a browser: {why:#}")),
    }
    Ok(())
}

/// The folder `base/name`, made by `make` unless it is there with all `files`.
fn entry(base: &Path, name: &str, files: &[&str], make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let entry = base.join(name);
    let complete = || files.iter().all(|file| entry.join(file).is_file());
    if complete() {
        return Ok(entry);
    }
    fs::create_dir_all(base).with_context(|| format!("cannot make the cache folder {}", base.display()))?;
    let gate = File::create(base.join(format!("{name}.lock")))?;
    if gate.try_lock().is_err() {
        say(format!("another process is making {name}; waiting for it"));
        gate.lock()?;
    }
    if complete() {
        return Ok(entry);
    }
    let half = base.join(format!("{name}.half"));
    remove(&half)?;
    fs::create_dir(&half)?;
    make(&half)?;
    remove(&entry)?;
    fs::rename(&half, &entry).with_context(|| format!("cannot move the finished programs to {}", entry.display()))?;
    Ok(entry)
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// The first 16 hex digits of the hash over all parts.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut text = data_encoding::HEXLOWER.encode(&hash.finalize());
    text.truncate(16);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dsv-cache-{:016x}", rand::random::<u64>()));
        fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn a_complete_entry_is_not_made_again() {
        let base = scratch();
        let make = |dir: &Path| Ok(fs::write(dir.join("etcd"), "first")?);
        entry(&base, "programs", &["etcd"], make).unwrap();
        let again = entry(&base, "programs", &["etcd"], |dir| {
            Ok(fs::write(dir.join("etcd"), "second")?)
        })
        .unwrap();
        assert_eq!(fs::read_to_string(again.join("etcd")).unwrap(), "first");
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_half_written_entry_is_made_again() {
        let base = scratch();
        // One builder failed after its first file, and somebody emptied a finished entry.
        let failed = entry(&base, "programs", &["etcd", "kubectl"], |dir| {
            fs::write(dir.join("etcd"), "half")?;
            anyhow::bail!("the network went away")
        });
        assert!(failed.is_err());
        fs::create_dir(base.join("programs")).unwrap();
        fs::write(base.join("programs/etcd"), "half").unwrap();
        let made = entry(&base, "programs", &["etcd", "kubectl"], |dir| {
            assert!(
                !dir.join("etcd").exists(),
                "the leftovers of the failed builder are in the new entry"
            );
            fs::write(dir.join("etcd"), "whole")?;
            Ok(fs::write(dir.join("kubectl"), "whole")?)
        });
        assert_eq!(fs::read_to_string(made.unwrap().join("etcd")).unwrap(), "whole");
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        assert_ne!(digest([b"ab".as_slice(), b"c"]), digest([b"a".as_slice(), b"bc"]));
    }
}
