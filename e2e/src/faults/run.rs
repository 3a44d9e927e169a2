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

/// What a lane plays at a time: one blow, or tales that do not disturb each other.
#[derive(Debug, Clone)]
enum Turn {
    Blow(Blow),
    Tales(Vec<Tale>),
}

impl Turn {
    fn all(only: Option<&str>) -> Vec<Self> {
        let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
        let blows = Blow::all().into_iter().filter(|blow| wanted(blow.name()));
        let (alone, together): (Vec<Tale>, Vec<Tale>) = tales::all()
            .into_iter()
            .filter(|tale| wanted(tale.name))
            .partition(|tale| tale.alone);
        let together = Some(together).filter(|tales| !tales.is_empty());
        blows
            .map(Self::Blow)
            .chain(alone.into_iter().map(|tale| Self::Tales(vec![tale])))
            .chain(together.map(Self::Tales))
            .collect()
    }

    fn names(&self) -> Vec<&'static str> {
        match self {
            Self::Blow(blow) => vec![blow.name()],
            Self::Tales(tales) => tales.iter().map(|tale| tale.name).collect(),
        }
    }

    async fn play(&self, lane: &Lane<'_>, number: usize) -> Result<Vec<Outcome>> {
        match self {
            Self::Blow(blow) => Ok(vec![round::play(lane, blow, number).await?]),
            Self::Tales(tales) => round::tell(lane, tales, number).await,
        }
    }
}

type Queue = Arc<Mutex<VecDeque<(usize, Turn)>>>;

/// Plays all of it. Everything that it started is gone afterwards.
pub async fn run(plan: &Plan) -> Result<Matrix> {
    let mut turns = Turn::all(plan.only.as_deref());
    if turns.is_empty() {
        bail!("no fault has such a name");
    }
    turns.shuffle(&mut StdRng::seed_from_u64(plan.seed));
    say(format!(
        "{} turns on each of PostgreSQL {:?}, seed {}",
        turns.len(),
        plan.majors,
        plan.seed
    ));
    let matrix = Arc::new(Mutex::new(Matrix::default()));
    let mut lanes = Vec::new();
    for major in &plan.majors {
        let queue: Queue = Arc::new(Mutex::new(turns.iter().cloned().enumerate().collect()));
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
        let Some((number, turn)) = next else { break };
        say(format!("PostgreSQL {major}: {} ...", turn.names().join(", ")));
        let outcomes = turn.play(&lane, number).await;
        let outcomes = outcomes.unwrap_or_else(|error| vec![Outcome::failed(&error); turn.names().len()]);
        for (name, outcome) in turn.names().into_iter().zip(outcomes) {
            tell(major, name, &outcome);
            let mut all = rows.lock().unwrap_or_else(PoisonError::into_inner);
            all.add(major, name, outcome);
        }
    }
    drop(lane);
    // The namespaces go with the cluster; there is nobody to wait for them.
    tokio::time::sleep(Duration::ZERO).await;
    stack.shut_down();
    Ok(())
}

fn tell(major: Major, name: &str, outcome: &Outcome) {
    let bad = outcome.cells.iter().filter(|(_, _, cell)| !cell.survived()).count();
    say(format!(
        "PostgreSQL {major}: {name}: {} of {} survived in {:.0} s",
        outcome.cells.len() - bad,
        outcome.cells.len(),
        outcome.took.as_secs_f64(),
    ));
    for trouble in matrix::troubles(outcome) {
        say(format!("PostgreSQL {major}: {name}: {trouble}"));
    }
}
