//! Asking engines: one task, one answer, and what the answer says about the server's clock.

use super::context::Context;
use super::hold::Hold;
use super::silence;
use crate::api::conditions::Reason;
use crate::channel::frames::{Done, Failure, FailureClass, Outcome, Task};
use crate::channel::hub::{CallResult, EngineId};
use crate::telemetry::metrics::{TaskKind, TaskOutcome};
use kube::runtime::reflector::ObjectRef;
use std::time::{Duration, Instant};

/// An engine's answer.
#[derive(Debug)]
pub enum Answer {
    /// It is done.
    Done(EngineId, Done),
    /// It was not done, and will not happen later by itself.
    Failed(Failure),
    /// It may have happened, or may still.
    Unknown(String),
    /// Nobody was asked.
    NotAsked(Hold),
}

impl Answer {
    /// Why it does not go on, for every answer but a fitting `Done`.
    pub fn hold(self) -> Hold {
        match self {
            Self::Failed(failure) => Hold::from(&failure),
            Self::Unknown(message) => Hold::new(Reason::OutcomeUnknown, message),
            Self::NotAsked(hold) => hold,
            Self::Done(engine, _) => Hold::new(
                Reason::DatabaseError,
                format!(
                    "engine {} answered another question than it was asked; update it",
                    engine.name
                ),
            ),
        }
    }
}

/// A server that did not answer and then does may have failed over in between.
fn note_presence(ctx: &Context, (pool_uid, record): (&str, &str), kind: TaskKind, result: &CallResult, late: bool) {
    let CallResult::Answered { outcome, .. } = result else {
        return;
    };
    match outcome {
        Outcome::Failed(failure) if failure.class == FailureClass::Unreachable => {
            let hold = Hold::from(&named(ctx, record, failure.clone()));
            ctx.silence.unanswered(pool_uid, record, hold);
        }
        Outcome::Unknown { .. } if late => {
            let message = "the database did not answer in time; it goes on when it does";
            let hold = Hold::new(Reason::DatabaseUnreachable, message);
            ctx.silence.unanswered(pool_uid, record, hold);
        }
        // It is not known who went away.
        Outcome::Unknown { .. } | Outcome::Unsupported => {}
        Outcome::Done { .. } | Outcome::Failed(_) => silence::over(ctx, pool_uid, record),
    }
    match outcome {
        Outcome::Unknown { .. } => ctx.audit.doubt(record),
        Outcome::Failed(failure) if matches!(failure.class, FailureClass::Unreachable | FailureClass::ReadOnly) => {
            ctx.audit.doubt(record);
        }
        // An audit that succeeds has looked already.
        Outcome::Done { .. } if kind != TaskKind::Inventory => ctx.audit.trust(record),
        _ => {}
    }
}

/// Has a random engine of the pool do a task on a server. While a server is silent only looks at it are passed on.
pub async fn ask(ctx: &Context, pool_uid: &str, record: &str, task: Task, patience: Duration) -> Answer {
    let kind = task.kind();
    let counted = TaskKind::from(&task);
    if counted != TaskKind::Probe
        && let Some(hold) = silence::hold(ctx, pool_uid, record)
    {
        return Answer::NotAsked(hold);
    }
    let asked = Instant::now();
    let result = ctx.hub.call(pool_uid, task, patience).await;
    let outcome = match &result {
        CallResult::Answered { outcome, .. } => {
            ctx.metrics.task_took(counted, asked.elapsed());
            TaskOutcome::from(outcome)
        }
        _ => TaskOutcome::NotSent,
    };
    ctx.metrics.task(counted, outcome);
    note_presence(ctx, (pool_uid, record), counted, &result, asked.elapsed() >= patience);
    answer(ctx, record, kind, result)
}

fn answer(ctx: &Context, record: &str, kind: &str, result: CallResult) -> Answer {
    match result {
        CallResult::Answered {
            engine,
            outcome: Outcome::Done { done, clock },
        } => {
            if let Some(clock) = clock {
                ctx.servers.heard(record, clock, ctx.now());
            }
            Answer::Done(engine, done)
        }
        CallResult::Answered {
            engine,
            outcome: Outcome::Failed(failure),
        } => {
            tracing::info!(task = kind, engine = engine.name, class = ?failure.class, message = failure.message, "task failed");
            Answer::Failed(named(ctx, record, failure))
        }
        CallResult::Answered {
            engine,
            outcome: Outcome::Unknown { message },
        } => {
            tracing::info!(task = kind, engine = engine.name, message, "outcome unknown");
            Answer::Unknown(in_words(ctx, record, &message))
        }
        CallResult::Answered {
            engine,
            outcome: Outcome::Unsupported,
        } => Answer::NotAsked(Hold::new(
            Reason::WaitingForEngine,
            format!("engine {} does not know the task {kind}; update it", engine.name),
        )),
        CallResult::NoEngine => Answer::NotAsked(Hold::new(
            Reason::WaitingForEngine,
            "no engine of the pool is connected; it goes on when one dials in (kubectl get engines)",
        )),
        CallResult::Busy => Answer::NotAsked(Hold::new(
            Reason::WaitingForEngine,
            "every engine of the pool has a full queue; it goes on by itself, faster with more engines",
        )),
        CallResult::TooLarge => Answer::NotAsked(Hold::new(
            Reason::InvalidSpec,
            "the task does not fit into a frame of 60 KiB; use fewer grants or smaller certificates",
        )),
    }
}

/// A failure as people read it: the server by the name that they know.
pub fn named(ctx: &Context, record: &str, failure: Failure) -> Failure {
    Failure {
        message: in_words(ctx, record, &failure.message),
        ..failure
    }
}

/// Engines know a server by its record, whose name is a hash. People know it by the base secrets that lead to it.
fn in_words(ctx: &Context, record: &str, message: &str) -> String {
    if !message.contains(record) {
        return message.to_owned();
    }
    let mut bases = ctx.bases.leading_to(record);
    bases.retain(|base| {
        let (namespace, name) = base.split_once('/').unwrap_or_default();
        ctx.stores.bases.get(&ObjectRef::new(name).within(namespace)).is_some()
    });
    let bases: Vec<String> = bases.into_iter().collect();
    let words = match bases.as_slice() {
        [] => format!("kept as Secret {}/{record}", ctx.settings.home),
        bases => format!("of base secret {}", bases.join(", ")),
    };
    message.replace(record, &words)
}
