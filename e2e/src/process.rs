//! Child processes that do not outlive us.
//!
//! All are started from one thread that lives as long as the process: the kernel's parent-death signal fires when the
//! *thread* that made the child ends, and test threads end early. `setpriv` arms that signal where the machine has it; the
//! watcher of the run folder is the second net.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::places::Account;

const POLL: Duration = Duration::from_millis(20);

/// What to start. The working directory must lie in a run folder, because that is how a process is found after a crash.
#[derive(Clone)]
pub struct Spec {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(String, String)>,
    pub dir: PathBuf,
    pub log: PathBuf,
    pub account: Account,
}

impl Spec {
    pub fn new(name: &str, program: impl Into<PathBuf>, dir: &Path) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: dir.to_path_buf(),
            log: dir.join(format!("{name}.log")),
            account: Account::ours(),
        }
    }

    #[must_use]
    pub fn args<I: IntoIterator<Item = A>, A: Into<OsString>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    #[must_use]
    pub fn account(mut self, account: Account) -> Self {
        self.account = account;
        self
    }

    #[must_use]
    pub fn log(mut self, log: PathBuf) -> Self {
        self.log = log;
        self
    }

    fn command(&self) -> Result<Command> {
        let mut command = if let Some(setpriv) = setpriv() {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program);
            command
        } else {
            Command::new(&self.program)
        };
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        // Nothing of our own environment reaches a child but these: a proxy or a KUBECONFIG of the user must not.
        command.args(&self.args).env_clear().env("LC_ALL", "C.UTF-8");
        for name in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        if !self.account.is_ours() {
            command.uid(self.account.uid).gid(self.account.gid);
        }
        Ok(command)
    }
}

fn setpriv() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let path = std::env::var_os("PATH")?;
            let found = std::env::split_paths(&path)
                .map(|dir| dir.join("setpriv"))
                .find(|file| file.is_file())?;
            // BusyBox has a setpriv that lacks this option.
            let probe = Command::new(&found)
                .args(["--pdeathsig", "KILL", "--", "true"])
                .stderr(Stdio::null())
                .status();
            probe.is_ok_and(|status| status.success()).then_some(found)
        })
        .as_deref()
}

type Order = (Command, Sender<std::io::Result<Child>>);

/// Hands the command to the thread that never ends.
fn spawn(command: Command) -> Result<Child> {
    static ORDERS: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in receiver {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (sender, receiver) = channel();
    orders
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, sender))
        .map_err(|_| anyhow!("the thread that starts processes has ended"))?;
    Ok(receiver
        .recv()
        .map_err(|_| anyhow!("the thread that starts processes has ended"))??)
}

/// A running child with its log. Dropping it kills it.
pub struct Process {
    name: String,
    pid: Pid,
    child: Mutex<Child>,
    log: PathBuf,
}

impl Process {
    pub fn start(spec: &Spec) -> Result<Self> {
        let child = spawn(spec.command()?)
            .with_context(|| format!("cannot start {} ({})", spec.name, spec.program.display()))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        Ok(Self {
            name: spec.name.clone(),
            pid,
            child: Mutex::new(child),
            log: spec.log.clone(),
        })
    }

    /// Runs to the end; on failure the error carries the end of the log.
    pub fn run(spec: &Spec) -> Result<()> {
        let process = Self::start(spec)?;
        let status = process.child.lock().unwrap_or_else(PoisonError::into_inner).wait()?;
        if !status.success() {
            bail!("{} failed ({status}):\n{}", spec.name, process.log_tail(40));
        }
        Ok(())
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Everything written so far to standard output and standard error.
    pub fn log_text(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log_text(), lines)
    }

    /// The exit status, once it has ended.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .try_wait()
            .ok()
            .flatten()
    }

    pub fn is_running(&self) -> bool {
        self.ended().is_none()
    }

    /// Fails with the end of its log if the process is no longer there.
    pub fn check(&self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended early ({status}); the end of its log:\n{}",
                self.name,
                self.log_tail(40)
            ),
        }
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock and only while it is not reaped: afterwards the number may be someone else's.
        if child.try_wait()?.is_none() {
            kill(self.pid, signal).with_context(|| format!("cannot send {signal} to {}", self.name))?;
        }
        Ok(())
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill9(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Asks with `signal`, waits up to `limit`, then kills. True if it ended by itself.
    pub fn end(&self, signal: Signal, limit: Duration) -> bool {
        let start = Instant::now();
        if self.signal(signal).is_ok() {
            while start.elapsed() < limit {
                if self.ended().is_some() {
                    return true;
                }
                std::thread::sleep(POLL);
            }
        }
        self.kill9();
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The last `lines` lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}
