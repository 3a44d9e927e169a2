//! The parts of a run, each in the stack that it needs.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use e2e::postgres::{Major, Options, Server, Tls};
use e2e::run_dir::RunDir;
use e2e::sample;
use e2e::say::say;

use crate::engine_work::Bench;
use crate::figures::Row;
use crate::hub::Operator;
use crate::world::{self, World};
use crate::{churn, cost, deletion, delivery, expiry, fleet, lives, reading, restart, rotation, starting};

/// Lives that are counted.
const LIVES: usize = 20;
/// Leases that somebody waits for.
const WAITED_FOR: usize = 200;
/// Of each repeat of whole lives.
const WINDOW: Duration = Duration::from_secs(20);
/// Accounts of one repeat.
const ISSUED: usize = 320;
/// Accounts that live while others are issued.
const CROWD: usize = 5000;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Requests and statements of a life.
    Cost,
    /// From the lease to the Secret.
    Delivery,
    /// Whole lives a second.
    Lives,
    /// Issuing by the engine, without an API server.
    Issue,
    /// Issuing by the engine while thousands of accounts live.
    Crowded,
    /// Taking back by the engine, without an API server.
    Revoke,
    /// The operator starts anew among live leases.
    Restart,
    /// A dynamic secret with many live leases is deleted.
    Deletion,
    /// Many ends within a minute.
    Expiry,
    /// Many rotations within a minute.
    Rotation,
    /// Leases that come and go for minutes while others live.
    Churn,
    /// Many engines.
    Engines,
    /// Starts of the programs.
    Start,
    /// Reading a static secret through the REST API.
    Reading,
}

/// How much of everything.
pub struct Size {
    pub leases: usize,
    pub accounts: usize,
    pub engines: usize,
    pub rotations: usize,
    pub churn: Duration,
    pub repeats: usize,
}

/// All parts, or those that are named.
pub async fn all(major: Major, only: &[Part], size: &Size) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let wanted = |parts: &[Part]| only.is_empty() || parts.iter().any(|part| only.contains(part));
    let everything = [
        Part::Cost,
        Part::Delivery,
        Part::Lives,
        Part::Expiry,
        Part::Rotation,
        Part::Churn,
        Part::Restart,
        Part::Deletion,
    ];
    if wanted(&everything) {
        rows.extend(through_everything(major, &wanted, size).await?);
    }
    if wanted(&[Part::Issue, Part::Crowded, Part::Revoke, Part::Start]) {
        rows.extend(by_the_engine(major, &wanted, size).await?);
    }
    if wanted(&[Part::Start, Part::Engines]) {
        rows.extend(many_engines(major, &wanted, size).await?);
    }
    if wanted(&[Part::Reading]) {
        let stack = world::start_with_api(major).await?;
        say("reading a static secret through the REST API");
        rows.extend(reading::measure(&stack, size.repeats).await?);
        stack.shut_down();
    }
    Ok(rows)
}

async fn through_everything(major: Major, wanted: &impl Fn(&[Part]) -> bool, size: &Size) -> Result<Vec<Row>> {
    let stack = world::start(major, 1).await?;
    let functions = major >= Major::V16;
    if functions {
        say("the accounts are made and dropped by the functions that a superuser installs");
    }
    let world = World::open(&stack, functions).await?;
    let mut rows = Vec::new();
    if wanted(&[Part::Cost]) {
        say("counting requests and statements of a life");
        rows.extend(cost::count(&world, LIVES).await?);
    }
    if wanted(&[Part::Delivery]) {
        say("measuring from the lease to the Secret");
        rows.extend(delivery::measure(&world, WAITED_FOR).await?);
    }
    if wanted(&[Part::Lives]) {
        say("measuring whole lives");
        rows.extend(lives::measure(&world, size.repeats, WINDOW).await?);
    }
    if wanted(&[Part::Expiry]) {
        say("having accounts end");
        rows.extend(expiry::measure(&world, size.leases).await?);
    }
    if wanted(&[Part::Rotation]) {
        say("rotating many dynamic secrets");
        rows.extend(rotation::measure(&world, size.rotations).await?);
    }
    if wanted(&[Part::Churn]) {
        say("letting leases come and go");
        rows.extend(churn::measure(&world, size.leases, size.churn).await?);
    }
    if wanted(&[Part::Restart]) {
        say("starting the operator anew among live leases");
        rows.extend(restart::measure(&world, size.leases).await?);
    }
    if wanted(&[Part::Deletion]) {
        say("deleting a dynamic secret with all its leases");
        rows.extend(deletion::measure(&world, size.leases).await?);
    }
    drop(world);
    stack.shut_down();
    Ok(rows)
}

async fn by_the_engine(major: Major, wanted: &impl Fn(&[Part]) -> bool, size: &Size) -> Result<Vec<Row>> {
    let run = RunDir::of_this_process()?;
    say(format!(
        "starting PostgreSQL {major} and an engine, without an API server"
    ));
    let options = Options {
        tls: Tls::Offered,
        settings: world::settings(),
        ..Options::default()
    };
    let server = Server::start_in(run.clone(), major, options).await?;
    let issuer = sample::fill(&server).await?;
    let operator = Operator::start().await?;
    let mut rows = Vec::new();
    if wanted(&[Part::Start]) {
        rows.extend(starting::engine(&operator, &run, size.repeats.max(5)).await?);
    }
    let (engine, _) = operator.engine(&run, "bench").await?;
    let bench = Bench::open(operator, engine, &server, &issuer).await?;
    if wanted(&[Part::Issue]) {
        for in_flight in [1, 4, 16] {
            say(format!("issuing by the engine, {in_flight} in flight"));
            rows.extend(bench.issue_rows(in_flight, ISSUED, size.repeats).await?);
        }
    }
    if wanted(&[Part::Crowded]) {
        for live in [1000, CROWD] {
            say(format!("issuing by the engine among {live} live accounts"));
            rows.push(bench.crowded_row(live, 4, ISSUED / 2, size.repeats).await?);
        }
        if major >= Major::V16 {
            say(format!(
                "issuing by the engine among {CROWD} live accounts, with the functions"
            ));
            rows.extend(bench.rows_with_functions(CROWD, 4, ISSUED / 2, size.repeats).await?);
        }
    }
    if wanted(&[Part::Revoke]) {
        say("taking back by the engine");
        rows.extend(bench.revoke_rows(size.accounts, size.repeats).await?);
    }
    Ok(rows)
}

async fn many_engines(major: Major, wanted: &impl Fn(&[Part]) -> bool, size: &Size) -> Result<Vec<Row>> {
    let stack = world::start(major, 2).await?;
    let mut rows = Vec::new();
    if wanted(&[Part::Engines]) {
        say(format!("connecting {} engines", size.engines));
        rows.extend(fleet::measure(&stack, size.engines).await?);
    }
    stack.shut_down();
    if wanted(&[Part::Start]) {
        let stack = world::start(major, 1).await?;
        say("starting the operator");
        rows.extend(starting::operator(&stack, size.repeats.max(5)).await?);
        stack.shut_down();
    }
    Ok(rows)
}

/// What noise cannot move, in less than two minutes.
pub async fn quick(major: Major) -> Result<Vec<Row>> {
    let stack = world::start(major, 1).await?;
    let world = World::open(&stack, false).await?;
    let mut rows = cost::count(&world, 6).await?;
    rows.extend(delivery::measure(&world, 40).await?);
    rows.extend(restart::measure(&world, 200).await?);
    drop(world);
    stack.shut_down();
    Ok(rows.into_iter().map(Row::widened).collect())
}
