//! The cluster a person plays with: `dsv-dev up`, `status` and `down`.
//!
//! `up` starts a supervisor in a session of its own, shows its progress and goes; the supervisor owns the run folder
//! `target/dev` and ends everything when it is told to. Should it be killed, the watcher of the run folder does.

mod supervisor;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

pub use supervisor::supervise;

use crate::cluster::EXTERNAL;
use crate::places::{self, Account};
use crate::postgres::Major;
use crate::programs;
use crate::run_dir;
use crate::say::say;

const READY: &str = "ready";
const DOWN_LIMIT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);

/// One line of `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    name: String,
    pid: Option<i32>,
    address: String,
    log: String,
}

/// Folder of the running cluster: `DSV_DEV_DIR`, else `target/dev`.
fn folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("DSV_DEV_DIR") {
        return Ok(PathBuf::from(folder));
    }
    Ok(places::target_dir()?.join("dev"))
}

fn env_file(folder: &Path) -> PathBuf {
    folder.join("env")
}

fn api_file(folder: &Path) -> PathBuf {
    folder.join("api")
}

fn pid_file(folder: &Path) -> PathBuf {
    folder.join("supervisor.pid")
}

fn status_file(folder: &Path) -> PathBuf {
    folder.join("status.json")
}

/// Starts everything, unless it runs, and returns when all of it is ready.
pub fn up(major: Option<Major>) -> Result<()> {
    let folder = folder()?;
    if run_dir::is_owned(&folder) {
        if !env_file(&folder).is_file() {
            bail!("it is being started or ended by another process right now; try again in a moment");
        }
        say("it already runs");
        status()?;
        return print_next(&folder);
    }
    let major = major.unwrap_or_else(Major::of_this_machine);
    prepare(major)?;
    let mut supervisor = Command::new(std::env::current_exe()?)
        .args(["supervise", "--postgres", &major.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the supervisor")?;
    follow(&mut supervisor)?;
    status()?;
    print_next(&folder)
}

/// What takes minutes happens here, where an interrupt ends it; the supervisor finds it done.
fn prepare(major: Major) -> Result<()> {
    for program in ["dsv-operator", "dsv-engine"] {
        places::own_program(program)?;
    }
    if std::env::var_os(EXTERNAL).is_none() {
        programs::cluster()?;
    }
    programs::postgres(major, Account::for_postgres())?;
    Ok(())
}

/// Shows what the supervisor says until it is ready. Its output is a pipe, so that it never holds the terminal.
fn follow(supervisor: &mut Child) -> Result<()> {
    let stderr = supervisor
        .stderr
        .take()
        .context("the supervisor has no standard error")?;
    let show = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    });
    let mut word = [0; READY.len()];
    let mut stdout = supervisor
        .stdout
        .take()
        .context("the supervisor has no standard output")?;
    if stdout.read_exact(&mut word).is_ok() && word == *READY.as_bytes() {
        return Ok(());
    }
    let status = supervisor.wait()?;
    let _ = show.join();
    bail!("the cluster did not come up ({status}); what was started is ended again")
}

fn print_next(folder: &Path) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "\nTo use it in this shell:\n  source {}\n  kubectl get dsv -A\n  psql orders",
        env_file(folder).display()
    )?;
    if let Ok(text) = fs::read_to_string(api_file(folder)) {
        write!(out, "{text}")?;
    }
    Ok(writeln!(out, "To end it:\n  make down")?)
}

/// Shows what runs.
pub fn status() -> Result<()> {
    let folder = folder()?;
    let mut out = std::io::stdout();
    if !run_dir::is_owned(&folder) {
        writeln!(out, "nothing runs; `make up` starts it")?;
        return Ok(());
    }
    let text = fs::read(status_file(&folder)).context("it is being started or ended right now")?;
    let rows: Vec<Row> = serde_json::from_slice(&text)?;
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["NAME", "PID", "STATE", "ADDRESS", "LOG"]);
    for row in rows {
        let alive = row.pid.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists());
        let pid = row.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        table.add_row([
            row.name,
            pid,
            if alive { "running" } else { "down" }.to_owned(),
            row.address,
            row.log,
        ]);
    }
    Ok(writeln!(out, "{table}")?)
}

/// Ends everything, also what a killed supervisor left.
pub fn down() -> Result<()> {
    let folder = folder()?;
    if !folder.exists() {
        say("nothing runs");
        return Ok(());
    }
    if run_dir::is_owned(&folder)
        && let Some(supervisor) = supervisor_of(&folder)
    {
        say("ending the operators, the engines, PostgreSQL and Kubernetes");
        kill(supervisor, Signal::SIGTERM)?;
        if !wait_unowned(&folder) {
            say(format!("the supervisor does not end within {DOWN_LIMIT:?}; killing it"));
            kill(supervisor, Signal::SIGKILL)?;
            wait_unowned(&folder);
        }
    }
    if folder.exists() {
        run_dir::sweep(&folder)?;
    }
    say("all is down");
    Ok(())
}

/// The process that holds the folder, if it is one of ours: a number alone could belong to anybody by now.
fn supervisor_of(folder: &Path) -> Option<Pid> {
    let pid = fs::read_to_string(pid_file(folder)).ok()?.trim().parse().ok()?;
    let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    words
        .split('\0')
        .any(|word| word == "supervise")
        .then(|| Pid::from_raw(pid))
}

fn wait_unowned(folder: &Path) -> bool {
    let start = Instant::now();
    while run_dir::is_owned(folder) {
        if start.elapsed() > DOWN_LIMIT {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}
