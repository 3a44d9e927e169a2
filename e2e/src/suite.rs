//! All test programs of the workspace, several at a time: most of a scenario's time is waiting for a ttl, so one after
//! the other would leave the machine idle. Which tests there are, and what they show, is not decided here.

mod load;
mod program;
mod tally;

use std::collections::VecDeque;
use std::fs;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::places;
use crate::say::say;
use load::Load;
use program::{Company, Ended, Program};
pub use tally::Tally;

/// Environment variable with the number of test programs that run at a time, at most.
pub const AT_ONCE: &str = "TESTS_AT_ONCE";
/// Environment variable that is there where a program runs beside others, which all want the same processors.
pub const BESIDE: &str = "TESTS_BESIDE_OTHERS";
/// How often the machine is asked whether it can carry one more program.
const LOOK: Duration = Duration::from_millis(500);
/// Programs with a control plane or a server of their own: first those that only wait, for they leave room, then the longest.
const SCENARIOS: [&str; 19] = [
    "idle",
    "silent_server",
    "served",
    "scenes",
    "docs",
    "faults",
    "vault",
    "definitions",
    "sync",
    "keys",
    "postgres",
    "restarts",
    "audit",
    "dead_man",
    "secrecy",
    "harness",
    "rules",
    "leftovers",
    "channel_link",
];
/// These hold the product to a promise in seconds, which a machine that is busy with other tests cannot show. They mostly
/// wait, so both go side by side.
const ALONE: [&str; 2] = ["life", "leadership"];

/// Builds and runs all tests and shows how they ended. True if all passed.
pub fn run() -> Result<bool> {
    let folder = places::target_dir()?.join("suite");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    say("building the tests");
    let mut programs = program::build(&folder)?;
    programs.sort_by_key(|program| SCENARIOS.iter().position(|name| *name == program.name));
    let most = at_once()?;
    say(format!(
        "running {} test programs, at most {most} at a time and no more than the machine can carry; their output is in {}",
        programs.len(),
        folder.display()
    ));
    let (alone, together): (Vec<_>, Vec<_>) = programs
        .into_iter()
        .partition(|program| ALONE.contains(&program.name.as_str()));
    let (scenarios, quick): (Vec<_>, Vec<_>) = together
        .into_iter()
        .partition(|program| SCENARIOS.contains(&program.name.as_str()));
    // What is over in a moment first: whatever fails there need not be waited for.
    let mut ended = run_all(quick, 1, Company::Others);
    let repeatable: Vec<Program> = scenarios.iter().chain(&alone).cloned().collect();
    let examples = std::thread::spawn({
        let folder = folder.clone();
        move || program::doc_tests(&folder)
    });
    ended.extend(run_all(scenarios, most, Company::Others));
    let pair = alone.len();
    ended.extend(run_all(alone, pair, Company::None));
    try_again(&repeatable, &mut ended)?;
    let examples = examples
        .join()
        .map_err(|_| anyhow!("the documentation's examples were not run"))?;
    ended.push(examples?);
    tally::show(&ended)
}

/// Scenarios hold the product to seconds, and beside others a machine may not have them. What failed runs once more with the
/// machine for itself: a fault of the product fails again. The first try is told all the same, and its output is kept.
fn try_again(repeatable: &[Program], ended: &mut [Ended]) -> Result<()> {
    for first in ended.iter_mut().filter(|program| !program.passed()) {
        let Some(program) = repeatable.iter().find(|program| program.name == first.name) else {
            continue;
        };
        say(format!("{} failed beside others; once more, alone", program.name));
        let kept = program.keep_log()?;
        // Of a program that did not get to its end nobody knows what else would have failed.
        let failed = std::mem::take(&mut first.tally.failures);
        let of_these = if first.broken.is_none() { failed.as_slice() } else { &[] };
        let mut second = program.run_only(of_these);
        say(second.line());
        if !of_these.is_empty() {
            second.tally.passed += first.tally.passed;
        }
        second.took += first.took;
        second.failed_before = Some((kept, failed));
        *first = second;
    }
    Ok(())
}

fn at_once() -> Result<usize> {
    let Ok(text) = std::env::var(AT_ONCE) else {
        // Most of a scenario is waiting; how many programs really fit is seen while they run.
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        return Ok((cores * 4).min(load::memory_for()).max(1));
    };
    let width = text.parse().ok().filter(|width| *width > 0);
    width.with_context(|| format!("{AT_ONCE} is {text:?}; it takes a number of test programs, such as 4"))
}

/// Always one, and one more whenever there is room for it, up to `most`: a slow machine runs fewer at a time, and the
/// waits of the tests hold on it too.
fn run_all(programs: Vec<Program>, most: usize, company: Company) -> Vec<Ended> {
    let mut waiting = VecDeque::from(programs);
    let mut running = Vec::<String>::new();
    let mut ended = Vec::new();
    let mut load = Load::new();
    let (sender, results) = channel();
    std::thread::scope(|scope| {
        loop {
            let room = running.is_empty() || (running.len() < most && load.has_room());
            if let Some(program) = room.then(|| waiting.pop_front()).flatten() {
                load.begin_anew();
                running.push(program.name.clone());
                let sender: Sender<Ended> = sender.clone();
                scope.spawn(move || {
                    // Whoever listens does so until the last one is heard.
                    let _ = sender.send(program.run(company));
                });
            }
            if running.is_empty() {
                return ended;
            }
            if let Ok(result) = results.recv_timeout(LOOK) {
                running.retain(|name| *name != result.name);
                say(format!("{}{}", result.line(), beside(&running, waiting.len())));
                ended.push(result);
            }
        }
    })
}

fn beside(running: &[String], waiting: usize) -> String {
    match (running.is_empty(), waiting) {
        (true, _) => String::new(),
        (false, 0) => format!(" · still running: {}", running.join(", ")),
        (false, waiting) => format!(" · still running: {}, and {waiting} to come", running.join(", ")),
    }
}
