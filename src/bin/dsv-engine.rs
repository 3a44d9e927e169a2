//! `dsv-engine`: parses its arguments, sets up, and hands over to the library.
#![allow(clippy::print_stdout, reason = "a command line program prints its result")]

use anyhow::Result;
use clap::{Parser, Subcommand};
use dsv::engine::{self, KeygenArgs, RunArgs, Settings};
use dsv::postgres::Servers;
use dsv::telemetry::logs;
use dsv::telemetry::version::version;

/// Runs database tasks for a dsv-operator; dials out to it and needs no open port.
#[derive(Debug, Parser)]
#[command(name = "dsv-engine", version = version())]
struct Cli {
    /// Without one: `run`, as the environment says, so that an image needs no arguments
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect to the operator and wait for tasks
    Run(Box<RunArgs>),
    /// Make a key for an Engine and print it with its public half
    Keygen(KeygenArgs),
}

fn main() -> Result<()> {
    match Cli::parse().command.unwrap_or_else(|| Command::Run(Box::default())) {
        Command::Run(args) => {
            let settings = Settings::load(*args, |name| std::env::var(name).ok())?;
            logs::init(settings.log_format)?;
            logs::announce("dsv-engine");
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            Ok(runtime.block_on(engine::run(settings, Servers::new()))?)
        }
        Command::Keygen(args) => {
            let key = engine::keygen(&args)?;
            println!("privateKey: {}", key.text().reveal());
            println!("publicKey: {}", key.public());
            Ok(())
        }
    }
}
