//! The words of labels. They are an interface as the names are.

use crate::api::lease::Phase;
use crate::channel::frames::{Outcome, Task};
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// An enum whose values are words of a label.
macro_rules! label {
    ($(#[doc = $doc:literal])+ $(#[derive($($more:ident),+)])? $name:ident { $($(#[doc = $about:literal])+ $value:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $(#[derive($($more),+)])?
        pub enum $name { $($(#[doc = $about])+ $value,)+ }

        impl $name {
            /// Every value.
            pub const EVERY: &[Self] = &[$(Self::$value,)+];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$value => $word,)+ }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
                EncodeLabelValue::encode(&self.as_str(), encoder)
            }
        }
    };
}

label! {
    /// Kind of a task.
    TaskKind {
        /// Answer.
        Echo = "echo",
        /// Look at a server.
        Probe = "probe",
        /// Make or check a group.
        EnsureGroup = "ensure_group",
        /// Make accounts.
        Issue = "issue",
        /// Make accounts gone.
        Revoke = "revoke",
        /// Remove a group.
        DropGroup = "drop_group",
        /// List what is there.
        Inventory = "inventory",
        /// Count an account's sessions.
        Sessions = "sessions",
        /// Keep a server's login.
        Guard = "guard",
        /// Forget logins.
        Forget = "forget",
        /// Of a later release.
        Other = "other",
    }
}

label! {
    /// What became of a task.
    TaskOutcome {
        /// Done.
        Done = "done",
        /// Not done.
        Failed = "failed",
        /// The answer was lost.
        Unknown = "unknown",
        /// The engine does not know the kind.
        Unsupported = "unsupported",
        /// No engine was there to be asked.
        NotSent = "not_sent",
    }
}

label! {
    /// Where a lease stands.
    LeasePhase {
        /// Nothing is in the database yet.
        Pending = "pending",
        /// Valid.
        Issued = "issued",
        /// Being taken back.
        Revoking = "revoking",
        /// It resists.
        Blocked = "blocked",
        /// Nothing was made.
        Refused = "refused",
    }
}

label! {
    /// Kind of an object in the cluster.
    ObjectKind {
        /// `DynamicSecret`.
        DynamicSecret = "dynamic_secret",
        /// `CredentialLease`.
        CredentialLease = "credential_lease",
        /// `EnginePool`.
        EnginePool = "engine_pool",
        /// `Engine`.
        Engine = "engine",
        /// `DsvTenant`.
        DsvTenant = "dsv_tenant",
        /// `SecretSync`.
        SecretSync = "secret_sync",
        /// A Secret: credential, registration, key or server record.
        Secret = "secret",
        /// Deployment: of a managed engine, or one that is restarted.
        Deployment = "deployment",
        /// `StatefulSet` that is restarted.
        StatefulSet = "stateful_set",
        /// `DaemonSet` that is restarted.
        DaemonSet = "daemon_set",
        /// The operator's own pod.
        Pod = "pod",
        /// Event.
        Event = "event",
    }
}

impl ObjectKind {
    /// Those whose definitions this operator brings.
    pub const DEFINED: [Self; 6] = [
        Self::DynamicSecret,
        Self::CredentialLease,
        Self::EnginePool,
        Self::Engine,
        Self::DsvTenant,
        Self::SecretSync,
    ];
}

label! {
    /// Kind of a write.
    Verb {
        /// POST.
        Create = "create",
        /// PUT.
        Update = "update",
        /// PATCH.
        Patch = "patch",
        /// PUT or PATCH of the status.
        Status = "status",
        /// DELETE.
        Delete = "delete",
    }
}

label! {
    /// Which controller.
    Controller {
        /// Of dynamic secrets.
        DynamicSecret = "dynamic_secret",
        /// Of leases.
        CredentialLease = "credential_lease",
        /// Of pools.
        EnginePool = "engine_pool",
        /// Of engines.
        Engine = "engine",
        /// Of DSV tenants.
        DsvTenant = "dsv_tenant",
        /// Of syncs.
        SecretSync = "secret_sync",
        /// The audit of what lies in the databases.
        Inventory = "inventory",
        /// The search for Secrets whose lease is gone.
        Sweep = "sweep",
    }
}

label! {
    /// What an audit finds.
    #[derive(PartialOrd, Ord)]
    AuditFinding {
        /// An account without a lease that is to go.
        Orphan = "orphan",
        /// An account without a lease that is left to its end.
        Unknown = "unknown",
        /// A live lease without its account.
        Missing = "missing",
        /// An account that was changed by hand.
        Altered = "altered",
        /// A locked account that can log in again.
        Unlocked = "unlocked",
        /// A group role that nobody needs, that was changed, or that lacks its grants.
        Group = "group",
        /// A role that looks like ours and cannot be proven to be.
        Unverified = "unverified",
        /// An account or lease that waits for a person's confirmation.
        Braked = "braked",
    }
}

label! {
    /// What an audit does.
    AuditAction {
        /// Revoke an account without a lease.
        Revoke = "revoke",
        /// End a lease whose account is gone or changed.
        Replace = "replace",
        /// Lock an account again.
        Lock = "lock",
        /// Drop a group role.
        DropGroup = "drop_group",
        /// Remove a server record.
        RemoveRecord = "remove_record",
    }
}

label! {
    /// How a reconcile ended.
    ReconcileOutcome {
        /// Nothing is left to do for now.
        Settled = "settled",
        /// It waits for somebody or something.
        Waiting = "waiting",
        /// It failed and is tried again.
        Failed = "failed",
        /// It took too long and was cut off.
        TimedOut = "timed_out",
    }
}

impl From<&Task> for TaskKind {
    fn from(task: &Task) -> Self {
        match task {
            Task::Echo => Self::Echo,
            Task::Probe { .. } => Self::Probe,
            Task::EnsureGroup { .. } => Self::EnsureGroup,
            Task::Issue { .. } => Self::Issue,
            Task::Revoke { .. } => Self::Revoke,
            Task::DropGroup { .. } => Self::DropGroup,
            Task::Inventory { .. } => Self::Inventory,
            Task::Sessions { .. } => Self::Sessions,
            Task::Guard { .. } => Self::Guard,
            Task::Forget { .. } => Self::Forget,
            Task::Unknown => Self::Other,
        }
    }
}

impl From<&Outcome> for TaskOutcome {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Done { .. } => Self::Done,
            Outcome::Failed(_) => Self::Failed,
            Outcome::Unknown { .. } => Self::Unknown,
            Outcome::Unsupported => Self::Unsupported,
        }
    }
}

impl From<Phase> for LeasePhase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Pending => Self::Pending,
            Phase::Issued => Self::Issued,
            Phase::Revoking => Self::Revoking,
            Phase::Blocked => Self::Blocked,
            Phase::Refused => Self::Refused,
        }
    }
}
