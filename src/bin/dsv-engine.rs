//! `dsv-engine`: parses its arguments, sets up, and hands over to the library.
#![allow(clippy::print_stdout, reason = "a command line program prints its result")]

use anyhow::Result;
use clap::{Parser, Subcommand};
use dsv::engine::{self, KeygenArgs, RegisterArgs, RunArgs, ServiceArgs, StartError};
use dsv::postgres::Servers;
use dsv::telemetry::logs;
use dsv::telemetry::version::version;
use std::process::ExitCode;

/// `EX_CONFIG`: what service managers can be told not to restart after.
const CONFIG: u8 = 78;

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
    /// Connect to the operator and wait for tasks; with a user's token instead of a key, register first
    Run(Box<RunArgs>),
    /// Register a new engine with a user's token, print its private key once, and store it
    Register(Box<RegisterArgs>),
    /// Make a key for an Engine and print it with its public half
    Keygen(KeygenArgs),
    /// Install, remove, start or stop the registered engine as a service of systemd
    Service(ServiceArgs),
}

fn main() -> Result<ExitCode> {
    let env = |name: &str| std::env::var(name).ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match Cli::parse().command.unwrap_or_else(|| Command::Run(Box::default())) {
        Command::Run(args) => {
            let show = |made: &engine::Registration| println!("{}", made.text());
            let settings = runtime.block_on(engine::settings(*args, env, show));
            let settings = match settings {
                Err(error) if error.is_final() => return Ok(ended(&error)),
                other => other?,
            };
            let verbosity = env("DSV_VERBOSITY").unwrap_or_default();
            logs::init_with(settings.log_format, &verbosity)?;
            logs::announce("dsv-engine");
            runtime.block_on(engine::run(settings, Servers::new()))?;
        }
        Command::Register(args) => {
            let made = runtime.block_on(engine::register_and_store(*args, env));
            let (made, stored) = match made {
                Err(error) if error.is_final() => return Ok(ended(&error)),
                other => other?,
            };
            println!("{}", made.text());
            if let Some(path) = stored {
                println!("stored in {}; start it with: dsv-engine run", path.display());
            }
        }
        Command::Keygen(args) => {
            let key = engine::keygen(&args)?;
            println!("privateKey: {}", key.text().reveal());
            println!("publicKey: {}", key.public());
        }
        Command::Service(args) => match engine::service(&args, env) {
            Ok(said) if said.is_empty() => {}
            Ok(said) => println!("{said}"),
            Err(error) => {
                eprintln!("Error: {}", logs::chain(&error));
                return Ok(ExitCode::from(error.code()));
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// Says why, and ends in a way that nothing starts it again for.
fn ended(error: &StartError) -> ExitCode {
    eprintln!("Error: {}", logs::chain(error));
    ExitCode::from(CONFIG)
}
