//! The kubectl plugin: what people ask of dynamic secrets at a terminal.
//!
//! It reads and writes custom resources with the rights of whoever runs it, and nothing else: no database, no engine, no
//! key of the installation. What a status means is said in [`advice`]; every command has a file of its own.

mod advice;
mod audit;
mod bound;
mod completion;
mod connect;
mod credential;
mod engine;
mod error;
mod exec;
mod follow;
mod get;
mod issue;
mod orphans;
mod plan;
mod pool;
mod preflight;
mod revoke;
mod rotate;
mod show;
mod status;
mod who;
mod why;

pub use error::Error;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// The command line of `kubectl dsv`.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-dsv",
    bin_name = "kubectl dsv",
    version,
    about = "Just-in-time PostgreSQL accounts: what is issued, why not, and one more please."
)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

/// Which cluster, as which user, in which namespace.
#[derive(Debug, Clone, Default, Args)]
pub struct Target {
    /// Namespace; default: the one of the kubeconfig's context
    #[arg(long, short, global = true)]
    namespace: Option<String>,
    /// Context of the kubeconfig; default: its current one
    #[arg(long, global = true)]
    context: Option<String>,
    /// Kubeconfig file; default: KUBECONFIG, or ~/.kube/config, or the ServiceAccount of the pod
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the dynamic secrets with what to do about those that are not ready
    Status {
        /// All namespaces
        #[arg(long, short = 'A', conflicts_with = "namespace")]
        all_namespaces: bool,
        /// How it is shown
        #[arg(long, short, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Explain why a dynamic secret is not ready: conditions, pool, server, engines, leases, events
    Why {
        /// Name of the DynamicSecret
        name: String,
        /// How it is shown
        #[arg(long, short, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Show the leases of a dynamic secret: account, engine, and how long each still lives
    Get {
        /// Name of the DynamicSecret
        name: String,
        /// How it is shown
        #[arg(long, short, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Ask for a new credential now, in mode Once or Rotate
    Rotate {
        /// Name of the DynamicSecret
        name: String,
        /// Wait up to that many seconds until the new credential is delivered
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60")]
        wait: Option<u64>,
    },
    /// Have an account issued to yourself, in mode OnDemand: the password is made here and never leaves this machine
    #[command(visible_alias = "read")]
    Issue(issue::IssueArguments),
    /// Run a program with a fresh account in its environment, and take the account back when it ends
    Exec(exec::ExecArguments),
    /// Run psql with a fresh account, and take the account back when it ends
    Psql(exec::PsqlArguments),
    /// Take accounts back now, issue no other, and wait until all are gone
    Revoke(revoke::RevokeArguments),
    /// Say to whom an account of the database belongs, and which pods use it
    Who {
        /// Name of the account, what pg_stat_activity calls usename; or with --via the number of a server process
        user: String,
        /// DynamicSecret by whose own account the server is asked for the process's user, with psql (mode OnDemand)
        #[arg(long, value_name = "NAME")]
        via: Option<String>,
        /// How it is shown
        #[arg(long, short, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Show accounts of which the books do not know, as the operator's audit found them
    Orphans {
        /// All namespaces
        #[arg(long, short = 'A', conflicts_with = "namespace")]
        all_namespaces: bool,
        /// How it is shown
        #[arg(long, short, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Show the grants of a dynamic secret, and the SQL by which each of its accounts is made
    Plan {
        /// Name of the DynamicSecret
        name: String,
        /// How it is shown
        #[arg(long, short, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Show what the login behind a dynamic secret lacks on its server, as SQL to run
    Preflight {
        /// Name of the DynamicSecret
        name: String,
        /// Print the functions that keep live accounts from making the next one slower, from PostgreSQL 16 on
        #[arg(long, conflicts_with = "output")]
        install: bool,
        /// How it is shown
        #[arg(long, short, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Engines
    #[command(subcommand)]
    Engine(engine::EngineCommand),
    /// Pools
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// The audit stream of the REST API
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Print what a shell needs to complete commands and flags of kubectl-dsv
    Completion {
        /// The shell
        shell: completion::Shell,
    },
}

/// How a result is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Runs one command.
pub async fn run(arguments: Arguments) -> Result<(), Error> {
    // A second installation of the provider fails and changes nothing.
    rustls::crypto::ring::default_provider().install_default().ok();
    // These need no cluster.
    match &arguments.command {
        Command::Audit(asked) => return audit::run(asked),
        Command::Completion { shell } => return completion::run(*shell),
        _ => {}
    }
    let cluster = connect::connect(&arguments.target).await?;
    match arguments.command {
        Command::Status { all_namespaces, output } => status::run(&cluster, all_namespaces, output).await,
        Command::Why { name, output } => why::run(&cluster, &name, output).await,
        Command::Rotate { name, wait } => rotate::run(&cluster, &name, wait).await,
        // Boxed: keys and objects make it large.
        Command::Issue(asked) => Box::pin(issue::run(&cluster, asked)).await,
        Command::Exec(asked) => Box::pin(exec::run(&cluster, asked)).await,
        Command::Psql(asked) => Box::pin(exec::psql(&cluster, asked)).await,
        Command::Get { name, output } => get::run(&cluster, &name, output).await,
        Command::Revoke(asked) => Box::pin(revoke::run(&cluster, &asked)).await,
        Command::Who { user, via, output } => Box::pin(who::run(&cluster, &user, via, output)).await,
        Command::Orphans { all_namespaces, output } => orphans::run(&cluster, all_namespaces, output).await,
        Command::Plan { name, output } => plan::run(&cluster, &name, output).await,
        Command::Preflight {
            name, install: true, ..
        } => preflight::install(&cluster, &name).await,
        Command::Preflight { name, output, .. } => preflight::run(&cluster, &name, output).await,
        Command::Engine(asked) => engine::run(&cluster, asked).await,
        Command::Pool(asked) => pool::run(&cluster, &asked).await,
        Command::Audit(asked) => audit::run(&asked),
        Command::Completion { shell } => completion::run(shell),
    }
}
