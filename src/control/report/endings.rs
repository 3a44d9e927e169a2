//! The end of a lease, in the history of its dynamic secret. Whether a lease ends is decided elsewhere.

use crate::api::conditions::{self, Reason};
use crate::api::dynamic_secret::{LeaseRecord, Mode};
use crate::api::lease::Claim;
use crate::api::names::ROTATE_AT;
use crate::api::{CredentialLease, DynamicSecret};
use crate::cluster::status;
use crate::control::context::Context;
use crate::control::hold::Error;
use crate::plan::dynamic_secret::Early;
use crate::plan::lease::End;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

/// Leases that the history keeps.
const HISTORY: usize = 5;

/// Whether the dynamic secret's status has this lease's end. Without the dynamic secret there is nobody to tell.
pub async fn end_is_recorded(ctx: &Context, lease: &CredentialLease) -> Result<bool, Error> {
    let Some(owner) = ctx.owner(lease).await? else {
        return Ok(true);
    };
    let name = lease.name_any();
    let recorded = owner
        .status
        .iter()
        .flat_map(|status| &status.history)
        .any(|record| record.lease == name);
    Ok(recorded || ctx.recorded(&lease.uid().unwrap_or_default()))
}

/// The end of a lease that was let go of, in the history.
pub const ABANDONED: &str = "Abandoned";

/// The end of one lease, to be written into its dynamic secret.
#[derive(Debug, Clone)]
pub struct Ending {
    record: LeaseRecord,
    /// The request that the lease answered.
    asked: Option<String>,
    early: Option<Early>,
    abandoned: bool,
}

impl Ending {
    /// Enters it, unless it is there. Returns whether it was not.
    fn enter(&self, owner: &mut DynamicSecret, now: jiff::Timestamp) -> bool {
        let (mode, generation) = (owner.spec.mode(), owner.metadata.generation);
        let going = owner.metadata.deletion_timestamp.is_some();
        let status = owner.status.get_or_insert_default();
        let (record, serial) = (&self.record, self.record.serial);
        if status.history.iter().any(|old| old.lease == record.lease) {
            return false;
        }
        status.history.insert(0, record.clone());
        status.history.truncate(HISTORY);
        status.last_serial = Some(status.last_serial.unwrap_or(0).max(serial));
        if record.issued_at.is_some() && serial > 0 {
            let newest = serial >= status.delivered_serial.unwrap_or(0);
            if newest && self.asked.is_some() {
                status.answered_rotate_at.clone_from(&self.asked);
            }
            status.delivered_serial = Some(status.delivered_serial.unwrap_or(0).max(serial));
            // What is being deleted says so until it is gone.
            if newest && mode == Mode::Once && !going {
                let (reason, message) = if self.abandoned {
                    let_go()
                } else {
                    once_over(self.early)
                };
                conditions::set_ready(&mut status.conditions, reason, message, generation, now);
            }
        }
        true
    }
}

/// Writes a lease's end into its dynamic secret, before the lease goes; with whether it was let go of. Ends of one dynamic
/// secret that come together are one write.
pub async fn ended(
    ctx: &Context,
    lease: &CredentialLease,
    claim: &Claim,
    role: &str,
    (why, abandoned): (Option<End>, bool),
) -> Result<(), Error> {
    let uid = lease.uid().unwrap_or_default();
    let Some(owner) = ctx.owner(lease).await? else {
        return Ok(());
    };
    let now = ctx.now();
    let (why, early) = name_end(ctx, &owner, lease, claim, why);
    let ending = Ending {
        record: LeaseRecord {
            lease: lease.name_any(),
            serial: claim.serial,
            username: Some(role.to_owned()),
            issued_at: lease.status.as_ref().and_then(|s| s.issued_at.clone()),
            ended_at: Time(now),
            why: if abandoned { ABANDONED } else { why }.to_owned(),
        },
        asked: lease.annotations().get(ROTATE_AT).cloned(),
        early,
        abandoned,
    };
    let owner_uid = owner.uid().unwrap_or_default();
    let write = async |endings: Vec<Ending>| write_ends(ctx, &owner, &endings).await;
    ctx.histories.write(&owner_uid, ending, write).await?;
    ctx.note_recorded(&uid);
    Ok(())
}

async fn write_ends(ctx: &Context, owner: &DynamicSecret, endings: &[Ending]) -> Result<(), Error> {
    let now = ctx.now();
    let written = status::amend(&ctx.client, owner, |owner| {
        // All of them, whether or not one before was there already.
        let entered = endings.iter().filter(|ending| ending.enter(owner, now));
        entered.count() > 0
    })
    .await;
    match written {
        // The cache still has it, but its definition is gone: nobody is left to be told.
        Err(error) if error.is_not_served() => Ok(()),
        other => {
            other?;
            Ok(())
        }
    }
}

/// What a dynamic secret in mode Once says after its lease was let go of.
pub fn let_go() -> (Reason, &'static str) {
    (
        Reason::Abandoned,
        "the credential ended, and nobody knows whether its account is gone: it was let go of by an annotation on the pool",
    )
}

/// What a dynamic secret in mode Once says after its credential ended.
pub fn once_over(early: Option<Early>) -> (Reason, &'static str) {
    match early {
        None => (
            Reason::Expired,
            "the credential has ended as agreed; for another one set the annotation dsv.dev/rotate-at",
        ),
        Some(Early::LeaseDeleted) => (
            Reason::LeaseDeleted,
            "the lease was deleted, so the account was revoked; for another one set the annotation dsv.dev/rotate-at",
        ),
        Some(Early::TargetDeleted) => (
            Reason::TargetDeleted,
            "the Secret was deleted, so the account was revoked; for another one set the annotation dsv.dev/rotate-at",
        ),
        Some(Early::TargetEdited) => (
            Reason::TargetEdited,
            "the Secret's data was edited, so the account was revoked; for another one set the annotation dsv.dev/rotate-at",
        ),
        Some(Early::TargetReleased) => (
            Reason::TargetReleased,
            "our label was taken off the Secret, so the account was revoked and the Secret left alone",
        ),
        Some(Early::AccountMissing) => (
            Reason::AccountMissing,
            "the account was gone from the database, so its lease was ended; for another one set the annotation dsv.dev/rotate-at",
        ),
        Some(Early::AccountAltered) => (
            Reason::AccountAltered,
            "the account was changed by hand, so it was revoked; for another one set the annotation dsv.dev/rotate-at",
        ),
        // Leases that are bound were asked for, so there is no mode Once to tell of it.
        Some(Early::Rotated | Early::OwnerDeleted | Early::OwnerEnded) => {
            (Reason::Revoking, "the credential was taken back")
        }
    }
}

fn name_end(
    ctx: &Context,
    owner: &DynamicSecret,
    lease: &CredentialLease,
    claim: &Claim,
    why: Option<End>,
) -> (&'static str, Option<Early>) {
    let uid = lease.uid().unwrap_or_default();
    let delivered = lease.status.as_ref().is_some_and(|s| s.issued_at.is_some());
    // One that was ended early may be proven gone only after its time: then it still did not end by itself.
    let early = lease
        .metadata
        .deletion_timestamp
        .as_ref()
        .is_some_and(|at| at.0 < claim.expires_at.0);
    if why == Some(End::Expired) && delivered && !early {
        return ("Expired", None);
    }
    if !delivered {
        return ("NotDelivered", None);
    }
    let early = ctx.endings.of(&uid).or_else(|| {
        // Another leader ended it: what it knew is gone, but a newer delivered serial tells.
        let newer = owner.status.as_ref().and_then(|s| s.delivered_serial).unwrap_or(0) > claim.serial;
        (newer && claim.serial > 0).then_some(Early::Rotated)
    });
    // Said before the lease was deleted, by whichever leader.
    let status = lease.status.iter().flat_map(|status| &status.conditions);
    let owner_ended = status.into_iter().any(|c| c.reason == Reason::OwnerEnded.as_str());
    let early = early.or_else(|| owner_ended.then_some(Early::OwnerEnded));
    let early = early.unwrap_or(Early::LeaseDeleted);
    let name = match early {
        Early::LeaseDeleted => "Deleted",
        Early::Rotated => "Rotated",
        Early::OwnerDeleted => "OwnerDeleted",
        Early::TargetDeleted => "TargetDeleted",
        Early::TargetEdited => "TargetEdited",
        Early::TargetReleased => "TargetReleased",
        Early::AccountMissing => "AccountMissing",
        Early::AccountAltered => "AccountAltered",
        Early::OwnerEnded => "OwnerEnded",
    };
    (name, Some(early))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ending(serial: i64, at: i64) -> Ending {
        let second = |at: i64| Time(jiff::Timestamp::from_second(at).unwrap());
        Ending {
            record: LeaseRecord {
                lease: format!("app-x-{serial}"),
                serial,
                username: None,
                issued_at: Some(second(at)),
                ended_at: second(at + 10),
                why: "Expired".to_owned(),
            },
            asked: Some(format!("request {serial}")),
            early: None,
            abandoned: false,
        }
    }

    #[test]
    fn ends_that_are_written_together_say_what_each_alone_would() {
        let owner = json!({
            "apiVersion": "dsv.dev/v1alpha1",
            "kind": "DynamicSecret",
            "metadata": {"name": "app", "namespace": "shop"},
            "spec": {
                "pool": {"name": "orders"},
                "linkConfig": {"linkType": "dynamic", "linkedSecret": "orders-db"},
                "grantPermissions": {"what": "SELECT", "where": "public.orders"},
                "ttl": 60,
            },
        });
        let mut owner: DynamicSecret = serde_json::from_value(owner).unwrap();
        let now = jiff::Timestamp::from_second(1000).unwrap();
        // The order in which they come is not that of their serials.
        let endings: Vec<Ending> = [2, 1, 3, 4, 5, 6, 7].map(|serial| ending(serial, 100 * serial)).into();
        assert!(endings.iter().all(|ending| ending.enter(&mut owner, now)));
        let status = owner.status.clone().unwrap();
        let kept: Vec<i64> = status.history.iter().map(|record| record.serial).collect();
        assert_eq!(kept, [7, 6, 5, 4, 3]);
        assert_eq!((status.last_serial, status.delivered_serial), (Some(7), Some(7)));
        assert_eq!(status.answered_rotate_at.as_deref(), Some("request 7"));
        assert!(endings.iter().skip(3).all(|ending| !ending.enter(&mut owner, now)));
        assert_eq!(owner.status.unwrap(), status, "what is there already changes nothing");
    }
}
