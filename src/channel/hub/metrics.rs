//! What the hub counts by itself; what becomes of tasks is counted by whoever asks.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The hub's metrics; clones share their values, so that they outlive the hub of one leadership.
#[derive(Debug, Clone, Default)]
pub struct HubMetrics {
    pub(super) overflows: Counter,
    pub(super) takeovers: Counter,
    handshakes: Family<Handshake, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handshake {
    result: HandshakeResult,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum HandshakeResult {
    Accepted,
    Refused,
    Failed,
    Busy,
    NotLeading,
}

impl HandshakeResult {
    const EVERY: [Self; 5] = [
        Self::Accepted,
        Self::Refused,
        Self::Failed,
        Self::Busy,
        Self::NotLeading,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Busy => "busy",
            Self::NotLeading => "not_leading",
        }
    }
}

impl EncodeLabelValue for HandshakeResult {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

impl HubMetrics {
    /// Makes the metrics visible under `dsv_channel_...`. Once per process.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("dsv_channel");
        registry.register(
            "overflows",
            "Tasks that found an engine's queue full; more engines help",
            self.overflows.clone(),
        );
        registry.register(
            "takeovers",
            "Sessions that replaced an older one of the same engine; many mean two processes with one key",
            self.takeovers.clone(),
        );
        registry.register(
            "handshakes",
            "Attempts of engines to connect; refused ones had a wrong name or key",
            self.handshakes.clone(),
        );
        // A counter that is absent cannot be told from one that was forgotten.
        for result in HandshakeResult::EVERY {
            self.handshakes.get_or_create(&Handshake { result }).inc_by(0);
        }
    }

    /// Tasks that found an engine's queue full, so far.
    pub fn overflows(&self) -> u64 {
        self.overflows.get()
    }

    pub(super) fn handshake(&self, result: HandshakeResult) {
        self.handshakes.get_or_create(&Handshake { result }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn every_metric_has_the_name_that_dashboards_read() {
        let (mut registry, metrics) = (Registry::default(), HubMetrics::default());
        metrics.register(&mut registry);
        metrics.handshake(HandshakeResult::NotLeading);
        metrics.takeovers.inc();
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "dsv_channel_handshakes_total{result=\"not_leading\"} 1",
            "dsv_channel_handshakes_total{result=\"refused\"} 0",
            "dsv_channel_takeovers_total 1",
            "dsv_channel_overflows_total 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
