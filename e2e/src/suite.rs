//! All test programs of the workspace, several at a time: most of a scenario's time is waiting for a ttl, so one after
//! the other would leave the machine idle. Which tests there are, and what they show, is not decided here.

mod program;
mod tally;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::places;
use crate::say::say;
use program::{Ended, Program};
pub use tally::Tally;

/// Environment variable with the number of test programs that run at a time.
pub const AT_ONCE: &str = "TESTS_AT_ONCE";
/// These hold the product to a promise in seconds, which a machine that is busy with other tests cannot show.
const ALONE: [&str; 2] = ["life", "leadership"];

/// Builds and runs all tests and shows how they ended. True if all passed.
pub fn run() -> Result<bool> {
    let folder = places::target_dir()?.join("suite");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    say("building the tests");
    let mut programs = program::build(&folder)?;
    let times = Times::read(&folder);
    programs.sort_by_key(|program| std::cmp::Reverse(times.of(&program.name)));
    let width = at_once()?;
    say(format!(
        "running {} test programs, {width} at a time; their output is in {}",
        programs.len(),
        folder.display()
    ));
    let (alone, together): (Vec<_>, Vec<_>) = programs
        .into_iter()
        .partition(|program| ALONE.contains(&program.name.as_str()));
    let mut ended = run_all(together, width);
    ended.extend(run_all(alone, 1));
    ended.push(program::doc_tests(&folder)?);
    Times::write(&folder, &ended)?;
    tally::show(&ended)
}

fn at_once() -> Result<usize> {
    match std::env::var(AT_ONCE) {
        Ok(text) => text
            .parse()
            .ok()
            .filter(|width| *width > 0)
            .with_context(|| format!("{AT_ONCE} is {text:?}; it takes a number of test programs, such as 4")),
        // A scenario program has a control plane that keeps a core busy half of the time; the rest is waiting.
        Err(_) => Ok(std::thread::available_parallelism().map_or(2, std::num::NonZero::get)),
    }
}

fn run_all(programs: Vec<Program>, width: usize) -> Vec<Ended> {
    let queue = Mutex::new(VecDeque::from(programs));
    let running = Mutex::new(Vec::<String>::new());
    let ended = Mutex::new(Vec::new());
    // In a `while let` the lock would be held while the program runs.
    let next = || lock(&queue).pop_front();
    let work = || {
        while let Some(program) = next() {
            lock(&running).push(program.name.clone());
            let result = program.run();
            let mut still = lock(&running);
            still.retain(|name| *name != result.name);
            let waiting = lock(&queue).len();
            say(format!("{}{}", result.line(), beside(&still, waiting)));
            lock(&ended).push(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..width {
            scope.spawn(work);
        }
    });
    ended.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn beside(running: &[String], waiting: usize) -> String {
    match (running.is_empty(), waiting) {
        (true, _) => String::new(),
        (false, 0) => format!(" · still running: {}", running.join(", ")),
        (false, waiting) => format!(" · still running: {}, and {waiting} to come", running.join(", ")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long each program took last time: the longest begin first, so that the end is not one long program alone.
struct Times(BTreeMap<String, u64>);

impl Times {
    fn file(folder: &Path) -> PathBuf {
        folder.join("seconds.json")
    }

    fn read(folder: &Path) -> Self {
        let text = fs::read_to_string(Self::file(folder)).unwrap_or_default();
        Self(serde_json::from_str(&text).unwrap_or_default())
    }

    /// An unknown program may be long.
    fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(u64::MAX)
    }

    fn write(folder: &Path, ended: &[Ended]) -> Result<()> {
        let seconds = |ended: &Ended| (ended.name.clone(), Duration::as_secs(&ended.took));
        let times: BTreeMap<_, _> = ended.iter().map(seconds).collect();
        fs::write(Self::file(folder), serde_json::to_string_pretty(&times)?).context("cannot keep the tests' times")
    }
}
