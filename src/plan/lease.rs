//! The next step of one lease. See "A lease's life" in `docs/architecture.md`; the order of the steps is the guarantee.

use crate::api::lease::{Claim, Maker};
use jiff::Timestamp;

/// What is seen of a lease, in one pass.
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent observations, each true or not"
)]
#[derive(Debug, Clone, Default)]
pub struct Observed<'a> {
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// Our finalizer is on it.
    pub finalizer: bool,
    /// What was decided when it was made or taken on.
    pub claim: Option<&'a Claim>,
    /// Its status says that the account exists and the Secret is delivered.
    pub reported: bool,
    /// The account was issued or adopted in this pass.
    pub account: bool,
    /// The Secret that the claim asks for.
    pub secret: SecretSeen,
    /// We hold the plaintext password.
    pub password: bool,
    /// The account was proven gone in this pass.
    pub gone: bool,
    /// The dynamic secret's status names this lease's end, or there is no dynamic secret any more.
    pub end_recorded: bool,
}

/// The credential Secret, as this lease sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SecretSeen {
    /// The claim asks for none.
    #[default]
    NotWanted,
    /// There is none.
    Absent,
    /// It names this lease.
    Ours,
    /// It is of the same dynamic secret, with a lower serial: to be replaced.
    Older,
    /// It is of the same dynamic secret, with a higher serial: this lease was overtaken.
    Newer,
    /// It names this lease, but our label was taken off: to be left alone.
    Released,
    /// It is not ours.
    Foreign,
}

/// Two clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The operator's.
    pub operator: Timestamp,
    /// The database's, if an engine has reported it.
    pub database: Option<Timestamp>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Somebody asked for this lease: take it on, or refuse.
    TakeOn,
    /// Ask an engine to issue or adopt the account.
    Issue,
    /// Write the Secret.
    Deliver,
    /// Write the status: issued.
    Report,
    /// Delete the Secret, if it still names this lease.
    DeleteSecret,
    /// Ask an engine to make the account gone.
    Revoke,
    /// Write the end into the dynamic secret's status.
    RecordEnd,
    /// Delete the lease object; the finalizer still holds it.
    Delete,
    /// Take the finalizer off.
    Release,
    /// Nothing until then.
    Wait(Timestamp),
    /// Not ours (any more).
    Nothing,
}

/// Why a lease ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its time is over.
    Expired,
    /// The object was deleted.
    Deleted,
    /// The password is lost before it was delivered: a former leader held it.
    NotDelivered,
    /// The account was not issued by its deadline.
    NotIssued,
}

/// The next step.
pub fn next(seen: &Observed<'_>, now: Now) -> Step {
    let Some(claim) = seen.claim else {
        return unclaimed(seen);
    };
    if !seen.finalizer {
        // Somebody took the finalizer off. The books are lost if the object is going; otherwise it is put back on.
        return if seen.deleting { Step::Nothing } else { Step::TakeOn };
    }
    match end(seen, claim, now) {
        Some(_) => take_back(seen),
        None => bring_about(seen, claim, now),
    }
}

fn unclaimed(seen: &Observed<'_>) -> Step {
    match (seen.deleting, seen.finalizer) {
        (true, true) => Step::Release,
        (true, false) => Step::Nothing,
        (false, _) => Step::TakeOn,
    }
}

/// Whether and why the lease is over.
pub fn end(seen: &Observed<'_>, claim: &Claim, now: Now) -> Option<End> {
    if now.operator >= claim.expires_at.0 {
        return Some(End::Expired);
    }
    if seen.deleting {
        return Some(End::Deleted);
    }
    if seen.reported {
        return None;
    }
    let delivered = seen.secret == SecretSeen::Ours;
    let wanted = seen.secret != SecretSeen::NotWanted;
    if wanted && !delivered && !seen.password {
        return Some(End::NotDelivered);
    }
    let late = now.database.is_some_and(|database| database >= claim.issue_deadline.0);
    if late && !delivered {
        return Some(End::NotIssued);
    }
    None
}

fn bring_about(seen: &Observed<'_>, claim: &Claim, now: Now) -> Step {
    if seen.reported {
        return Step::Wait(claim.expires_at.0);
    }
    // A Secret that names this lease was written after the account existed. After the deadline the engine would refuse
    // even to look, so then the Secret alone is the proof, and the status goes without an OID.
    let delivered = seen.secret == SecretSeen::Ours;
    let late = now.database.is_some_and(|database| database >= claim.issue_deadline.0);
    let proven = seen.account || (delivered && late);
    if !proven {
        return Step::Issue;
    }
    match seen.secret {
        SecretSeen::NotWanted | SecretSeen::Ours => Step::Report,
        // Foreign and Newer are refused by the write itself, which then ends the lease.
        _ => Step::Deliver,
    }
}

fn take_back(seen: &Observed<'_>) -> Step {
    // The Secret goes first: whether or not the database can be reached, nobody may go on reading an ended credential.
    if seen.secret == SecretSeen::Ours {
        // It was delivered, even if nobody lived to say so before the end. That is said first, or it would count as failed
        // and mode Once would issue another.
        return if seen.reported || seen.deleting {
            Step::DeleteSecret
        } else {
            Step::Report
        };
    }
    // A lease that failed is marked before it is taken back: its account may only be proven gone after the deadline, and
    // the next serial need not wait for that.
    if !seen.reported && !seen.deleting {
        return Step::Delete;
    }
    if !seen.gone {
        return Step::Revoke;
    }
    // The end is recorded from a lease that is marked as deleted: such a one is not reported any more, so even an old view
    // of it knows whether it was delivered. Otherwise mode Once could take a delivered lease for a failed one.
    if !seen.deleting {
        return Step::Delete;
    }
    if seen.end_recorded {
        Step::Release
    } else {
        Step::RecordEnd
    }
}

/// Whether the claim was made by this leadership.
pub fn made_by(claim: &Claim, me: &Maker) -> bool {
    *claim.maker == *me
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::dynamic_secret::OwnedObjectsPolicy;
    use crate::api::lease::{ClaimedGroup, ClaimedPool};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn now(second: i64) -> Now {
        Now {
            operator: at(second),
            database: Some(at(second)),
        }
    }

    /// Claimed at 0, to be issued by 60, ends at 100.
    fn claim() -> Claim {
        Claim {
            maker: Maker {
                holder: "op-1".into(),
                term: 1,
            }
            .into(),
            dynamic_secret_uid: "ds".into(),
            serial: 1,
            server: "server-x".into(),
            pool: ClaimedPool {
                namespace: "databases".into(),
                name: "orders".into(),
                uid: "p".into(),
            }
            .into(),
            group: ClaimedGroup {
                name: "dsvg_x".into(),
                grants: vec![],
                since: Time(at(0)),
            }
            .into(),
            user_prefix: "".into(),
            fingerprint: "f".into(),
            ttl_seconds: 100,
            claimed_at: Time(at(0)),
            issue_deadline: Time(at(60)),
            valid_until: Time(at(100)),
            expires_at: Time(at(100)),
            target: Some("s".into()),
            owned_objects: OwnedObjectsPolicy::Reassign,
            account: None,
        }
    }

    #[test]
    fn a_life_goes_issue_deliver_report_wait_and_back() {
        let claim = claim();
        let mut seen = Observed {
            finalizer: true,
            claim: Some(&claim),
            secret: SecretSeen::Absent,
            password: true,
            ..Observed::default()
        };
        assert_eq!(next(&seen, now(1)), Step::Issue);
        seen.account = true;
        assert_eq!(next(&seen, now(1)), Step::Deliver);
        seen.secret = SecretSeen::Ours;
        assert_eq!(next(&seen, now(1)), Step::Report);
        seen = Observed {
            reported: true,
            account: false,
            password: false,
            ..seen
        };
        assert_eq!(next(&seen, now(99)), Step::Wait(at(100)));
        assert_eq!(next(&seen, now(100)), Step::DeleteSecret);
        seen.secret = SecretSeen::Absent;
        assert_eq!(next(&seen, now(100)), Step::Revoke);
        seen.gone = true;
        assert_eq!(next(&seen, now(100)), Step::Delete);
        seen.deleting = true;
        assert_eq!(next(&seen, now(100)), Step::RecordEnd);
        seen.end_recorded = true;
        assert_eq!(next(&seen, now(100)), Step::Release);
    }

    #[test]
    fn an_undelivered_lease_without_its_password_is_taken_back() {
        let claim = claim();
        let seen = Observed {
            finalizer: true,
            claim: Some(&claim),
            secret: SecretSeen::Absent,
            ..Observed::default()
        };
        assert_eq!(end(&seen, &claim, now(1)), Some(End::NotDelivered));
        assert_eq!(
            next(&seen, now(1)),
            Step::Delete,
            "the mark lets the next serial go ahead"
        );
        assert_eq!(next(&Observed { deleting: true, ..seen }, now(1)), Step::Revoke);
    }

    #[test]
    fn a_delivered_lease_survives_the_loss_of_its_maker() {
        let claim = claim();
        let seen = Observed {
            finalizer: true,
            claim: Some(&claim),
            secret: SecretSeen::Ours,
            ..Observed::default()
        };
        assert_eq!(next(&seen, now(1)), Step::Issue, "adopting finds the account again");
        assert_eq!(
            next(&seen, now(61)),
            Step::Report,
            "after the deadline the Secret is the proof"
        );
    }

    #[test]
    fn a_delivery_that_nobody_reported_is_reported_before_its_secret_goes() {
        let claim = claim();
        let seen = Observed {
            finalizer: true,
            claim: Some(&claim),
            secret: SecretSeen::Ours,
            ..Observed::default()
        };
        assert_eq!(next(&seen, now(100)), Step::Report);
        let reported = Observed {
            reported: true,
            ..seen.clone()
        };
        assert_eq!(next(&reported, now(100)), Step::DeleteSecret);
        let deleted = Observed { deleting: true, ..seen };
        assert_eq!(
            next(&deleted, now(1)),
            Step::DeleteSecret,
            "what is marked as deleted is not reported any more"
        );
    }

    #[test]
    fn nothing_is_issued_after_the_deadline() {
        let claim = claim();
        let seen = Observed {
            finalizer: true,
            claim: Some(&claim),
            secret: SecretSeen::Absent,
            password: true,
            ..Observed::default()
        };
        assert_eq!(end(&seen, &claim, now(60)), Some(End::NotIssued));
        let bare = Observed {
            secret: SecretSeen::NotWanted,
            ..seen
        };
        assert_eq!(end(&bare, &claim, now(60)), Some(End::NotIssued));
    }

    #[test]
    fn a_secret_of_a_later_lease_and_a_released_one_are_never_deleted() {
        let claim = claim();
        for secret in [
            SecretSeen::Newer,
            SecretSeen::Older,
            SecretSeen::Released,
            SecretSeen::Foreign,
            SecretSeen::Absent,
        ] {
            let seen = Observed {
                finalizer: true,
                claim: Some(&claim),
                secret,
                reported: true,
                ..Observed::default()
            };
            assert_eq!(next(&seen, now(100)), Step::Revoke, "{secret:?}");
        }
    }

    #[test]
    fn a_lease_that_somebody_asked_for_is_taken_on_and_let_go() {
        let mut seen = Observed::default();
        assert_eq!(next(&seen, now(1)), Step::TakeOn);
        seen.deleting = true;
        assert_eq!(next(&seen, now(1)), Step::Nothing);
        seen.finalizer = true;
        assert_eq!(next(&seen, now(1)), Step::Release);
    }

    #[test]
    fn a_finalizer_that_was_taken_off_is_put_back() {
        let claim = claim();
        let seen = Observed {
            claim: Some(&claim),
            reported: true,
            ..Observed::default()
        };
        assert_eq!(next(&seen, now(1)), Step::TakeOn);
        assert_eq!(next(&Observed { deleting: true, ..seen }, now(1)), Step::Nothing);
    }
}
