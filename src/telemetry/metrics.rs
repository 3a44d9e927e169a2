//! What the operator counts. Names and labels are an interface: dashboards and alerts read them.

mod labels;

use crate::api::lease::Phase;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::time::Duration;

pub use labels::{
    AuditAction, AuditFinding, Controller, LeasePhase, ObjectKind, ReconcileOutcome, TaskKind, TaskOutcome, Verb,
};

/// Of the text that [`text`] makes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// From an account that is made at once to one that waits for an engine, in seconds.
const ISSUE_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0, 60.0];
/// From a loopback round trip to a revocation that waits for locks, in seconds.
const TASK_SECONDS: [f64; 10] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
/// From an account that goes at once to one that somebody has to free, in seconds.
const REVOKE_SECONDS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0, 86400.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tasks {
    kind: TaskKind,
    outcome: TaskOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: TaskKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Definitions {
    kind: ObjectKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Leases {
    phase: LeasePhase,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Writes {
    kind: ObjectKind,
    verb: Verb,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconciles {
    controller: Controller,
    outcome: ReconcileOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Findings {
    finding: AuditFinding,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Actions {
    action: AuditAction,
}

/// The operator's metrics; clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    tasks: Family<Tasks, Counter>,
    task_seconds: Family<Kind, Histogram>,
    leases: Family<Leases, Gauge>,
    blocked: Gauge,
    overdue: Gauge,
    issue: Histogram,
    revoke: Histogram,
    engines: Gauge,
    writes: Family<Writes, Counter>,
    reconciles: Family<Reconciles, Counter>,
    leader: Gauge,
    abandoned: Counter,
    audit_findings: Family<Findings, Gauge>,
    audit_actions: Family<Actions, Counter>,
    audit_unreached: Gauge,
    missing: Family<Definitions, Gauge>,
}

/// An empty registry; every part of the program registers its metrics in it before it is served.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    let build = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("commit", super::logs::commit()),
    ];
    registry.register("dsv_build", "Which build runs", Info::new(build));
    registry
}

/// Everything in the text format that Prometheus reads.
pub fn text(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

impl Metrics {
    /// Registers the operator's metrics under `dsv_...`.
    pub fn new(registry: &mut Registry) -> Self {
        let new = Self {
            tasks: Family::default(),
            task_seconds: Family::new_with_constructor(|| Histogram::new(TASK_SECONDS)),
            leases: Family::default(),
            blocked: Gauge::default(),
            overdue: Gauge::default(),
            issue: Histogram::new(ISSUE_SECONDS),
            revoke: Histogram::new(REVOKE_SECONDS),
            engines: Gauge::default(),
            writes: Family::default(),
            reconciles: Family::default(),
            leader: Gauge::default(),
            abandoned: Counter::default(),
            audit_findings: Family::default(),
            audit_actions: Family::default(),
            audit_unreached: Gauge::default(),
            missing: Family::default(),
        };
        new.register(registry.sub_registry_with_prefix("dsv"));
        // A gauge that is absent looks like one that was forgotten; so every phase is there from the start.
        new.leases(std::iter::empty());
        for &finding in AuditFinding::EVERY {
            new.audit_found(finding, 0);
        }
        for &action in AuditAction::EVERY {
            drop(new.audit_actions.get_or_create(&Actions { action }));
        }
        new
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "leader",
            "1 while this replica leads; the sum over all replicas should be 1",
            self.leader.clone(),
        );
        registry.register(
            "engines_connected",
            "Sessions of engines at this replica",
            self.engines.clone(),
        );
        registry.register(
            "definition_missing",
            "1 while the definition of a kind is not installed: apply crds/",
            self.missing.clone(),
        );
        registry.register(
            "reconciles",
            "Passes of the controllers; failed and timed_out should stay rare",
            self.reconciles.clone(),
        );
        registry.register(
            "api_writes",
            "Writes to the API server by kind of object",
            self.writes.clone(),
        );
        self.register_leases(registry);
        self.register_tasks(registry);
        self.register_audit(registry);
    }

    fn register_leases(&self, registry: &mut Registry) {
        registry.register("leases", "Leases on the books", self.leases.clone());
        registry.register(
            "blocked_leases",
            "Accounts that cannot be dropped until somebody acts; their login is cut",
            self.blocked.clone(),
        );
        registry.register(
            "overdue_seconds",
            "Since when the oldest ended account has not been proven gone, blocked ones aside; 0 without one",
            self.overdue.clone(),
        );
        registry.register(
            "abandoned",
            "Accounts and group roles that were let go of without proof",
            self.abandoned.clone(),
        );
        registry.register(
            "issue_seconds",
            "From a lease's claim to its delivery",
            self.issue.clone(),
        );
        registry.register(
            "revoke_seconds",
            "From a lease's end to the proof that its account is gone",
            self.revoke.clone(),
        );
    }

    fn register_tasks(&self, registry: &mut Registry) {
        registry.register(
            "tasks",
            "Tasks for engines; outcome not_sent means that no engine could be asked",
            self.tasks.clone(),
        );
        registry.register(
            "task_seconds",
            "From asking an engine to its answer",
            self.task_seconds.clone(),
        );
    }

    fn register_audit(&self, registry: &mut Registry) {
        registry.register(
            "audit_findings",
            "Differences between databases and books at the last audit",
            self.audit_findings.clone(),
        );
        registry.register(
            "audit_actions",
            "What audits did about them",
            self.audit_actions.clone(),
        );
        registry.register(
            "audit_unreached_servers",
            "Servers that the last audit could not look at",
            self.audit_unreached.clone(),
        );
    }

    /// Makes every metric visible with each value that its labels can have: for the reference, not for a program that runs.
    pub fn show_all(&self) {
        for &kind in TaskKind::EVERY {
            drop(self.task_seconds.get_or_create(&Kind { kind }));
            for &outcome in TaskOutcome::EVERY {
                drop(self.tasks.get_or_create(&Tasks { kind, outcome }));
            }
        }
        for &kind in ObjectKind::EVERY {
            for &verb in Verb::EVERY {
                drop(self.writes.get_or_create(&Writes { kind, verb }));
            }
        }
        for kind in ObjectKind::DEFINED {
            self.definition_missing(kind, false);
        }
        for &controller in Controller::EVERY {
            for &outcome in ReconcileOutcome::EVERY {
                drop(self.reconciles.get_or_create(&Reconciles { controller, outcome }));
            }
        }
    }

    /// A task ended.
    pub fn task(&self, kind: TaskKind, outcome: TaskOutcome) {
        self.tasks.get_or_create(&Tasks { kind, outcome }).inc();
    }

    /// An engine was asked and its answer came, or did not come; the time since it was asked.
    pub fn task_took(&self, kind: TaskKind, took: Duration) {
        self.task_seconds
            .get_or_create(&Kind { kind })
            .observe(took.as_secs_f64());
    }

    /// The phases of all leases on the books. What is not among them counts zero.
    pub fn leases(&self, phases: impl IntoIterator<Item = Phase>) {
        let phases: Vec<LeasePhase> = phases.into_iter().map(LeasePhase::from).collect();
        for &phase in LeasePhase::EVERY {
            let count = phases.iter().filter(|seen| **seen == phase).count();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.leases.get_or_create(&Leases { phase }).set(count);
            if phase == LeasePhase::Blocked {
                self.blocked.set(count);
            }
        }
    }

    /// For how long the oldest ended account has not been proven gone; zero without one.
    pub fn overdue(&self, oldest: Duration) {
        self.overdue.set(i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX));
    }

    /// A lease was delivered; the time since its claim.
    pub fn issued(&self, took: Duration) {
        self.issue.observe(took.as_secs_f64());
    }

    /// An account is proven gone; the time since its lease ended.
    pub fn revoked(&self, took: Duration) {
        self.revoke.observe(took.as_secs_f64());
    }

    /// How many engines have a session here.
    pub fn engines_connected(&self, count: usize) {
        self.engines.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A write to the API server was sent.
    pub fn api_write(&self, kind: ObjectKind, verb: Verb) {
        self.writes.get_or_create(&Writes { kind, verb }).inc();
    }

    /// A reconcile ended.
    pub fn reconciled(&self, controller: Controller, outcome: ReconcileOutcome) {
        self.reconciles.get_or_create(&Reconciles { controller, outcome }).inc();
    }

    /// Something was let go of without proof.
    pub fn abandoned(&self) {
        self.abandoned.inc();
    }

    /// How often the last audit of every server found this.
    pub fn audit_found(&self, finding: AuditFinding, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.audit_findings.get_or_create(&Findings { finding }).set(count);
    }

    /// An audit changed something.
    pub fn audit_acted(&self, action: AuditAction) {
        self.audit_actions.get_or_create(&Actions { action }).inc();
    }

    /// How many servers could not be looked at.
    pub fn audit_unreached(&self, count: usize) {
        self.audit_unreached.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether the definition of a kind is missing in the cluster.
    pub fn definition_missing(&self, kind: ObjectKind, missing: bool) {
        self.missing.get_or_create(&Definitions { kind }).set(missing.into());
    }

    /// Whether this replica leads.
    pub fn leading(&self, leads: bool) {
        self.leader.set(leads.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_the_name_that_dashboards_read() {
        let mut registry = registry();
        let metrics = Metrics::new(&mut registry);
        metrics.task(TaskKind::DropGroup, TaskOutcome::Unknown);
        metrics.task_took(TaskKind::EnsureGroup, Duration::from_millis(7));
        metrics.leases([Phase::Issued, Phase::Issued, Phase::Blocked]);
        metrics.issued(Duration::from_millis(20));
        metrics.revoked(Duration::from_secs(4000));
        metrics.overdue(Duration::from_millis(61_500));
        metrics.engines_connected(3);
        metrics.api_write(ObjectKind::Secret, Verb::Create);
        metrics.reconciled(Controller::CredentialLease, ReconcileOutcome::TimedOut);
        metrics.definition_missing(ObjectKind::DynamicSecret, true);
        metrics.leading(true);
        metrics.abandoned();
        metrics.audit_found(AuditFinding::Unknown, 2);
        metrics.audit_acted(AuditAction::Revoke);
        metrics.audit_unreached(1);
        let text = text(&registry).unwrap();
        for line in [
            "dsv_tasks_total{kind=\"drop_group\",outcome=\"unknown\"} 1",
            "dsv_task_seconds_bucket{le=\"0.005\",kind=\"ensure_group\"} 0",
            "dsv_task_seconds_bucket{le=\"0.01\",kind=\"ensure_group\"} 1",
            "dsv_leases{phase=\"issued\"} 2",
            "dsv_leases{phase=\"blocked\"} 1",
            "dsv_leases{phase=\"pending\"} 0",
            "dsv_blocked_leases 1",
            "dsv_issue_seconds_bucket{le=\"0.01\"} 0",
            "dsv_issue_seconds_bucket{le=\"0.025\"} 1",
            "dsv_revoke_seconds_sum 4000.0",
            "dsv_overdue_seconds 61",
            "dsv_engines_connected 3",
            "dsv_api_writes_total{kind=\"secret\",verb=\"create\"} 1",
            "dsv_reconciles_total{controller=\"credential_lease\",outcome=\"timed_out\"} 1",
            "dsv_definition_missing{kind=\"dynamic_secret\"} 1",
            "dsv_leader 1",
            "dsv_abandoned_total 1",
            "dsv_audit_findings{finding=\"unknown\"} 2",
            "dsv_audit_findings{finding=\"missing\"} 0",
            "dsv_audit_actions_total{action=\"revoke\"} 1",
            "dsv_audit_unreached_servers 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("dsv_build_info{version="), "{text}");
    }

    #[test]
    fn a_phase_that_nobody_is_in_any_more_counts_zero() {
        let mut registry = registry();
        let metrics = Metrics::new(&mut registry);
        metrics.leases([Phase::Blocked]);
        metrics.leases([Phase::Revoking]);
        let text = text(&registry).unwrap();
        assert!(text.contains("dsv_blocked_leases 0"), "{text}");
        assert!(text.contains("dsv_leases{phase=\"blocked\"} 0"), "{text}");
    }
}
