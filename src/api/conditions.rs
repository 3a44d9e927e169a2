//! Condition types and reasons: the closed vocabulary of status, Events and metrics.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Types of conditions. `Ready` answers the user's question; `Stalled` (kstatus) says that somebody has to act.
pub const READY: &str = "Ready";
/// See [`READY`].
pub const STALLED: &str = "Stalled";
/// Of a pool: true while databases and books agree.
pub const AUDITED: &str = "Audited";
/// Of a dynamic secret with `target.restart`: every workload runs with the current credential.
pub const RESTARTED: &str = "Restarted";

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $kind:ident,)+) => {
        /// Why an object is as it is. The same word appears in conditions, Events and metric labels.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every reason.
            pub const EVERY: &[Self] = &[$(Self::$name,)+];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// What kind of reason it is.
            pub fn kind(self) -> ReasonKind {
                match self { $(Self::$name => ReasonKind::$kind,)+ }
            }
        }
    };
}

/// What a reason asks of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasonKind {
    /// As it should be.
    Good,
    /// It goes on by itself.
    Waiting,
    /// Somebody has to change something; the same again would fail again.
    Refused,
}

reasons! {
    /// A credential is delivered and valid.
    Issued => Good,
    /// Mode Once: the credential has ended as agreed.
    Expired => Good,
    /// Mode OnDemand: leases can be asked for.
    OnDemand => Good,
    /// The engine is connected, or the pool has connected engines.
    Connected => Good,
    /// Databases and books agree.
    Consistent => Good,
    /// The tenant has what the source holds.
    Synced => Good,
    /// An engine has another key.
    KeyChanged => Good,
    /// Every workload that is to be restarted runs with the current credential.
    RolledOut => Good,
    /// Issuing is suspended by the user.
    Suspended => Waiting,
    /// A lease is on its way.
    Issuing => Waiting,
    /// The account or object is being taken away.
    Revoking => Waiting,
    /// No engine of the pool is connected.
    WaitingForEngine => Waiting,
    /// No engine has reported the server's clock yet.
    WaitingForClock => Waiting,
    /// The engine has not dialled in yet, or not any more.
    NotConnected => Waiting,
    /// Two processes use one engine's key.
    DuplicateSession => Waiting,
    /// The database cannot be reached.
    DatabaseUnreachable => Waiting,
    /// The database is a standby or read-only.
    DatabaseReadOnly => Waiting,
    /// The database is full, locked or in conflict.
    DatabaseBusy => Waiting,
    /// The account resists; login is cut.
    Blocked => Waiting,
    /// Whether it happened is not known yet.
    OutcomeUnknown => Waiting,
    /// The credential could not be delivered; another one follows.
    NotDelivered => Waiting,
    /// An account or group role was let go of without proof that it is gone, because somebody said so on the pool.
    Abandoned => Waiting,
    /// The Secret expires soon and nothing follows.
    ExpiresSoon => Waiting,
    /// The lease of a credential was deleted by hand.
    LeaseDeleted => Waiting,
    /// The Secret was deleted by hand.
    TargetDeleted => Waiting,
    /// The Secret's data was edited by hand.
    TargetEdited => Waiting,
    /// Our label was taken off the Secret; it is left alone.
    TargetReleased => Waiting,
    /// The account of a live lease is gone from the database.
    AccountMissing => Waiting,
    /// The account of a lease was changed by hand.
    AccountAltered => Waiting,
    /// An account of ours without a lease was or is being revoked.
    OrphanAccount => Waiting,
    /// An account of ours without a lease is left to its end.
    UnknownAccount => Waiting,
    /// A group role was changed by hand.
    GroupAltered => Waiting,
    /// A sync or its tenant is switched off.
    Inactive => Waiting,
    /// A DSV tenant cannot be reached.
    TenantUnreachable => Waiting,
    /// A DSV tenant asks for patience or fails by itself.
    TenantBusy => Waiting,
    /// The source of a sync is not there.
    SourceMissing => Waiting,
    /// What a lease was bound to has ended, so the lease ends.
    OwnerEnded => Waiting,
    /// Whether what a lease is bound to lives cannot be told.
    OwnerUnknown => Waiting,
    /// Workloads that were restarted are not rolled out yet.
    RollingOut => Waiting,
    /// A workload that is to be restarted is paused, or replaces its pods only by hand.
    RestartPaused => Waiting,
    /// A workload that is to be restarted does not exist.
    WorkloadMissing => Waiting,
    /// A workload that is to be restarted does not allow it.
    RestartNotAllowed => Refused,
    /// The operator lacks the rights to restart workloads.
    RestartForbidden => Refused,
    /// An audit wants to end much at once.
    ConfirmationNeeded => Refused,
    /// The base secret does not exist.
    BaseSecretMissing => Refused,
    /// The base secret lacks its label, a key, or a key has a wrong form.
    BaseSecretInvalid => Refused,
    /// The server refused the base secret's login.
    LoginRefused => Refused,
    /// TLS failed.
    TlsRefused => Refused,
    /// The base secret's login lacks privileges.
    MissingPrivilege => Refused,
    /// A grant names something that does not exist.
    ObjectMissing => Refused,
    /// A grant could not be given completely.
    GrantIncomplete => Refused,
    /// A role of the name exists and is not ours.
    ForeignRole => Refused,
    /// The pool does not exist.
    PoolMissing => Refused,
    /// The pool is being deleted.
    PoolDeleting => Refused,
    /// The pool admits no request from this namespace, or not this one.
    AccessDenied => Refused,
    /// The namespace is not among those that the operator was installed for.
    NotServed => Refused,
    /// The pool's limit of leases for this namespace, or the secret's own limit, is reached.
    TooManyLeases => Waiting,
    /// The target Secret exists and is not ours.
    TargetNotOurs => Refused,
    /// The API server refused the target Secret.
    TargetRefused => Refused,
    /// Another DynamicSecret delivers to the same Secret.
    TargetShared => Refused,
    /// The dynamic secret does not exist or does not serve requests.
    DynamicSecretMissing => Refused,
    /// Leases are asked for where the mode is not OnDemand.
    NotOnDemand => Refused,
    /// A field has a value that cannot be served.
    InvalidSpec => Refused,
    /// The engine is switched off by its spec.
    Disabled => Refused,
    /// The root key is missing while engines have keys.
    RootKeyMissing => Refused,
    /// The DsvTenant of a sync does not exist.
    TenantMissing => Refused,
    /// A DSV tenant refused the login, or what the login asked for.
    TenantRefused => Refused,
    /// The credentials Secret of a DsvTenant is missing or lacks a field.
    CredentialsInvalid => Refused,
    /// The address of a DSV tenant is one that nothing is pushed to.
    DestinationRefused => Refused,
    /// The secret at the DSV tenant is not what was pushed.
    DestinationDiffers => Refused,
    /// The database answered something unexpected.
    DatabaseError => Waiting,
    /// The API server answered something unexpected.
    ClusterError => Waiting,
    /// The object is being deleted.
    Deleting => Waiting,
}

/// Sets `Ready` and, for refusals, `Stalled`. The transition time changes only with the status, as Kubernetes has it.
pub fn set_ready(
    conditions: &mut Vec<Condition>,
    reason: Reason,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = if reason.kind() == ReasonKind::Good {
        "True"
    } else {
        "False"
    };
    set(conditions, READY, status, reason, message, generation, now);
    if reason.kind() == ReasonKind::Refused {
        set(conditions, STALLED, "True", reason, message, generation, now);
    } else {
        conditions.retain(|c| c.type_ != STALLED);
    }
}

/// Sets one condition, in place.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: &str,
    reason: Reason,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let old = conditions.iter().position(|c| c.type_ == type_);
    let since = old
        .and_then(|at| conditions.get(at))
        .filter(|c| c.status == status)
        .map(|c| c.last_transition_time.clone());
    let condition = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.chars().take(1024).collect(),
        observed_generation: generation,
        last_transition_time: since.unwrap_or(Time(now)),
    };
    match old.and_then(|at| conditions.get_mut(at)) {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
        let mut conditions = Vec::new();
        set_ready(&mut conditions, Reason::PoolMissing, "no pool", Some(1), early);
        set_ready(&mut conditions, Reason::AccessDenied, "no access", Some(1), late);
        assert_eq!(find(&conditions, READY).unwrap().last_transition_time.0, early);
        assert!(find(&conditions, STALLED).is_some());
        set_ready(&mut conditions, Reason::Issued, "valid", Some(1), late);
        assert_eq!(find(&conditions, READY).unwrap().last_transition_time.0, late);
        assert!(find(&conditions, STALLED).is_none());
    }
}
