//! A disk small enough to be filled: a file system in memory, mounted where a server keeps its data.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;

use super::Server;
use crate::places::Account;

const BALLAST: &str = "ballast";

/// A mounted disk. Dropping it unmounts it, with all that is on it.
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Mounts a new disk of so many MiB at a new folder, which belongs to `owner`.
    pub fn mount(at: &Path, mib: u32, owner: Account) -> Result<Self> {
        ensure!(
            geteuid().is_root(),
            "a full disk can only be played as root, who may mount a small one"
        );
        fs::create_dir(at)?;
        let options = format!("size={mib}m,mode=0700,uid={},gid={}", owner.uid, owner.gid);
        run("mount", &["-t", "tmpfs", "-o", &options, "dsv-e2e"].map(OsStr::new), at)?;
        Ok(Self { at: at.to_owned() })
    }

    /// Leaves not one block.
    fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.at.join(BALLAST))?;
        for piece in [1 << 20, 4096] {
            let zeros = vec![0; piece];
            loop {
                match ballast.write_all(&zeros) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn free(&self) -> Result<()> {
        // Emptied first: who removes it while it is written to frees nothing.
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(self.at.join(BALLAST))?;
        Ok(fs::remove_file(self.at.join(BALLAST))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // At once, even if a process of a killed server still has a file open there.
        let _ = run("umount", &[OsStr::new("--lazy")], &self.at);
    }
}

fn run(program: &str, arguments: &[&OsStr], at: &Path) -> Result<()> {
    let output = Command::new(program).args(arguments).arg(at).output();
    let output = output.with_context(|| format!("{program} is not there"))?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}",
            at.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

impl Server {
    /// From now on nothing can be added to what the server has on its disk.
    pub fn fill_disk(&self) -> Result<()> {
        self.small_disk()?.fill()
    }

    /// Gives back what [`Server::fill_disk`] took.
    pub fn free_disk(&self) -> Result<()> {
        self.small_disk()?.free()
    }

    fn small_disk(&self) -> Result<&Disk> {
        self.disk.as_ref().context("the server has no small disk of its own")
    }
}
