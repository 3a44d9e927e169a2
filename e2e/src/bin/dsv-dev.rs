//! Starts and ends the local cluster of the developer, and shows the product at work.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use e2e::postgres::Major;
use e2e::{demo, dev, programs, suite};

#[derive(Parser)]
#[command(about = "A local Kubernetes and PostgreSQL with the operator in it.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything and leave it running.
    Up {
        /// Major release of PostgreSQL: 15, 16, 17 or 18; by default the one this machine has.
        #[arg(long)]
        postgres: Option<Major>,
    },
    /// Show what runs.
    Status,
    /// End everything.
    Down,
    /// Show one credential from issue to revocation, in a cluster of its own.
    Demo {
        /// Major release of PostgreSQL: 15, 16, 17 or 18; by default the one this machine has.
        #[arg(long)]
        postgres: Option<Major>,
    },
    /// Build or fetch the programs of the local cluster: Kubernetes and all promised releases of PostgreSQL.
    Programs,
    /// Run all tests of the workspace, several programs at a time.
    Test,
    /// The process behind `up`.
    #[command(hide = true)]
    Supervise {
        #[arg(long)]
        postgres: Major,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        // What failed is on the screen.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dsv-dev: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<bool> {
    match command {
        Command::Up { postgres } => dev::up(*postgres)?,
        Command::Status => dev::status()?,
        Command::Down => dev::down()?,
        Command::Programs => programs::all()?,
        Command::Demo { postgres } => tokio::runtime::Runtime::new()?.block_on(demo::run(*postgres))?,
        Command::Supervise { postgres } => tokio::runtime::Runtime::new()?.block_on(dev::supervise(*postgres))?,
        Command::Test => return suite::run(),
    }
    Ok(true)
}
