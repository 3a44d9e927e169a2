//! One test program: how Cargo builds it, how it is run, and what it said.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::BESIDE;
use super::tally::Tally;
use crate::places;

/// Scenarios wait more than they compute, so more of them than cores go side by side.
const THREADS: &str = "12";
/// None takes a tenth of it; a program that hangs is killed and counts as failed.
const LIMIT: Duration = Duration::from_secs(20 * 60);
const POLL: Duration = Duration::from_millis(50);

/// A built test program.
#[derive(Clone)]
pub struct Program {
    pub name: String,
    executable: PathBuf,
    package: PathBuf,
    log: PathBuf,
}

/// Who works while a program runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Nobody to speak of: what the product promises in seconds is held to.
    None,
    /// As many others as the machine can carry.
    Others,
}

/// A test program that has ended.
pub struct Ended {
    pub name: String,
    pub log: PathBuf,
    pub took: Duration,
    pub tally: Tally,
    /// Why it does not count as passed although no test of it failed: killed, or ended before its tests did.
    pub broken: Option<String>,
    /// Where the output of a first try lies that failed, and which tests failed in it.
    pub failed_before: Option<(PathBuf, Vec<String>)>,
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(places::workspace());
    cargo
}

/// Has Cargo build all test programs; its complaints go to the screen.
pub fn build(folder: &Path) -> Result<Vec<Program>> {
    let arguments = [
        "test",
        "--locked",
        "--workspace",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ];
    let output = cargo().args(arguments).stderr(Stdio::inherit()).output();
    let output = output.context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "the tests do not build; cargo's messages are above"
    );
    let text = String::from_utf8(output.stdout).context("cargo's messages are not text")?;
    let programs: Vec<Program> = text.lines().filter_map(|line| built(line, folder)).collect();
    ensure!(!programs.is_empty(), "cargo built no test program");
    Ok(programs)
}

fn built(line: &str, folder: &Path) -> Option<Program> {
    let message: Message = serde_json::from_str(line).ok()?;
    if message.reason != "compiler-artifact" || !message.profile?.test {
        return None;
    }
    let name = message.target?.name;
    Some(Program {
        log: folder.join(format!("{name}.log")),
        executable: message.executable?,
        package: message.manifest_path?.parent()?.to_path_buf(),
        name,
    })
}

impl Program {
    /// Runs it to its end. A program that cannot be started counts as failed, since the others are worth running.
    pub fn run(&self, company: Company) -> Ended {
        self.run_these(&[], company)
    }

    /// Runs these of its tests, all of them if none is named, with the machine for itself.
    pub fn run_only(&self, tests: &[String]) -> Ended {
        self.run_these(tests, Company::None)
    }

    fn run_these(&self, tests: &[String], company: Company) -> Ended {
        let start = Instant::now();
        let broken = match self.start(tests, company).and_then(|child| wait(child, start)) {
            Ok(status) if status.success() => None,
            Ok(status) => Some(status.to_string()),
            Err(error) => Some(format!("{error:#}")),
        };
        Ended::read(&self.name, &self.log, start.elapsed(), broken)
    }

    /// Puts the output of the last run aside and says where.
    pub fn keep_log(&self) -> Result<PathBuf> {
        let kept = self.log.with_extension("first.log");
        fs::rename(&self.log, &kept).with_context(|| format!("cannot keep {}", self.log.display()))?;
        Ok(kept)
    }

    fn start(&self, tests: &[String], company: Company) -> Result<Child> {
        let log = File::create(&self.log).with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = Command::new(&self.executable);
        match company {
            Company::None => command.env_remove(BESIDE),
            Company::Others => command.env(BESIDE, "yes"),
        };
        command
            .arg("--exact")
            .args(tests)
            // As `cargo test` does: tests find their fixtures by it.
            .current_dir(&self.package)
            .env("CARGO_MANIFEST_DIR", &self.package)
            .env("RUST_TEST_THREADS", THREADS)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.executable.display()))
    }
}

fn wait(mut child: Child, start: Instant) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("killed, since it did not end within {LIMIT:?}");
        }
        std::thread::sleep(POLL);
    }
}

/// The examples in the documentation, which Cargo runs itself.
pub fn doc_tests(folder: &Path) -> Result<Ended> {
    let log = folder.join("documentation.log");
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let start = Instant::now();
    let status = cargo()
        .args(["test", "--locked", "--workspace", "--doc"])
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .context("cannot run cargo")?;
    let broken = (!status.success()).then(|| status.to_string());
    Ok(Ended::read("documentation", &log, start.elapsed(), broken))
}

impl Ended {
    fn read(name: &str, log: &Path, took: Duration, broken: Option<String>) -> Self {
        let text = fs::read(log).unwrap_or_default();
        let tally = Tally::read(&String::from_utf8_lossy(&text));
        let broken = match broken {
            None if tally.complete => None,
            None => Some("it ended without a result".to_owned()),
            // The failed tests say it better.
            Some(_) if tally.complete && !tally.failures.is_empty() => None,
            Some(why) => Some(why),
        };
        Self {
            name: name.to_owned(),
            log: log.to_path_buf(),
            took,
            tally,
            broken,
            failed_before: None,
        }
    }

    pub fn passed(&self) -> bool {
        self.broken.is_none() && self.tally.failures.is_empty()
    }

    /// One line for the screen.
    pub fn line(&self) -> String {
        let seconds = self.took.as_secs_f64();
        match &self.broken {
            Some(why) => format!("{}: FAILED in {seconds:.1} s: {why}", self.name),
            None if self.passed() => format!("{}: {} passed in {seconds:.1} s", self.name, self.tally.passed),
            None => format!(
                "{}: {} FAILED, {} passed in {seconds:.1} s",
                self.name,
                self.tally.failures.len(),
                self.tally.passed
            ),
        }
    }
}
