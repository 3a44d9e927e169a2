//! What to do about each reason, in a few words. The condition's message says it with names; `docs/reasons.md` at length.

use crate::api::conditions::{self, READY, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// A reason by its word; none if a newer operator wrote it.
pub fn reason(word: &str) -> Option<Reason> {
    Reason::EVERY.iter().copied().find(|reason| reason.as_str() == word)
}

/// The condition Ready as this program understands it.
pub fn ready(conditions: &[Condition]) -> Option<(bool, &Condition)> {
    conditions::find(conditions, READY).map(|condition| (condition.status == "True", condition))
}

/// The next step for a reason; empty where nothing is to be done.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn next_step(reason: Reason) -> &'static str {
    match reason {
        Reason::Issued
        | Reason::RolledOut
        | Reason::Connected
        | Reason::Consistent
        | Reason::Synced
        | Reason::KeyChanged => "",
        Reason::Expired
        | Reason::LeaseDeleted
        | Reason::TargetDeleted
        | Reason::TargetEdited
        | Reason::TargetReleased => "for another credential: kubectl dsv rotate NAME",
        Reason::OnDemand => "for a credential: kubectl dsv issue NAME",
        Reason::Suspended => "take spec.suspend off",
        Reason::Issuing | Reason::Revoking | Reason::OutcomeUnknown | Reason::Deleting => "wait; it goes on by itself",
        Reason::OwnerEnded => "ask for another lease, for a Pod, Job or ServiceAccount that lives",
        Reason::OwnerUnknown => "wait; if it lasts, see the operator's rights to get pods, jobs and serviceaccounts",
        Reason::RollingOut => "wait; kubectl rollout status shows how far it is",
        Reason::RestartPaused => "resume the workload, or replace its pods by hand",
        Reason::WorkloadMissing => "create the workload, or take it out of spec.target.restart",
        Reason::RestartNotAllowed => "annotate the workload with dsv.dev/restart=allowed",
        Reason::RestartForbidden => "have the operator installed with restarts.enabled=true",
        Reason::WaitingForEngine | Reason::NotConnected => "start an engine, or look at its log",
        Reason::WaitingForClock => "wait for an engine to reach the database",
        Reason::DuplicateSession => "stop one of the two engines, or give it an Engine of its own",
        Reason::DatabaseUnreachable => "check host, port and network between engine and database",
        Reason::DatabaseReadOnly => "let the base secret name the writable server",
        Reason::DatabaseBusy => "wait; if it lasts, look for locks and full connections",
        Reason::Abandoned => "should the database come back, drop the role that the Event names",
        Reason::Blocked => "run the SQL in the lease's message, then it goes on by itself",
        Reason::AccountMissing | Reason::AccountAltered => {
            "for another credential in mode Once: kubectl dsv rotate NAME"
        }
        Reason::OrphanAccount | Reason::UnknownAccount => "wait; find out who took the lease off the books",
        Reason::GroupAltered => "take the memberships in the message back",
        Reason::ConfirmationNeeded => "check what the audit would end, then annotate the pool as the message says",
        Reason::NotDelivered => "wait; another credential follows",
        Reason::ExpiresSoon => "for another credential before the end: kubectl dsv rotate NAME",
        Reason::BaseSecretMissing => "create the base secret beside the pool",
        Reason::BaseSecretInvalid => "correct the base secret's label and keys",
        Reason::LoginRefused => "correct username and password in the base secret",
        Reason::TlsRefused => "correct sslmode, ca.crt, tls.crt and tls.key in the base secret",
        Reason::MissingPrivilege => "run the SQL in the message as the database's administrator",
        Reason::ObjectMissing => "create the object, or correct the grants",
        Reason::GrantIncomplete => "run the SQL in the message as the objects' owner",
        Reason::ForeignRole => "drop or rename the role that is in the way",
        Reason::PoolMissing => "create the pool, or correct spec.pool",
        Reason::PoolDeleting => "choose another pool in spec.pool",
        Reason::AccessDenied => "ask the pool's owner for an access entry",
        Reason::NotServed => "ask whoever installed the operator to add the namespace to the chart's watch.namespaces",
        Reason::TooManyLeases => "wait until a lease ends, or raise the limit",
        Reason::TargetNotOurs | Reason::TargetShared => "choose another spec.target.name, or move the Secret away",
        Reason::TargetRefused => "see what refused the Secret: a quota or a policy",
        Reason::DynamicSecretMissing => "create the DynamicSecret, or correct spec.dynamicSecret",
        Reason::NotOnDemand => "ask a DynamicSecret in mode OnDemand",
        Reason::InvalidSpec => "correct the spec as the message says",
        Reason::Disabled => "take spec.disabled off the Engine",
        Reason::RootKeyMissing => "restore the Secret dsv-root from backup",
        Reason::Inactive => "set spec.active of sync and tenant to true",
        Reason::TenantUnreachable | Reason::TenantBusy => "wait; check URL and network between operator and DSV tenant",
        Reason::SourceMissing => "create the source, or delete the sync",
        Reason::TenantMissing => "create the DsvTenant",
        Reason::TenantRefused => "correct the login, or its policies at the DSV tenant",
        Reason::CredentialsInvalid => "correct the credentials Secret as the message says",
        Reason::DestinationRefused => "ask whoever installed the operator to allow the address",
        Reason::DestinationDiffers => "set spec.drift to Overwrite, or change the secret at the tenant back",
        Reason::DatabaseError | Reason::ClusterError => "read the message; it is tried again",
    }
}

/// The next step for a reason's word, for an object of that name.
pub fn next_step_of(word: &str, name: &str) -> String {
    reason(word).map_or_else(
        || format!("kubectl dsv why {name}"),
        |reason| next_step(reason).replace("NAME", name),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::ReasonKind;

    #[test]
    fn whatever_is_refused_has_a_next_step() {
        for reason in Reason::EVERY {
            let step = next_step(*reason);
            assert!(
                !step.is_empty() || reason.kind() == ReasonKind::Good,
                "{reason:?} leaves its reader without a next step"
            );
        }
        assert_eq!(
            next_step_of("Expired", "app"),
            "for another credential: kubectl dsv rotate app"
        );
        assert_eq!(next_step_of("OfTomorrow", "app"), "kubectl dsv why app");
    }
}
