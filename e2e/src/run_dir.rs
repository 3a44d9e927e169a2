//! The folder of one run, and the promise that nothing of a run outlives its process.
//!
//! A run folder is locked for as long as its owner lives. A small shell beside it waits for the owner's death (also by
//! `kill -9`), kills what still works in the folder and removes it. Should that shell be killed too, the next run finds a
//! folder nobody locks and sweeps it first.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::RngExt;

use crate::places::{self, Account};

const SWEEP: &str = include_str!("sweep.sh");
/// A busy machine reaps slowly, and there is nothing better to do than to wait.
const SWEEP_LIMIT: Duration = Duration::from_secs(180);
const LOCK_FILE: &str = "owner.lock";
const ANNEX_FILE: &str = "annex";

/// A folder that goes, with every process in it, when its owner goes.
pub struct RunDir {
    path: PathBuf,
    /// Where another account can reach it, if it cannot reach `path`.
    annex: Option<PathBuf>,
    next: AtomicU32,
    watchers: Vec<Watcher>,
    _lock: File,
}

static OF_THIS_PROCESS: Mutex<Option<Arc<RunDir>>> = Mutex::new(None);

impl RunDir {
    /// The run folder of this process, made on first use. It goes when the process ends.
    pub fn of_this_process() -> Result<Arc<Self>> {
        let mut slot = OF_THIS_PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = slot.as_ref() {
            return Ok(Arc::clone(dir));
        }
        let dir = Arc::new(Self::fresh()?);
        *slot = Some(Arc::clone(&dir));
        Ok(dir)
    }

    /// A new folder below `target/e2e/`, after sweeping what dead runs left there.
    pub fn fresh() -> Result<Self> {
        let base = places::target_dir()?.join("e2e");
        create(&base)?;
        // One at a time, so that a folder which exists but is not locked yet is never taken for a dead one.
        let gate = File::create(base.join("gate.lock"))?;
        gate.lock()?;
        sweep_dead(&base)?;
        let name = format!("{}-{:08x}", std::process::id(), rand::rng().random::<u32>());
        Self::claim(&base.join(name))
    }

    /// A folder at a fixed place. Fails while another process owns it; takes it over, swept, when its owner is dead.
    pub fn at(path: &Path) -> Result<Self> {
        if path.exists() {
            if is_owned(path) {
                bail!("{} belongs to a run that is still alive", path.display());
            }
            sweep(path)?;
        }
        Self::claim(path)
    }

    fn claim(path: &Path) -> Result<Self> {
        create(path)?;
        let path = path.canonicalize()?;
        let lock = File::create(path.join(LOCK_FILE))?;
        if lock.try_lock().is_err() {
            bail!("{} was claimed by another process a moment ago", path.display());
        }
        let mut dir = Self {
            watchers: vec![Watcher::start(&path)?],
            path,
            annex: None,
            next: AtomicU32::new(1),
            _lock: lock,
        };
        if !Account::for_postgres().reaches(&dir.path) {
            dir.open_annex()?;
        }
        Ok(dir)
    }

    fn open_annex(&mut self) -> Result<()> {
        let annex = std::env::temp_dir()
            .canonicalize()?
            .join(format!("dsv-e2e-{:016x}", rand::rng().random::<u64>()));
        // Named before it is made: a crash in between leaves a name without a folder, never a folder without a name.
        fs::write(self.path.join(ANNEX_FILE), annex.as_os_str().as_encoded_bytes())?;
        fs::create_dir(&annex).with_context(|| format!("cannot make {}", annex.display()))?;
        fs::set_permissions(&annex, fs::Permissions::from_mode(0o711))?;
        self.watchers.push(Watcher::start(&annex)?);
        self.annex = Some(annex);
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new folder `<name>-<n>` for one server of ours.
    pub fn subfolder(&self, name: &str) -> Result<PathBuf> {
        self.numbered(&self.path, name)
    }

    /// A new folder `<name>-<n>` that belongs to `account` and that it can reach.
    pub fn subfolder_for(&self, name: &str, account: Account) -> Result<PathBuf> {
        let base = if account.reaches(&self.path) {
            &self.path
        } else {
            self.annex.as_ref().unwrap_or(&self.path)
        };
        let dir = self.numbered(base, name)?;
        if !account.is_ours() {
            chown(&dir, Some(account.uid), Some(account.gid))
                .with_context(|| format!("cannot hand {} to uid {}", dir.display(), account.uid))?;
        }
        Ok(dir)
    }

    fn numbered(&self, base: &Path, name: &str) -> Result<PathBuf> {
        let dir = base.join(format!("{name}-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        Ok(dir)
    }
}

/// The shell that waits for our death. Dropping it closes the pipe and waits until the folder is swept.
struct Watcher(Child);

impl Watcher {
    fn start(folder: &Path) -> Result<Self> {
        sweeper(folder, Stdio::piped()).map(Self)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn sweeper(folder: &Path, stdin: Stdio) -> Result<Child> {
    let keep = if std::env::var_os("E2E_KEEP").is_some() {
        "keep"
    } else {
        ""
    };
    // Without its comments the script is short enough to be recognised in a list of processes.
    let script: Vec<&str> = SWEEP.lines().filter(|line| !line.starts_with('#')).collect();
    Command::new("sh")
        .arg("-c")
        .arg(script.join("\n"))
        .arg("dsv-sweep")
        .arg(folder)
        .arg(keep)
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()
        .context("cannot start sh, which cleans up after a killed run")
}

/// Ends every process that works in `folder` and removes the folder and its annex. Meant for folders nobody owns any more.
pub fn sweep(folder: &Path) -> Result<()> {
    let folder = folder.canonicalize()?;
    if let Ok(annex) = fs::read_to_string(folder.join(ANNEX_FILE)) {
        sweep_one(Path::new(&annex))?;
    }
    sweep_one(&folder)
}

fn sweep_one(folder: &Path) -> Result<()> {
    let mut child = sweeper(folder, Stdio::null())?;
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > SWEEP_LIMIT {
            bail!("the processes of an earlier run in {} do not end", folder.display());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if folder.exists() && std::env::var_os("E2E_KEEP").is_none() {
        bail!(
            "{} of an earlier run cannot be removed; it may belong to another user",
            folder.display()
        );
    }
    Ok(())
}

/// Whether a living process holds the lock of this run folder.
pub fn is_owned(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join(LOCK_FILE)) else {
        return false;
    };
    lock.try_lock().is_err()
}

fn sweep_dead(base: &Path) -> Result<()> {
    for entry in fs::read_dir(base)? {
        let path = entry?.path();
        if path.is_dir() && !is_owned(&path) {
            sweep(&path)?;
        }
    }
    Ok(())
}

fn create(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_account_gets_its_folder_where_it_can_reach_it() {
        let account = Account::for_postgres();
        let closed = std::env::temp_dir().join(format!("dsv-closed-{:016x}", rand::random::<u64>()));
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let run = RunDir::at(&closed.join("run")).unwrap();
        let folder = run.subfolder_for("postgres", account).unwrap();
        assert!(account.reaches(&folder), "{}", folder.display());
        drop(run);
        assert!(!folder.exists());
        fs::remove_dir(closed).expect("the run folder is gone as well");
    }

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let path = std::env::temp_dir().join(format!("dsv-owned-{:016x}", rand::random::<u64>()));
        let first = RunDir::at(&path).unwrap();
        assert!(RunDir::at(&path).is_err());
        drop(first);
        assert!(!path.exists());
    }
}
