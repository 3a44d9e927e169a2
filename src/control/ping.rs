//! Pings that somebody asked for by annotation: a message to the engine and back, and what came of it in its status.

use super::context::Context;
use super::hold::Error;
use crate::api::Engine;
use crate::api::engine::PingAnswer;
use crate::api::names::PING;
use crate::channel::frames::{Outcome, Task};
use crate::channel::hub::CallResult;
use crate::cluster::status;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use std::time::Duration;
use tokio::time::Instant;

/// How long an engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pings the engine if it is asked for and was not answered yet.
pub async fn answer(ctx: &Context, engine: &Engine) -> Result<(), Error> {
    let Some(asked) = engine.annotations().get(PING) else {
        return Ok(());
    };
    let last = engine.status.as_ref().and_then(|status| status.ping.as_ref());
    if last.is_some_and(|last| last.asked == *asked) {
        return Ok(());
    }
    ctx.still_leading()?;
    let start = Instant::now();
    let called = ctx
        .hub
        .call_engine(&engine.uid().unwrap_or_default(), Task::Echo, PATIENCE)
        .await;
    let millis = i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX);
    let (round_trip_millis, message) = match called {
        CallResult::Answered {
            outcome: Outcome::Done { .. },
            ..
        } => (Some(millis), format!("the engine answered in {millis} ms")),
        CallResult::NoEngine => (
            None,
            "the engine is not connected; start dsv-engine, or look at its log".to_owned(),
        ),
        _ => (
            None,
            format!("the engine did not answer within {} seconds", PATIENCE.as_secs()),
        ),
    };
    let answer = PingAnswer {
        asked: asked.clone(),
        at: Time(ctx.now()),
        round_trip_millis,
        message,
    };
    status::amend(&ctx.client, engine, |engine| {
        let status = engine.status.get_or_insert_default();
        if answer.round_trip_millis.is_some() {
            status.last_heartbeat = Some(answer.at.clone());
        }
        status.ping = Some(answer.clone());
        true
    })
    .await?;
    Ok(())
}
