//! Leadership: which replica of the operator acts. One Lease of coordination.k8s.io in the operator's namespace.
//!
//! A record is taken or renewed by one write with its resourceVersion, so that a rival's write is refused. Whoever wrote
//! it acts for [`ACTING`] from the start of that request and not a moment longer; everybody else waits for [`DURATION`]
//! from when they last saw the record change. The difference covers requests that are still on their way.
//!
//! Nothing here knows what a leader does.

mod judge;
mod tenure;

use crate::api::lease::Maker;
use crate::api::names::OPERATOR;
use crate::clock;
use crate::telemetry::logs::chain;
use judge::{Sight, Verdict, judge};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use std::sync::Arc;
use std::time::{Duration, Instant};
pub use tenure::{NotLeading, Standing};
use tenure::{Start, StopsActing, Tenure};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How long others wait for a leader whom they do not hear of.
pub const DURATION: Duration = Duration::from_secs(9);
/// How long a leader acts after the start of its last renewal: three seconds less, for what it has already sent.
pub const ACTING: Duration = Duration::from_secs(6);
/// How often a leader renews.
pub const RENEWAL: Duration = Duration::from_secs(3);
/// How often a follower looks.
const POLL: Duration = Duration::from_secs(1);
/// The pause after a renewal that failed: time for two more attempts before acting ends.
const RETRY: Duration = Duration::from_millis(500);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(2);

/// One uninterrupted leadership of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Identity of the process.
    pub holder: String,
    /// Grows with every leadership, also when the same process leads again.
    pub number: i64,
}

impl From<&Term> for Maker {
    fn from(term: &Term) -> Self {
        Self {
            holder: term.holder.clone(),
            term: term.number,
        }
    }
}

/// A candidate that runs: it takes leadership when nobody has it, and keeps it. Dropping it stops acting at once, but gives
/// nothing up, as a crash would; cancel its token for that.
pub struct Leadership {
    leader: Leader,
    task: AbortOnDropHandle<()>,
}

/// Asks whether this process may act. Cheap to clone and to ask: to be asked before every effect.
#[derive(Clone)]
pub struct Leader {
    tenure: Arc<Tenure>,
    token: CancellationToken,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot {intent} the Lease {OPERATOR} in the operator's namespace")]
    Refused {
        intent: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("the API server did not answer in time to {intent} the Lease {OPERATOR}")]
    Silent { intent: &'static str },
}

impl Leadership {
    /// Starts a candidate on the current runtime. `identity` names this process for people; it need not be unique for
    /// safety. Cancelling `token` gives leadership up, so that the next one need not wait.
    pub fn start(client: Client, namespace: &str, identity: &str, token: CancellationToken) -> Self {
        let tenure = Tenure::new();
        let leader = Leader {
            tenure: tenure.clone(),
            token: token.clone(),
        };
        let candidate = Candidate {
            leases: Api::namespaced(client, namespace),
            identity: identity.to_owned(),
            tenure,
            held: None,
            written: None,
            sight: None,
            highest: 0,
            failing: false,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(candidate.run(token)));
        Self { leader, task }
    }

    /// Changes of the standing. It says Following at the latest when acting ends, as long as the runtime runs; before an
    /// effect ask the [`Leader`].
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.leader.tenure.watch()
    }

    /// What those ask who act.
    pub fn handle(&self) -> Leader {
        self.leader.clone()
    }

    /// Returns when the candidate has ended: after its token was cancelled and leadership is given up.
    pub async fn ended(self) {
        // A panic of the candidate was reported where it happened; it has stopped acting.
        let _ = self.task.await;
    }
}

impl Leader {
    /// The term under which this process may act now; none from the moment of cancellation.
    pub fn acting(&self) -> Option<Term> {
        if self.token.is_cancelled() {
            return None;
        }
        self.tenure.acting().map(|(term, _)| term)
    }

    /// Whether this process may still act under a term.
    pub fn check(&self, term: i64) -> Result<(), NotLeading> {
        let current = self.acting().ok_or(NotLeading)?;
        (current.number == term).then_some(()).ok_or(NotLeading)
    }
}

struct Candidate {
    leases: Api<Lease>,
    identity: String,
    tenure: Arc<Tenure>,
    /// The term that we took and did not let lapse.
    held: Option<Term>,
    /// The object as our last write left it; None when it has to be read.
    written: Option<Lease>,
    sight: Option<Sight>,
    /// The highest term ever seen.
    highest: i64,
    failing: bool,
}

impl Candidate {
    async fn run(mut self, token: CancellationToken) {
        let stops = StopsActing(self.tenure.clone());
        while !token.is_cancelled() {
            let pause = {
                let step = self.step();
                tokio::pin!(step);
                tokio::select! {
                    biased;
                    pause = &mut step => pause,
                    () = token.cancelled() => {
                        // Acting ends now. The request on its way is awaited, since giving up needs its resourceVersion.
                        stops.0.close();
                        step.await
                    }
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = token.cancelled() => {}
            }
        }
        drop(stops);
        self.give_up().await;
    }

    /// One look or renewal, and how long to pause after it.
    async fn step(&mut self) -> Duration {
        if self.held.is_some() && self.tenure.acting().is_none() {
            self.step_down("it was not renewed in time");
        }
        match self.look().await {
            Ok(pause) => {
                self.failing = false;
                pause
            }
            Err(error) => {
                self.report(&error);
                self.after_failure()
            }
        }
    }

    /// A leader tries again soon, and wakes when acting ends, to step down.
    fn after_failure(&self) -> Duration {
        let left = self.tenure.acting().map_or(Duration::ZERO, |(_, left)| left);
        if self.held.is_some() { RETRY.min(left) } else { POLL }
    }

    async fn look(&mut self) -> Result<Duration, Error> {
        let lease = match self.written.take() {
            Some(lease) => Some(lease),
            None => self.read().await?,
        };
        let now = Instant::now();
        let sight = self.see(lease.as_ref().map(|l| l.spec.clone().unwrap_or_default()), now);
        match judge(&sight, self.held.as_ref(), now) {
            Verdict::Renew => match self.held.clone() {
                Some(term) => self.write(lease, term).await,
                None => Ok(POLL),
            },
            Verdict::Take => {
                self.step_down("somebody else changed the record");
                let record = lease.as_ref().and_then(|l| l.spec.as_ref());
                let term = Term {
                    holder: self.identity.clone(),
                    number: judge::next_number(record, self.highest, clock::now()),
                };
                self.write(lease, term).await
            }
            Verdict::Wait { until } => {
                self.step_down("another process wrote the record");
                Ok(until.saturating_duration_since(now).min(POLL))
            }
        }
    }

    fn see(&mut self, record: Option<LeaseSpec>, now: Instant) -> Sight {
        let number = record.as_ref().map_or(0, judge::number);
        self.highest = self.highest.max(number);
        let sight = match self.sight.take() {
            Some(sight) => sight.again(record, now),
            None => Sight::first(record, now),
        };
        self.sight.insert(sight).clone()
    }

    async fn read(&self) -> Result<Option<Lease>, Error> {
        self.ask("read", self.leases.get_opt(OPERATOR)).await
    }

    /// Writes the record as ours, on the condition that it is still as we saw it.
    async fn write(&mut self, lease: Option<Lease>, term: Term) -> Result<Duration, Error> {
        let start = Start::now();
        let renews = self.held.as_ref() == Some(&term);
        let lease = filled(lease, &term, renews);
        let options = PostParams::default();
        let answer = if lease.metadata.resource_version.is_some() {
            self.ask("renew", self.leases.replace(OPERATOR, &options, &lease)).await
        } else {
            self.ask("create", self.leases.create(&options, &lease)).await
        };
        let lease = match answer {
            // A rival was faster, or our own lost answer arrived after all: the next look tells.
            Err(Error::Refused { source, .. }) if is_conflict(&source) => return Ok(self.after_failure()),
            answer => answer?,
        };
        self.see(lease.spec.clone(), Instant::now());
        self.tenure.lead(&term, start);
        if !renews {
            tracing::info!(term = term.number, holder = term.holder, "this process leads");
        }
        self.held = Some(term);
        self.written = Some(lease);
        Ok(start.left(RENEWAL))
    }

    /// A request, for as long as its answer can still be of use.
    async fn ask<T>(
        &self,
        intent: &'static str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        let limit = self.tenure.acting().map_or(REQUEST, |(_, left)| REQUEST.min(left));
        match tokio::time::timeout(limit, request).await {
            Ok(answer) => answer.map_err(|source| Error::Refused {
                intent,
                source: Box::new(source),
            }),
            Err(_) => Err(Error::Silent { intent }),
        }
    }

    fn step_down(&mut self, why: &str) {
        if let Some(term) = self.held.take() {
            tracing::warn!(term = term.number, why, "leadership is lost");
        }
        self.written = None;
        self.tenure.follow();
    }

    /// Says once that the record cannot be read or written, not every second.
    fn report(&mut self, error: &Error) {
        let again = self.failing && self.held.is_none();
        let error = chain(error);
        if again {
            tracing::debug!(%error, "still no leadership");
        } else {
            tracing::warn!(%error, "leadership is in question");
        }
        self.failing = true;
    }

    /// Empties the record if it is ours, so that the next one need not wait. Acting has ended before.
    async fn give_up(&mut self) {
        let Some(term) = self.held.take() else { return };
        // The second attempt reads again: an earlier renewal may have arrived in between.
        for _ in 0..2 {
            match self.give_up_once(&term).await {
                Ok(()) => return tracing::info!(term = term.number, "leadership is given up"),
                Err(error) => self.report(&error),
            }
        }
    }

    async fn give_up_once(&mut self, term: &Term) -> Result<(), Error> {
        let lease = match self.written.take() {
            Some(lease) => Some(lease),
            None => self.read().await?,
        };
        let ours = |lease: &Lease| lease.spec.as_ref().is_some_and(|spec| judge::is_of(spec, term));
        let Some(mut lease) = lease.filter(ours) else {
            return Ok(());
        };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(judge::GIVEN_UP_SECONDS);
            spec.renew_time = Some(MicroTime(clock::now()));
        }
        let options = PostParams::default();
        self.ask("give up", self.leases.replace(OPERATOR, &options, &lease))
            .await?;
        Ok(())
    }
}

fn filled(lease: Option<Lease>, term: &Term, renews: bool) -> Lease {
    let now = MicroTime(clock::now());
    let mut lease = lease.unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(OPERATOR.to_owned()),
            ..ObjectMeta::default()
        },
        spec: None,
    });
    let spec = lease.spec.get_or_insert_default();
    if !renews {
        spec.acquire_time = Some(now.clone());
    }
    spec.holder_identity = Some(term.holder.clone());
    spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    spec.lease_transitions = i32::try_from(term.number).ok();
    spec.renew_time = Some(now);
    lease
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
