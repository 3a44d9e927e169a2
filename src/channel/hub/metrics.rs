//! What the hub counts.

use super::CallResult;
use crate::channel::frames::Outcome;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// From a loopback round trip to a revocation that waits for locks.
const BUCKETS: [f64; 10] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// The hub's metrics; clones share their values.
#[derive(Debug, Clone)]
pub struct HubMetrics {
    pub(super) sessions: Gauge,
    pub(super) overflows: Counter,
    pub(super) takeovers: Counter,
    pub(super) handshakes: Family<Handshake, Counter>,
    calls: Family<Call, Counter>,
    seconds: Family<Kind, Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Handshake {
    pub(super) result: HandshakeResult,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum HandshakeResult {
    Accepted,
    Refused,
    Failed,
    Busy,
    NotLeading,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    kind: &'static str,
    result: CallLabel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum CallLabel {
    Done,
    Failed,
    Unknown,
    Unsupported,
    NoEngine,
    Busy,
    TooLarge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

impl Default for HubMetrics {
    fn default() -> Self {
        Self {
            sessions: Gauge::default(),
            overflows: Counter::default(),
            takeovers: Counter::default(),
            handshakes: Family::default(),
            calls: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        }
    }
}

impl HubMetrics {
    /// Makes the metrics visible under `dsv_channel_...`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("dsv_channel");
        registry.register("sessions", "Connected engines' sessions", self.sessions.clone());
        registry.register(
            "overflows",
            "Tasks that found an engine's queue full",
            self.overflows.clone(),
        );
        registry.register(
            "takeovers",
            "Sessions that replaced an older one",
            self.takeovers.clone(),
        );
        registry.register("handshakes", "Connection attempts by result", self.handshakes.clone());
        registry.register("calls", "Tasks by kind and result", self.calls.clone());
        registry.register(
            "call_seconds",
            "Time until a task's result by kind",
            self.seconds.clone(),
        );
    }

    /// Tasks that found an engine's queue full, so far.
    pub fn overflows(&self) -> u64 {
        self.overflows.get()
    }

    pub(super) fn handshake(&self, result: HandshakeResult) {
        self.handshakes.get_or_create(&Handshake { result }).inc();
    }

    pub(super) fn called(&self, kind: &'static str, result: &CallResult, took: Duration) {
        let label = match result {
            CallResult::Answered { outcome, .. } => match outcome {
                Outcome::Done { .. } => CallLabel::Done,
                Outcome::Failed(_) => CallLabel::Failed,
                Outcome::Unknown { .. } => CallLabel::Unknown,
                Outcome::Unsupported => CallLabel::Unsupported,
            },
            CallResult::NoEngine => CallLabel::NoEngine,
            CallResult::Busy => CallLabel::Busy,
            CallResult::TooLarge => CallLabel::TooLarge,
        };
        self.calls.get_or_create(&Call { kind, result: label }).inc();
        self.seconds.get_or_create(&Kind { kind }).observe(took.as_secs_f64());
    }
}
