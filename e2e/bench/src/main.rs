//! Measures the product beside the limits of what it stands on: the API server and PostgreSQL, in one run on one machine.
//!
//! A time alone says nothing on a machine that others use as well. So every figure that has a limit is measured in turn with
//! it, several times over, and the ratio of the medians is what counts. What cannot be moved by others, the number of
//! requests and statements and the size of a process, is counted.

mod audit;
mod bare_api;
mod bare_sql;
mod churn;
mod cost;
mod deletion;
mod delivery;
mod engine_work;
mod expiry;
mod figures;
mod fleet;
mod hub;
mod lives;
mod machine;
mod parts;
mod reading;
mod restart;
mod rotation;
mod sightings;
mod starting;
mod statements;
mod stats;
mod world;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use e2e::postgres::Major;
use e2e::say::say;
use figures::Row;
use parts::{Part, Size};
use serde_json::{Map, json};

#[derive(Parser)]
#[command(about = "Every figure of ours beside the limit measured in the same run.")]
struct Arguments {
    /// Major releases of PostgreSQL, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "15,18")]
    postgres: Vec<Major>,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Live leases of a restart, and accounts that end within a minute.
    #[arg(long, default_value_t = 1000)]
    leases: usize,
    /// Accounts that the engine takes back at once; by default 10000, and 1000 from PostgreSQL 16 on, where each costs the
    /// more the more live.
    #[arg(long)]
    accounts: Option<usize>,
    /// Engines on one operator.
    #[arg(long, default_value_t = 200)]
    engines: usize,
    /// Dynamic secrets that are rotated within a minute.
    #[arg(long, default_value_t = 200)]
    rotations: usize,
    /// Minutes of churn.
    #[arg(long, default_value_t = 2)]
    minutes: u64,
    /// Repeats of ours and the limit in turn.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Under two minutes, and it fails where something is missed that noise cannot move.
    #[arg(long, conflicts_with_all = ["only", "leases", "accounts", "engines", "rotations", "minutes", "repeats"])]
    quick: bool,
    /// How the table is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    /// Tables for a page of the documentation.
    Markdown,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        // Which figure it was is in the table.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dsv-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<bool> {
    let mut all = Vec::new();
    for major in &arguments.postgres {
        let rows = if arguments.quick {
            parts::quick(*major).await?
        } else {
            parts::all(*major, &arguments.only, &size(*major, arguments)).await?
        };
        all.push((*major, rows));
    }
    print(&all, arguments)?;
    let missed = all
        .iter()
        .flat_map(|(_, rows)| rows)
        .any(|row| row.met() == Some(false));
    if arguments.quick {
        say(if missed {
            "something is missed"
        } else {
            "every bar is met"
        });
    }
    Ok(!(arguments.quick && missed))
}

fn size(major: Major, arguments: &Arguments) -> Size {
    let usual = if major >= Major::V16 { 1000 } else { 10_000 };
    Size {
        leases: arguments.leases,
        accounts: arguments.accounts.unwrap_or(usual),
        engines: arguments.engines,
        rotations: arguments.rotations,
        churn: Duration::from_mins(arguments.minutes),
        repeats: arguments.repeats,
    }
}

fn print(all: &[(Major, Vec<Row>)], arguments: &Arguments) -> Result<()> {
    let mut out = std::io::stdout();
    if arguments.output != Output::Json {
        for (major, rows) in all {
            let text = match arguments.output {
                Output::Markdown => figures::markdown(rows),
                _ => figures::table(rows),
            };
            writeln!(out, "\nPostgreSQL {major}\n\n{text}")?;
        }
        return Ok(());
    }
    let tables = all.iter().map(|(major, rows)| {
        let size = size(*major, arguments);
        let about = json!({
            "postgres": major.number(),
            "leases": size.leases,
            "accounts": size.accounts,
            "engines": size.engines,
            "rotations": size.rotations,
            "minutes": arguments.minutes,
            "repeats": size.repeats,
            "quick": arguments.quick,
        });
        (format!("postgresql{major}"), figures::json(rows, &about))
    });
    writeln!(out, "{}", serde_json::to_string_pretty(&tables.collect::<Map<_, _>>())?)?;
    Ok(())
}
