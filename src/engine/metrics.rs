//! What the engine counts.

use crate::channel::frames::{Outcome, Task};
use crate::channel::link::LinkStatus;
use crate::telemetry::metrics::{TaskKind, TaskOutcome};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// The engine's metrics; clones share their values.
#[derive(Debug, Clone)]
pub struct EngineMetrics {
    registry: Arc<Registry>,
    tasks: Family<TaskLabels, Counter>,
    connected: Gauge,
    reconnects: Counter,
    zombies: Counter,
    guarded: Gauge,
    expired: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskLabels {
    kind: TaskKind,
    outcome: TaskOutcome,
}

impl Default for EngineMetrics {
    fn default() -> Self {
        let (tasks, connected, reconnects) = (Family::default(), Gauge::default(), Counter::default());
        let (guarded, expired, zombies) = (Gauge::default(), Counter::default(), Counter::default());
        let mut registry = Registry::with_prefix("dsv_engine");
        registry.register("tasks", "Tasks that it did", Family::clone(&tasks));
        registry.register(
            "connected",
            "1 while there is a session with the operator",
            Gauge::clone(&connected),
        );
        registry.register("reconnects", "Sessions after the first", Counter::clone(&reconnects));
        registry.register(
            "zombie_sessions",
            "Sessions that it ended because their account's role was gone",
            Counter::clone(&zombies),
        );
        registry.register(
            "guarded_servers",
            "Database servers with open leases, whose logins it keeps",
            Gauge::clone(&guarded),
        );
        registry.register(
            "expired_revoked",
            "Accounts past their end that it revoked while it had no operator",
            Counter::clone(&expired),
        );
        Self {
            registry: Arc::new(registry),
            tasks,
            connected,
            reconnects,
            zombies,
            guarded,
            expired,
        }
    }
}

impl EngineMetrics {
    pub(super) fn task(&self, task: &Task, outcome: &Outcome) {
        let (kind, outcome) = (task.into(), outcome.into());
        self.tasks.get_or_create(&TaskLabels { kind, outcome }).inc();
    }

    pub(super) fn zombies_ended(&self, count: usize) {
        self.zombies.inc_by(count as u64);
    }

    pub(super) fn guarded(&self, servers: usize) {
        self.guarded.set(i64::try_from(servers).unwrap_or(i64::MAX));
    }

    pub(super) fn expired_revoked(&self, accounts: usize) {
        self.expired.inc_by(u64::try_from(accounts).unwrap_or(u64::MAX));
    }

    /// Every metric with each value that its labels can have, in the same format: for the reference.
    pub fn every() -> Result<String, std::fmt::Error> {
        let metrics = Self::default();
        for &kind in TaskKind::EVERY {
            // No engine was asked: that is counted by who asks.
            for &outcome in TaskOutcome::EVERY
                .iter()
                .filter(|outcome| **outcome != TaskOutcome::NotSent)
            {
                drop(metrics.tasks.get_or_create(&TaskLabels { kind, outcome }));
            }
        }
        metrics.text(&LinkStatus::default())
    }

    /// Everything in the text format that Prometheus reads.
    pub(super) fn text(&self, link: &LinkStatus) -> Result<String, std::fmt::Error> {
        self.connected.set(i64::from(link.connected.is_some()));
        let reconnects = link.sessions.saturating_sub(1);
        self.reconnects.inc_by(reconnects.saturating_sub(self.reconnects.get()));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
