//! Where things lie on this machine: the workspace, its build output, the cache of built programs, and which user runs PostgreSQL.

use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User};

/// Root of the workspace this crate was built from.
pub fn workspace() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.parent().unwrap_or(crate_dir).to_path_buf()
}

/// Folder with the built programs of this project: `DSV_BIN_DIR`, else the profile folder of the running program.
pub fn bin_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("DSV_BIN_DIR") {
        return Ok(PathBuf::from(dir));
    }
    let exe = env::current_exe().context("cannot tell where the running program lies")?;
    let dir = exe.parent().context("the running program has no folder")?;
    // Test programs lie one level deeper, in `deps` or `examples`.
    let profile = match dir.file_name().and_then(|name| name.to_str()) {
        Some("deps" | "examples") => dir.parent().unwrap_or(dir),
        _ => dir,
    };
    Ok(profile.to_path_buf())
}

/// One program of this project, which `cargo build` must have made before.
pub fn own_program(name: &str) -> Result<PathBuf> {
    let path = bin_dir()?.join(name);
    if !path.is_file() {
        bail!(
            "{} is not built: run `cargo build` in the workspace, or point DSV_BIN_DIR to the folder that has {name}",
            path.display()
        );
    }
    Ok(path)
}

/// Cargo's output folder of the running program, where run folders lie.
pub fn target_dir() -> Result<PathBuf> {
    if env::var_os("DSV_BIN_DIR").is_none()
        && let Ok(profile) = bin_dir()
        && let Some(target) = profile.parent()
        && target.join("CACHEDIR.TAG").is_file()
    {
        return Ok(target.to_path_buf());
    }
    Ok(workspace().join("target"))
}

/// Who runs a database server. PostgreSQL refuses to run as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// The account we run under ourselves.
    pub fn ours() -> Self {
        Self {
            uid: Uid::effective().as_raw(),
            gid: Gid::effective().as_raw(),
        }
    }

    /// Ourselves, or when we are root the user `postgres`, or where there is none the user `nobody`.
    pub fn for_postgres() -> Self {
        if !Uid::effective().is_root() {
            return Self::ours();
        }
        for name in ["postgres", "nobody"] {
            if let Ok(Some(user)) = User::from_name(name) {
                return Self {
                    uid: user.uid.as_raw(),
                    gid: user.gid.as_raw(),
                };
            }
        }
        Self { uid: 65534, gid: 65534 }
    }

    pub fn is_ours(self) -> bool {
        self.uid == Uid::effective().as_raw()
    }

    /// Whether this account may pass through every folder on the way to `path`; folders that do not exist yet are taken as passable.
    pub fn reaches(self, path: &Path) -> bool {
        self.is_ours()
            || path
                .ancestors()
                .filter(|dir| dir.is_dir())
                .all(|dir| self.may_enter(dir))
    }

    fn may_enter(self, dir: &Path) -> bool {
        let Ok(meta) = fs::metadata(dir) else { return false };
        let mode = meta.permissions().mode();
        if meta.uid() == self.uid {
            mode & 0o100 != 0
        } else if meta.gid() == self.gid {
            mode & 0o010 != 0
        } else {
            mode & 0o001 != 0
        }
    }
}

/// The user's cache folder of this project: `$XDG_CACHE_HOME/dsv-operator`, else `~/.cache/dsv-operator`.
pub fn cache_dir() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(dir) if Path::new(&dir).is_absolute() => PathBuf::from(dir),
        _ => PathBuf::from(
            env::var_os("HOME")
                .context("HOME is not set, so there is no place for the cache of built programs; set XDG_CACHE_HOME")?,
        )
        .join(".cache"),
    };
    Ok(base.join("dsv-operator"))
}

/// A cache folder from which `account` can run programs. Root's own cache is often closed to others; then it is the system's.
pub fn cache_dir_for(account: Account) -> Result<PathBuf> {
    let own = cache_dir()?;
    if account.reaches(&own) {
        return Ok(own);
    }
    Ok(PathBuf::from("/var/cache/dsv-operator"))
}
