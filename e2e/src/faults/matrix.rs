//! The matrix as people and programs read it.

use std::time::Duration;

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::round::{Cell, Outcome};
use super::steps::Step;
use crate::postgres::Major;

/// What became of all faults.
#[derive(Default)]
pub struct Matrix {
    rows: Vec<(Major, &'static str, Outcome)>,
}

/// The sums below the matrix.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub faults: usize,
    pub survived: usize,
    pub accounts: usize,
    pub doubled: usize,
    pub leases: usize,
    pub secrets: usize,
    pub sessions: usize,
}

impl Sums {
    /// The line that counts.
    pub fn line(&self) -> String {
        format!(
            "{} faults, {} survived, {} accounts left, {} doubled, {} Secrets left, {} sessions left",
            self.faults, self.survived, self.accounts, self.doubled, self.secrets, self.sessions
        )
    }

    pub fn all_survived(&self) -> bool {
        self.faults > 0 && self.faults == self.survived
    }

    fn add(&mut self, cell: &Cell, whole: bool) {
        self.faults += 1;
        self.survived += usize::from(cell.survived() && whole);
        self.accounts += cell.accounts;
        self.doubled += cell.doubled;
        self.leases += cell.leases;
        self.secrets += cell.secrets;
        self.sessions += cell.sessions;
    }
}

impl Matrix {
    pub fn add(&mut self, major: Major, fault: &'static str, outcome: Outcome) {
        self.rows.push((major, fault, outcome));
    }

    /// One fault at one place is one; a round that left something nobody can place, or that could not be played, did not
    /// survive at any of its places.
    pub fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for (_, _, outcome) in &self.rows {
            let whole = outcome.trouble.is_none();
            if outcome.cells.is_empty() {
                sums.faults += 1;
            }
            for (_, _, cell) in &outcome.cells {
                sums.add(cell, whole);
            }
        }
        sums
    }

    /// Faults down, steps across; a number is how many places of the step were struck.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        let steps = Step::ALL.map(|step| step.name().to_owned());
        let head = ["PG".to_owned(), "FAULT".to_owned()]
            .into_iter()
            .chain(steps)
            .chain(["CLEAN".to_owned()]);
        table.load_style(presets::NOTHING).set_header(head);
        for (major, fault, outcome) in &self.rows {
            let cells = Step::ALL.map(|step| field(outcome, step));
            let clean = outcome.clean.map_or_else(|| "-".to_owned(), seconds);
            let row = [major.to_string(), (*fault).to_owned()].into_iter().chain(cells);
            table.add_row(row.chain([clean]));
        }
        table.to_string()
    }

    /// What went wrong, one line each.
    pub fn troubles(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (major, fault, outcome) in &self.rows {
            lines.extend(
                troubles(outcome)
                    .into_iter()
                    .map(|trouble| format!("PostgreSQL {major}, {fault}: {trouble}")),
            );
        }
        lines
    }

    /// Median and 99th percentile of a time over all rounds.
    pub fn percentiles(&self, of: impl Fn(&Outcome) -> Option<Duration>) -> Option<(Duration, Duration)> {
        let mut all: Vec<Duration> = self.rows.iter().filter_map(|(_, _, outcome)| of(outcome)).collect();
        all.sort();
        let at = |percent: usize| all.get((all.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some((at(50)?, at(99)?))
    }

    /// The same for programs.
    pub fn json(&self, seed: u64) -> Value {
        let sums = self.sums();
        let rows = self.rows.iter().map(|(major, fault, outcome)| {
            let cells = outcome.cells.iter().map(|(step, point, cell)| {
                json!({
                    "step": step.name(), "point": point, "survived": cell.survived(),
                    "accounts": cell.accounts, "doubled": cell.doubled, "leases": cell.leases,
                    "secrets": cell.secrets, "sessions": cell.sessions, "trouble": cell.trouble,
                })
            });
            json!({
                "postgres": major.to_string(), "fault": fault, "cells": cells.collect::<Vec<_>>(),
                "trouble": outcome.trouble, "harmlessSeconds": outcome.harmless.map(|took| took.as_secs_f64()),
                "cleanSeconds": outcome.clean.map(|took| took.as_secs_f64()), "tookSeconds": outcome.took.as_secs_f64(),
            })
        });
        json!({
            "seed": seed, "faults": sums.faults, "survived": sums.survived, "accountsLeft": sums.accounts,
            "doubled": sums.doubled, "leasesLeft": sums.leases, "secretsLeft": sums.secrets,
            "sessionsLeft": sums.sessions, "rounds": rows.collect::<Vec<_>>(),
        })
    }
}

/// What went wrong in one round, one line each.
pub fn troubles(outcome: &Outcome) -> Vec<String> {
    let bad = outcome.cells.iter().filter(|(_, _, cell)| !cell.survived());
    let bad = bad.map(|(_, point, cell)| {
        let why = cell.trouble.as_deref().unwrap_or("something is left");
        format!("{point}: {} ({})", text(cell), brief(why))
    });
    outcome
        .trouble
        .iter()
        .map(|trouble| brief(trouble))
        .chain(bad)
        .collect()
}

/// The beginning: what follows is the state of everything, which lies in a file as well.
pub fn brief(trouble: &str) -> String {
    let line = trouble.lines().next().unwrap_or_default();
    line.chars().take(300).collect()
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

fn field(outcome: &Outcome, step: Step) -> String {
    let cells: Vec<&Cell> = outcome
        .cells
        .iter()
        .filter(|(of, _, _)| *of == step)
        .map(|(_, _, cell)| cell)
        .collect();
    let bad: Vec<String> = cells
        .iter()
        .filter(|cell| !cell.survived())
        .map(|cell| text(cell))
        .collect();
    if cells.is_empty() {
        return "-".to_owned();
    }
    if bad.is_empty() {
        return format!("{} ok", cells.len());
    }
    format!("{} of {} BAD: {}", bad.len(), cells.len(), bad.join(" "))
}

/// Only what is not nothing.
fn text(cell: &Cell) -> String {
    let counts = [
        (cell.accounts, "accounts"),
        (cell.doubled, "doubled"),
        (cell.leases, "leases"),
        (cell.secrets, "Secrets"),
        (cell.sessions, "sessions"),
    ];
    let said: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if said.is_empty() {
        "trouble".to_owned()
    } else {
        said.join("+")
    }
}
