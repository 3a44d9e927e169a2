//! The engine's end of the channel: finds an operator, keeps a session with it, and gives its tasks to a [`Tasks`].
//!
//! What a task means is not known here. Outcomes belong to the session that brought their task: when it is lost they are
//! dropped, because the operator has taken them as unknown and asks again.

mod dial;
mod endpoint;
mod session;
mod trust;

pub use dial::{DialError, Proxies, secured};
pub use endpoint::{Endpoint, EndpointError};
pub use trust::{OuterTrust, TrustError};

use super::Timing;
use super::frames::{CloseCode, Outcome, Task};
use crate::keys::{EngineKey, SigningPublicKey};
use jiff::Timestamp;
use rand::RngExt;
use session::{SessionError, Slots};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// First upper bound of the random pause between two attempts; doubled after each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Last upper bound: after an outage a fleet is back within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A session that lived this long was a good one: the next failure starts from the first pause again.
const GOOD_SESSION: Duration = Duration::from_secs(10);
/// The same failure is told again after this long.
const TOLD_AGAIN: Duration = Duration::from_mins(1);

/// Does tasks. Called for many tasks at once.
pub trait Tasks: Send + Sync + 'static {
    /// Does one task. The operator waits for `patience`; a task that cannot begin in that time need not begin.
    fn run(&self, task: Task, patience: Duration) -> impl Future<Output = Outcome> + Send;
}

/// How an engine connects.
#[derive(Debug)]
pub struct LinkOptions {
    /// Operators to try, in turn. At least one.
    pub endpoints: Vec<Endpoint>,
    /// Name of the Engine object.
    pub name: String,
    /// The engine's key; its namespace and the root that it trusts are in it.
    pub key: EngineKey,
    /// Certificates of the outer connection.
    pub trust: OuterTrust,
    /// Proxies.
    pub proxies: Proxies,
    /// Version of the program, for people.
    pub version: String,
    /// Patience with the other side.
    pub timing: Timing,
}

/// What the link is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkStatus {
    /// The session, if there is one.
    pub connected: Option<Connected>,
    /// Sessions so far, this one included.
    pub sessions: u64,
    /// Why there was no session last time.
    pub last_failure: Option<String>,
}

/// A session with an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Where.
    pub endpoint: String,
    /// The session's name, in both sides' logs.
    pub session: String,
    /// The operator's installation.
    pub installation: String,
    /// The key that signs the installation's role comments.
    pub signing_key: SigningPublicKey,
    /// Since when.
    pub since: Timestamp,
}

/// The engine's end of the channel.
pub struct Link<T> {
    options: LinkOptions,
    tasks: Arc<T>,
    boot: String,
    slots: Slots,
    status: watch::Sender<LinkStatus>,
}

/// How an attempt ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("stopped")]
    Stopped,
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("connecting took too long")]
    Slow,
    /// Before the welcome.
    #[error(transparent)]
    Refused(SessionError),
    /// After it.
    #[error(transparent)]
    Lost(SessionError),
}

impl Ended {
    /// Another endpoint is the better next try.
    fn elsewhere(&self) -> bool {
        match self {
            Self::Dial(_) | Self::Slow | Self::Refused(_) => true,
            Self::Lost(SessionError::Closed { code, .. }) => {
                matches!(code, CloseCode::NotLeading | CloseCode::Stopping)
            }
            Self::Stopped | Self::Lost(_) => false,
        }
    }

    /// The whole story in one line.
    fn story(&self) -> String {
        let (mut story, mut cause) = (self.to_string(), self.source());
        while let Some(error) = cause {
            story = format!("{story}: {error}");
            cause = error.source();
        }
        story
    }
}

impl<T: Tasks> Link<T> {
    /// A link that does not run yet.
    pub fn new(options: LinkOptions, tasks: T) -> Self {
        let boot = uuid::Uuid::new_v4().simple().to_string();
        let status = watch::Sender::new(LinkStatus::default());
        Self {
            options,
            tasks: Arc::new(tasks),
            boot,
            slots: Slots::default(),
            status,
        }
    }

    /// Tells what the link is doing, now and from now on.
    pub fn status(&self) -> watch::Receiver<LinkStatus> {
        self.status.subscribe()
    }

    /// Connects and reconnects until `stop`; then finishes what runs, within the time for leaving.
    pub async fn run(self, stop: CancellationToken) {
        let mut pause = Pause::default();
        let mut told = Told::default();
        let mut failed = 0;
        for endpoint in self.options.endpoints.iter().cycle() {
            loop {
                let begun = Instant::now();
                let ended = self.attempt(endpoint, &stop).await;
                self.status.send_modify(|status| {
                    status.connected = None;
                    status.last_failure = Some(ended.story());
                });
                if stop.is_cancelled() {
                    return;
                }
                told.failure(endpoint, &ended);
                if begun.elapsed() >= GOOD_SESSION {
                    pause = Pause::default();
                    failed = 0;
                }
                failed += 1;
                let next = ended.elsewhere();
                // Every endpoint gets its chance before the first pause.
                if !next || failed % self.options.endpoints.len() == 0 {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = sleep(pause.next()) => {}
                    }
                }
                if next {
                    break;
                }
            }
        }
        tracing::error!("no endpoint is configured");
    }

    async fn attempt(&self, endpoint: &Endpoint, stop: &CancellationToken) -> Ended {
        let opening = async {
            let agent = format!("dsv-engine/{}", self.options.version);
            let dialing = dial::dial(endpoint, &self.options.trust, &self.options.proxies, &agent);
            let socket = timeout(self.options.timing.handshake, dialing)
                .await
                .map_err(|_| Ended::Slow)??;
            session::open(self, endpoint, socket).await.map_err(Ended::Refused)
        };
        let session = tokio::select! {
            () = stop.cancelled() => return Ended::Stopped,
            opened = opening => match opened {
                Ok(session) => session,
                Err(ended) => return ended,
            },
        };
        let connected = session.connected.clone();
        tracing::info!(
            endpoint = connected.endpoint,
            session = connected.session,
            installation = connected.installation,
            "engine is ready and waiting for messages"
        );
        self.status.send_modify(|status| {
            status.connected = Some(connected);
            status.sessions += 1;
        });
        session::serve(self, session, stop)
            .await
            .err()
            .map_or(Ended::Stopped, Ended::Lost)
    }
}

impl<T> std::fmt::Debug for Link<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.options.name)
    }
}

/// Random pauses, so that a fleet does not come back all at once.
#[derive(Default)]
struct Pause {
    failures: u32,
}

impl Pause {
    fn next(&mut self) -> Duration {
        let bound = FIRST_PAUSE
            .saturating_mul(1 << self.failures.min(10))
            .min(LONGEST_PAUSE);
        self.failures += 1;
        rand::rng().random_range(Duration::ZERO..=bound)
    }
}

/// What was logged last, so that an outage of hours is not a log line per attempt.
#[derive(Default)]
struct Told {
    last: Option<(String, Instant)>,
}

impl Told {
    fn failure(&mut self, endpoint: &Endpoint, ended: &Ended) {
        let text = format!("{endpoint} {ended}");
        let known = self
            .last
            .as_ref()
            .is_some_and(|(last, at)| *last == text && at.elapsed() < TOLD_AGAIN);
        let error = ended as &dyn Error;
        if known {
            tracing::debug!(%endpoint, error, "there is no session with the operator");
        } else {
            tracing::warn!(%endpoint, error, "there is no session with the operator; trying again");
            self.last = Some((text, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_PAUSE, Pause};
    use std::time::Duration;

    #[test]
    fn pauses_grow_to_five_seconds_and_are_random() {
        let mut pause = Pause::default();
        let first: Vec<Duration> = (0..3).map(|_| pause.next()).collect();
        assert!(
            first[0] <= Duration::from_millis(250) && first[1] <= Duration::from_millis(500),
            "{first:?}"
        );
        let rest: Vec<Duration> = (0..200).map(|_| pause.next()).collect();
        assert!(rest.iter().all(|pause| *pause <= LONGEST_PAUSE));
        assert!(rest.iter().any(|pause| *pause > LONGEST_PAUSE / 2), "some are long");
        assert!(rest.iter().any(|pause| *pause < LONGEST_PAUSE / 2), "some are short");
    }
}
