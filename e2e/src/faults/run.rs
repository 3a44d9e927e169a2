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
use super::matrix::Matrix;
use super::round::{self, Outcome};
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

type Queue = Arc<Mutex<VecDeque<(usize, Blow)>>>;

/// Plays all of it. Everything that it started is gone afterwards.
pub async fn run(plan: &Plan) -> Result<Matrix> {
    let mut blows = Blow::all();
    if let Some(only) = &plan.only {
        blows.retain(|blow| blow.name().contains(only.as_str()));
    }
    if blows.is_empty() {
        bail!("no fault has such a name");
    }
    blows.shuffle(&mut StdRng::seed_from_u64(plan.seed));
    say(format!(
        "{} faults on PostgreSQL {:?}, seed {}",
        blows.len(),
        plan.majors,
        plan.seed
    ));
    let matrix = Arc::new(Mutex::new(Matrix::default()));
    let mut lanes = Vec::new();
    for major in &plan.majors {
        let queue: Queue = Arc::new(Mutex::new(blows.iter().copied().enumerate().collect()));
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

async fn work(major: Major, queue: Queue, matrix: Arc<Mutex<Matrix>>) -> Result<()> {
    let stack = lane::stack(major).await?;
    let lane = Lane::open(&stack).await?;
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((number, blow)) = next else { break };
        say(format!("PostgreSQL {major}: {} ...", blow.name()));
        let outcome = round::play(&lane, &blow, number)
            .await
            .unwrap_or_else(|error| Outcome::failed(&error));
        let bad = outcome.cells.iter().filter(|(_, _, cell)| !cell.survived()).count();
        say(format!(
            "PostgreSQL {major}: {}: {} of {} survived in {:.0} s{}",
            blow.name(),
            outcome.cells.len() - bad,
            outcome.cells.len(),
            outcome.took.as_secs_f64(),
            outcome
                .trouble
                .iter()
                .map(|trouble| format!("; {trouble}"))
                .collect::<String>()
        ));
        let mut matrix = matrix.lock().unwrap_or_else(PoisonError::into_inner);
        matrix.add(major, blow.name(), outcome);
    }
    drop(lane);
    // The namespaces go with the cluster; there is nobody to wait for them.
    tokio::time::sleep(Duration::ZERO).await;
    stack.shut_down();
    Ok(())
}
