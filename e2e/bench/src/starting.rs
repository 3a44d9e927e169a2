//! How long programs take from their start until they are of use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::health;
use e2e::run_dir::RunDir;
use e2e::stack::Stack;

use crate::figures::{Bar, Row};
use crate::hub::Operator;
use crate::stats::{median, ms};

const LIMIT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(5);

/// The operator, with leadership free: it was given back by the one before.
pub async fn operator(stack: &Stack, repeats: usize) -> Result<Vec<Row>> {
    let operator = stack.operators().first().context("the stack has an operator")?;
    let mut took = Vec::new();
    for _ in 0..repeats {
        operator.stop();
        let begun = Instant::now();
        operator.launch()?;
        loop {
            let ready = matches!(health::get(operator.health(), "/readyz").await, Ok((200, _)));
            // A replica that stands by is ready too.
            if ready && operator.metrics().await?.lines().any(|line| line == "dsv_leader 1") {
                break;
            }
            operator.check()?;
            if begun.elapsed() > LIMIT {
                bail!("the operator does not lead after {LIMIT:?}");
            }
            tokio::time::sleep(POLL).await;
        }
        took.push(ms(begun.elapsed()));
    }
    Ok(vec![
        Row::new("operator: process -> ready and leading", "ms", median(&took)).bar(Bar::AtMost(1000.0)),
    ])
}

/// The engine, with its operator's end there.
pub async fn engine(operator: &Operator, run: &Arc<RunDir>, repeats: usize) -> Result<Vec<Row>> {
    let mut took = Vec::new();
    for number in 0..repeats {
        let (engine, connected) = operator.engine(run, &format!("starting-{number}")).await?;
        took.push(ms(connected));
        engine.stop();
    }
    Ok(vec![
        Row::new("engine: process -> connected", "ms", median(&took)).bar(Bar::AtMost(200.0)),
    ])
}
