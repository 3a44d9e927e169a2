//! Playing all rounds on all servers, several at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::blows::Blow;
use super::lane::{self, Lane};
use super::matrix::{self, Matrix};
use super::round::{self, Outcome};
use super::tales::{self, Tale};
use crate::postgres::Major;
use crate::say::say;

/// What is to be played.
#[derive(Debug, Clone)]
pub struct Plan {
    pub majors: Vec<Major>,
    pub seed: u64,
    /// Only faults whose names contain this.
    pub only: Option<String>,
    /// Stacks of each release that work at once.
    pub lanes: usize,
}

/// What a row of the matrix is.
#[derive(Debug, Clone, Copy)]
enum Row {
    Blow(Blow),
    Tale(Tale),
}

impl Row {
    fn name(&self) -> &'static str {
        match self {
            Self::Blow(blow) => blow.name(),
            Self::Tale(tale) => tale.name,
        }
    }

    async fn play(&self, lane: &Lane<'_>, number: usize) -> Result<Outcome> {
        match self {
            Self::Blow(blow) => round::play(lane, blow, number).await,
            Self::Tale(tale) => round::tell(lane, tale, number).await,
        }
    }
}

type Queue = Arc<Mutex<VecDeque<(usize, Row)>>>;

/// Plays all of it. Everything that it started is gone afterwards.
pub async fn run(plan: &Plan) -> Result<Matrix> {
    let mut rows: Vec<Row> = Blow::all().into_iter().map(Row::Blow).collect();
    rows.extend(tales::all().into_iter().map(Row::Tale));
    if let Some(only) = &plan.only {
        rows.retain(|row| row.name().contains(only.as_str()));
    }
    if rows.is_empty() {
        bail!("no fault has such a name");
    }
    rows.shuffle(&mut StdRng::seed_from_u64(plan.seed));
    say(format!(
        "{} faults on PostgreSQL {:?}, seed {}",
        rows.len(),
        plan.majors,
        plan.seed
    ));
    let matrix = Arc::new(Mutex::new(Matrix::default()));
    let mut lanes = Vec::new();
    for major in &plan.majors {
        let queue: Queue = Arc::new(Mutex::new(rows.iter().copied().enumerate().collect()));
        for _ in 0..plan.lanes {
            lanes.push(tokio::spawn(work(*major, queue.clone(), matrix.clone())));
        }
    }
    let mut failed = None;
    for lane in lanes {
        if let Err(error) = lane.await? {
            failed.get_or_insert(error);
        }
    }
    match failed {
        Some(error) => Err(error.context("a lane could not work")),
        None => Ok(std::mem::take(
            &mut *matrix.lock().unwrap_or_else(PoisonError::into_inner),
        )),
    }
}

async fn work(major: Major, queue: Queue, rows: Arc<Mutex<Matrix>>) -> Result<()> {
    let stack = lane::stack(major).await?;
    let lane = Lane::open(&stack).await?;
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((number, row)) = next else { break };
        say(format!("PostgreSQL {major}: {} ...", row.name()));
        let outcome = row
            .play(&lane, number)
            .await
            .unwrap_or_else(|error| Outcome::failed(&error));
        let bad = outcome.cells.iter().filter(|(_, _, cell)| !cell.survived()).count();
        say(format!(
            "PostgreSQL {major}: {}: {} of {} survived in {:.0} s",
            row.name(),
            outcome.cells.len() - bad,
            outcome.cells.len(),
            outcome.took.as_secs_f64(),
        ));
        for trouble in matrix::troubles(&outcome) {
            say(format!("PostgreSQL {major}: {}: {trouble}", row.name()));
        }
        let mut all = rows.lock().unwrap_or_else(PoisonError::into_inner);
        all.add(major, row.name(), outcome);
    }
    drop(lane);
    // The namespaces go with the cluster; there is nobody to wait for them.
    tokio::time::sleep(Duration::ZERO).await;
    stack.shut_down();
    Ok(())
}
