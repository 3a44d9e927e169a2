//! What a test program printed, counted, and shown at the end.

use std::io::Write;

use anyhow::Result;
use comfy_table::{Table, presets};

use super::program::Ended;

/// The results in a test program's output.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: usize,
    pub skipped: usize,
    /// Names of the tests that failed.
    pub failures: Vec<String>,
    /// Whether the closing line was there. A program that crashed did not get to it.
    pub complete: bool,
}

impl Tally {
    /// Reads the output of the standard test harness.
    pub fn read(output: &str) -> Self {
        let mut tally = Self::default();
        for line in output.lines() {
            if let Some(counts) = line.strip_prefix("test result: ") {
                tally.complete = true;
                tally.passed += count(counts, " passed");
                tally.skipped += count(counts, " ignored");
            } else if let Some(name) = line
                .strip_prefix("test ")
                .and_then(|line| line.strip_suffix(" ... FAILED"))
            {
                tally.failures.push(name.to_owned());
            }
        }
        tally
    }
}

/// The number before a word, such as 7 in `ok. 7 passed; 0 failed`.
fn count(counts: &str, word: &str) -> usize {
    let before = counts.split(word).next().unwrap_or_default();
    let number = before.rsplit([' ', ';', '.']).next().unwrap_or_default();
    number.parse().unwrap_or(0)
}

/// Prints what failed with the end of its output, a table of all programs, and one line of counts. True if all passed.
pub fn show(ended: &[Ended]) -> Result<bool> {
    let mut out = std::io::stdout();
    for program in ended.iter().filter(|program| !program.passed()) {
        writeln!(
            out,
            "\n== {} failed; the end of its output:\n{}",
            program.name,
            excerpt(program)
        )?;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["TESTS", "PASSED", "FAILED", "SECONDS"]);
    for program in ended {
        let failed = program.tally.failures.len().max(usize::from(!program.passed()));
        table.add_row([
            program.name.clone(),
            program.tally.passed.to_string(),
            failed.to_string(),
            format!("{:.1}", program.took.as_secs_f64()),
        ]);
    }
    writeln!(out, "\n{table}\n")?;
    for program in ended {
        for test in &program.tally.failures {
            writeln!(out, "FAILED {} {test}", program.name)?;
        }
        if let Some(why) = &program.broken {
            writeln!(out, "FAILED {}: {why}", program.name)?;
        }
    }
    for program in ended {
        let Some((log, tests)) = program.failed_before.as_ref().filter(|_| program.passed()) else {
            continue;
        };
        let tests = tests.join(", ");
        writeln!(
            out,
            "passed only alone: {} (beside others failed: {tests}; see {})",
            program.name,
            log.display()
        )?;
    }
    let sum = |of: fn(&Ended) -> usize| ended.iter().map(of).sum::<usize>();
    let failed = sum(|program| program.tally.failures.len() + usize::from(program.broken.is_some()));
    let (passed, skipped) = (
        sum(|program| program.tally.passed),
        sum(|program| program.tally.skipped),
    );
    writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped")?;
    Ok(failed == 0)
}

/// The part of the output that tells why: from the harness's list of failures on, without the frames of libraries.
fn excerpt(program: &Ended) -> String {
    const LINES: usize = 120;
    let text = std::fs::read(&program.log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let told = text.find("\nfailures:\n").and_then(|start| text.get(start..));
    let frame = |line: &str| {
        let line = line.trim_start();
        line.starts_with("at ")
            || line
                .split(':')
                .next()
                .is_some_and(|number| number.parse::<u16>().is_ok())
    };
    let lines: Vec<&str> = told.unwrap_or(&text).lines().filter(|line| !frame(line)).collect();
    if told.is_some() {
        return lines.into_iter().take(LINES).collect::<Vec<_>>().join("\n");
    }
    lines.split_at(lines.len().saturating_sub(LINES)).1.join("\n")
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn results_of_several_parts_are_added_and_failures_named() {
        let output = "test a::b ... ok\ntest c ... FAILED\n\ntest result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured\n\
                      test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured\n";
        let tally = Tally::read(output);
        assert_eq!((tally.passed, tally.skipped, tally.complete), (4, 2, true));
        assert_eq!(tally.failures, ["c"]);
    }

    #[test]
    fn output_that_breaks_off_is_not_complete() {
        assert!(!Tally::read("running 3 tests\ntest a ... ok\n").complete);
    }
}
