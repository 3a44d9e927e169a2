//! Starts and ends the local cluster of the developer, and shows the product at work.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use e2e::faults::run::{self, Plan};
use e2e::faults::torture;
use e2e::postgres::Major;
use e2e::{chart, demo, dev, image, node, programs, suite};

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
    /// Break everything at every step, and let the databases judge.
    Faults(FaultsArguments),
    /// Use and break everything at random, and let the database judge.
    Torture {
        #[arg(long, default_value = "18")]
        postgres: Major,
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// By default a new one.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Build or fetch the programs of the local cluster: Kubernetes and all promised releases of PostgreSQL.
    Programs,
    /// Run all tests of the workspace, several programs at a time.
    Test,
    /// Build the images of operator and engine into `target/images`.
    Image(BuildArguments),
    /// Build archives of engine and plugin, their hashes and the list of components into `target/dist`.
    Dist(BuildArguments),
    /// Write the chart's generated files: README, config/install.yaml and the golden rendering.
    Chart,
    /// Check the chart with helm and a real API server.
    ChartCheck,
    /// Install the chart on a real node and let pods use what it issues; needs root.
    E2e {
        /// Only say whether this machine can, and if not what it lacks.
        #[arg(long)]
        check: bool,
    },
    /// What `e2e` runs in namespaces of its own.
    #[command(hide = true)]
    E2eInside {
        /// Folder with the images.
        images: PathBuf,
    },
    /// The process behind `up`.
    #[command(hide = true)]
    Supervise {
        #[arg(long)]
        postgres: Major,
    },
}

#[derive(Args)]
struct FaultsArguments {
    /// Major releases of PostgreSQL.
    #[arg(long, value_delimiter = ',', default_value = "15,18")]
    postgres: Vec<Major>,
    /// The order of the faults and every moment that is left to chance; by default a new one.
    #[arg(long)]
    seed: Option<u64>,
    /// Only faults whose names contain this.
    #[arg(long)]
    only: Option<String>,
    /// Stacks of each release that work at once.
    #[arg(long, default_value_t = 2)]
    lanes: usize,
    /// How the matrix is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(clap::Args)]
struct BuildArguments {
    /// Processor to build for; by default this machine's. What another one needs is installed.
    #[arg(long)]
    arch: Option<image::Arch>,
}

impl BuildArguments {
    fn arch(&self) -> Result<image::Arch> {
        self.arch.map_or_else(image::Arch::own, Ok)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
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
        Command::Faults(arguments) => tokio::runtime::Runtime::new()?.block_on(break_everything(arguments))?,
        Command::Torture {
            postgres,
            minutes,
            seed,
        } => tokio::runtime::Runtime::new()?.block_on(torture(*postgres, *minutes, *seed))?,
        Command::Demo { postgres } => tokio::runtime::Runtime::new()?.block_on(demo::run(*postgres))?,
        Command::Supervise { postgres } => tokio::runtime::Runtime::new()?.block_on(dev::supervise(*postgres))?,
        Command::Test => return suite::run(),
        Command::Image(arguments) => drop(image::make(arguments.arch()?)?),
        Command::Dist(arguments) => image::dist::make(arguments.arch()?)?,
        Command::Chart => chart::write()?,
        Command::ChartCheck => tokio::runtime::Runtime::new()?.block_on(chart::check())?,
        Command::E2e { check: true } => node::can_run()?,
        Command::E2e { check: false } => node::run()?,
        Command::E2eInside { images } => tokio::runtime::Runtime::new()?.block_on(node::run_inside(images))?,
    }
    Ok(true)
}

async fn break_everything(arguments: &FaultsArguments) -> Result<()> {
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let plan = Plan {
        majors: arguments.postgres.clone(),
        seed,
        only: arguments.only.clone(),
        lanes: arguments.lanes,
    };
    let matrix = run::run(&plan).await?;
    let mut out = std::io::stdout();
    let sums = matrix.sums();
    if arguments.output == Output::Json {
        writeln!(out, "{}", serde_json::to_string_pretty(&matrix.json(seed))?)?;
    } else {
        writeln!(out, "\n{}\n", matrix.table())?;
        for trouble in matrix.troubles() {
            writeln!(out, "{trouble}")?;
        }
        let times = [
            (
                "from deletion until nothing of use is left",
                matrix.percentiles(|outcome| outcome.harmless),
            ),
            ("until all is proven gone", matrix.percentiles(|outcome| outcome.clean)),
        ];
        for (what, times) in times {
            if let Some((median, high)) = times {
                writeln!(
                    out,
                    "{what}: p50 {:.1} s, p99 {:.1} s",
                    median.as_secs_f64(),
                    high.as_secs_f64()
                )?;
            }
        }
        writeln!(out, "seed {seed}\n{}", sums.line())?;
    }
    if !sums.all_survived() {
        bail!("not everything survived; run it again with --seed {seed}");
    }
    Ok(())
}

async fn torture(major: Major, minutes: u64, seed: Option<u64>) -> Result<()> {
    let seed = seed.unwrap_or_else(rand::random);
    let report = torture::run(major, Duration::from_secs(minutes * 60), seed).await?;
    writeln!(std::io::stdout(), "\n{}", report.text())?;
    if !report.is_clean() {
        bail!("something is left; run it again with --seed {seed}");
    }
    Ok(())
}
