//! One session of the engine: handshake, then tasks in and outcomes out until it ends.

use super::{Connected, Endpoint, Link, Tasks};
use crate::channel::frames::{
    CloseCode, Failure, FailureClass, Outcome, PROTOCOL_MAX, PROTOCOL_MIN, Task, ToEngine, ToOperator,
};
use crate::channel::noise::{Identity, Initiator, NoiseError};
use crate::channel::wire::{self, FrameReader, FrameWriter, Socket, WireError};
use crate::channel::{MAX_QUEUED, MAX_RUNNING, Timing};
use crate::clock;
use crate::keys::ChannelCertificate;
use futures::FutureExt;
use serde::Deserialize;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

const MAX_OUT: usize = MAX_RUNNING + MAX_QUEUED;
const MAX_OUT_PERMITS: u32 = 96;
const _: () = assert!(
    MAX_OUT == MAX_OUT_PERMITS as usize,
    "both say how many tasks may be out"
);
/// Pongs and the word that we leave.
const CONTROL: usize = 16;

/// Why a session ended or did not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("the handshake with the operator took too long")]
    Slow,
    #[error(transparent)]
    Noise(#[from] NoiseError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the operator ended the session: {reason}")]
    Closed { code: CloseCode, reason: String },
    #[error("nothing was heard from the operator for too long")]
    Silent,
    #[error("the operator began with something else than a welcome")]
    NoWelcome,
    #[error("the operator's welcome names another installation than its certificate")]
    OtherInstallation,
}

/// How many tasks may be here, over all sessions: those of a lost session still run.
pub(super) struct Slots {
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            admitted: Arc::new(Semaphore::new(MAX_OUT)),
            running: Arc::new(Semaphore::new(MAX_RUNNING)),
        }
    }
}

impl Slots {
    /// Waits until no task is here any more.
    async fn idle(&self) {
        let _ = self.admitted.acquire_many(MAX_OUT_PERMITS).await;
    }
}

/// A session that the operator welcomed.
pub(super) struct Session {
    writer: FrameWriter,
    reader: FrameReader,
    pub(super) connected: Connected,
}

/// Shakes hands and says hello.
pub(super) async fn open<T>(link: &Link<T>, endpoint: &Endpoint, mut socket: Socket) -> Result<Session, SessionError> {
    let limit = link.options.timing.handshake;
    let shaken = timeout(limit, shake_hands(link, &mut socket))
        .await
        .unwrap_or(Err(SessionError::Slow));
    let (certificate, sealer, opener) = match shaken {
        Ok(shaken) => shaken,
        Err(error) => {
            socket.close(&error.to_string()).await;
            return Err(error);
        }
    };
    let (mut writer, mut reader) = socket.sealed(sealer, opener);
    let greeting = greet(link, endpoint, &certificate, &mut writer, &mut reader);
    let connected = timeout(limit, greeting).await.unwrap_or(Err(SessionError::Slow))?;
    Ok(Session {
        writer,
        reader,
        connected,
    })
}

async fn shake_hands<T>(
    link: &Link<T>,
    socket: &mut Socket,
) -> Result<
    (
        ChannelCertificate,
        crate::channel::noise::Sealer,
        crate::channel::noise::Opener,
    ),
    SessionError,
> {
    let key = &link.options.key;
    let mut initiator = Initiator::new(key)?;
    socket.send(initiator.first()?).await?;
    let certificate = initiator.second(&socket.next().await?, clock::now())?;
    let identity = Identity {
        namespace: key.namespace().to_owned(),
        name: link.options.name.clone(),
    };
    let (third, sealer, opener) = initiator.third(&identity)?;
    socket.send(third).await?;
    Ok((certificate, sealer, opener))
}

async fn greet<T>(
    link: &Link<T>,
    endpoint: &Endpoint,
    certificate: &ChannelCertificate,
    writer: &mut FrameWriter,
    reader: &mut FrameReader,
) -> Result<Connected, SessionError> {
    let hello = ToOperator::Hello {
        min: PROTOCOL_MIN,
        max: PROTOCOL_MAX,
        boot: link.boot.clone(),
        version: link.options.version.clone(),
        tasks: Task::KINDS.map(str::to_owned).to_vec(),
    };
    // A refusal may already be on its way, so what it says matters more than that the hello could not be sent.
    let sent = writer.send(&hello).await;
    match reader.parse::<ToEngine>().await {
        Ok(ToEngine::Welcome {
            session, installation, ..
        }) => {
            if installation != certificate.installation {
                return Err(SessionError::OtherInstallation);
            }
            let signing_key = certificate.signing_key;
            let since = clock::now();
            Ok(Connected {
                endpoint: endpoint.to_string(),
                session,
                installation,
                signing_key,
                since,
            })
        }
        Ok(ToEngine::Close { code, reason }) => Err(SessionError::Closed { code, reason }),
        Ok(_) => Err(SessionError::NoWelcome),
        Err(error) => Err(sent.err().unwrap_or(error).into()),
    }
}

/// Runs a session until it ends; without an error only because `stop` was asked for and everything is said.
pub(super) async fn serve<T: Tasks>(
    link: &Link<T>,
    session: Session,
    stop: &CancellationToken,
) -> Result<(), SessionError> {
    let Session {
        mut writer, mut reader, ..
    } = session;
    let timing = link.options.timing;
    let (outcomes, outcomes_out) = mpsc::channel(MAX_OUT);
    let (control, control_out) = mpsc::channel(CONTROL);
    let heard = watch::Sender::new(Instant::now());
    let result = tokio::select! {
        error = read(link, &mut reader, &outcomes, &control, &heard) => Err(error),
        result = write(&mut writer, outcomes_out, control_out, timing, stop, &link.slots) => result,
        error = silence(&heard, timing) => Err(error),
    };
    let reason = result
        .as_ref()
        .map_or_else(ToString::to_string, |()| "the engine stopped".to_owned());
    writer.finish(&reason).await;
    reader.drain().await;
    result
}

async fn silence(heard: &watch::Sender<Instant>, timing: Timing) -> SessionError {
    loop {
        let silent = *heard.borrow() + timing.silence;
        if silent <= Instant::now() {
            return SessionError::Silent;
        }
        sleep_until(silent).await;
    }
}

async fn read<T: Tasks>(
    link: &Link<T>,
    reader: &mut FrameReader,
    outcomes: &mpsc::Sender<ToOperator>,
    control: &mpsc::Sender<ToOperator>,
    heard: &watch::Sender<Instant>,
) -> SessionError {
    loop {
        let text = match reader.next().await {
            Ok(text) => text,
            Err(error) => return error.into(),
        };
        heard.send_replace(Instant::now());
        let frame = match serde_json::from_slice::<ToEngine>(&text) {
            Ok(frame) => frame,
            Err(error) => {
                // A newer operator may ask for something that we cannot read; that is one task's trouble, not the session's.
                let Ok(TaskOf { id, .. }) = serde_json::from_slice(&text) else {
                    return WireError::Json(error).into();
                };
                tracing::warn!(id, "a task could not be read; are operator and engine of one version?");
                let _ = outcomes.try_send(ToOperator::Outcome {
                    id,
                    outcome: Outcome::Unsupported,
                });
                continue;
            }
        };
        match frame {
            ToEngine::Task { id, patience_ms, task } => {
                start(link, id, Duration::from_millis(patience_ms), *task, outcomes);
            }
            ToEngine::Ping { n } => {
                let _ = control.try_send(ToOperator::Pong { n });
            }
            ToEngine::Drain { reason } => tracing::info!(reason, "no new tasks will come on this session"),
            ToEngine::Close { code, reason } => return SessionError::Closed { code, reason },
            ToEngine::Welcome { .. } | ToEngine::Pong { .. } | ToEngine::Unknown => {}
        }
    }
}

/// The part of a task frame that every version has.
#[derive(Deserialize)]
struct TaskOf {
    #[serde(rename = "type")]
    _type: TaskType,
    id: u64,
}

#[derive(Deserialize)]
enum TaskType {
    #[serde(rename = "task")]
    Task,
}

/// Starts a task beside the others. It runs to its end even if the session is lost; its outcome is dropped then.
fn start<T: Tasks>(link: &Link<T>, id: u64, patience: Duration, task: Task, outcomes: &mpsc::Sender<ToOperator>) {
    let outcomes = outcomes.clone();
    let Ok(admitted) = link.slots.admitted.clone().try_acquire_owned() else {
        let _ = outcomes.try_send(ToOperator::Outcome {
            id,
            outcome: busy("the engine has too many tasks already"),
        });
        return;
    };
    let (tasks, running) = (link.tasks.clone(), link.slots.running.clone());
    tokio::spawn(async move {
        let kind = task.kind();
        failpoint!("link.delivered-twice", kind, {
            drop(run(&*tasks, running.clone(), task.clone(), patience).await);
        });
        let outcome = run(&*tasks, running, task, patience).await;
        failpoint!("link.outcome-held", kind);
        failpoint!("link.outcome-lost", kind, return);
        tracing::debug!(id, kind, result = named(&outcome), "a task ended");
        if outcomes.send(ToOperator::Outcome { id, outcome }).await.is_err() {
            tracing::info!(id, kind, "a task ended after its session; the operator will ask again");
        }
        // Given back only now: an engine that stops waits for it, and must not stop before the outcome is queued.
        drop::<OwnedSemaphorePermit>(admitted);
    });
}

async fn run<T: Tasks>(tasks: &T, running: Arc<Semaphore>, task: Task, patience: Duration) -> Outcome {
    if matches!(task, Task::Unknown) {
        return Outcome::Unsupported;
    }
    let begun = Instant::now();
    let Ok(Ok(_slot)) = timeout(patience, running.acquire_owned()).await else {
        return busy("the engine was busy with other tasks until this one's time was over");
    };
    let left = patience.saturating_sub(begun.elapsed());
    let result = AssertUnwindSafe(tasks.run(task, left)).catch_unwind().await;
    result.unwrap_or_else(|_| {
        tracing::error!("a task made the engine panic; this is a defect, please report it");
        Outcome::Unknown {
            message: "the engine failed while it worked on this; its log says more".to_owned(),
        }
    })
}

fn busy(message: &str) -> Outcome {
    Outcome::Failed(Failure {
        class: FailureClass::Busy,
        sqlstate: None,
        message: message.to_owned(),
    })
}

fn named(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done { .. } => "done",
        Outcome::Failed(_) => "failed",
        Outcome::Unknown { .. } => "unknown",
        Outcome::Unsupported => "unsupported",
    }
}

async fn write(
    writer: &mut FrameWriter,
    mut outcomes: mpsc::Receiver<ToOperator>,
    mut control: mpsc::Receiver<ToOperator>,
    timing: Timing,
    stop: &CancellationToken,
    slots: &Slots,
) -> Result<(), SessionError> {
    let mut ping = interval(timing.ping);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut n = 0;
    let mut leaving = false;
    let leave = async {
        stop.cancelled().await;
        let _ = timeout(timing.leave, slots.idle()).await;
    };
    tokio::pin!(leave);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled(), if !leaving => {
                leaving = true;
                writer.send(&ToOperator::Leaving { reason: "the engine was asked to stop".to_owned() }).await?;
            }
            Some(frame) = control.recv() => writer.send(&frame).await?,
            Some(outcome) = outcomes.recv() => send_outcome(writer, outcome).await?,
            () = &mut leave => return Ok(()),
            _ = ping.tick() => {
                n += 1;
                writer.send(&ToOperator::Ping { n }).await?;
            }
        }
    }
}

async fn send_outcome(writer: &mut FrameWriter, frame: ToOperator) -> Result<(), WireError> {
    let text = wire::encode(&frame)?;
    match writer.send_text(&text).await {
        Err(WireError::Noise(NoiseError::TooLarge { bytes })) => {
            let ToOperator::Outcome { id, .. } = frame else {
                return Ok(());
            };
            tracing::error!(id, bytes, "an outcome is larger than a frame");
            let message = "the engine's answer was too large to send; ask for less at once".to_owned();
            writer
                .send(&ToOperator::Outcome {
                    id,
                    outcome: Outcome::Unknown { message },
                })
                .await
        }
        sent => sent,
    }
}
