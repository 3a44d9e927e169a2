//! The next step of one dynamic secret: when to make a lease, when to end one early, when to drop a group.

use super::backoff;
use crate::api::dynamic_secret::{DeletionPolicy, Mode};
use jiff::{SignedDuration, Timestamp};

/// What is seen of a dynamic secret.
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent observations, each true or not"
)]
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// UID; spreads renewals.
    pub uid: &'a str,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// Its namespace is being deleted: nothing may wait for a ttl.
    pub namespace_going: bool,
    /// What to do with live leases then.
    pub deletion_policy: DeletionPolicy,
    /// Our finalizer is on it.
    pub finalizer: bool,
    /// Issuing is suspended.
    pub suspended: bool,
    /// When credentials are issued.
    pub mode: Mode,
    /// How long an account lives.
    pub ttl: SignedDuration,
    /// How long before the end the next one is issued.
    pub renew_before: SignedDuration,
    /// How long a replaced one lives on.
    pub overlap: SignedDuration,
    /// Fingerprint of what a credential would be issued for now; None where that cannot be told yet.
    pub fingerprint: Option<&'a str>,
    /// Value of the rotate-at annotation.
    pub rotate_at: Option<&'a str>,
    /// The value that was answered last.
    pub answered: Option<&'a str>,
    /// Highest serial that was ever delivered or ended.
    pub last_serial: i64,
    /// Highest serial that was delivered.
    pub delivered_serial: i64,
    /// Leases that are not released, of any origin.
    pub leases: &'a [LeaseSeen],
    /// The Secret, as the newest delivered lease should find it.
    pub target: TargetSeen,
    /// Attempts that failed since the last success.
    pub failures: i64,
    /// When the last one failed.
    pub last_failure: Option<Timestamp>,
    /// Groups on the books, in their order.
    pub groups: &'a [GroupSeen],
    /// When workloads that are restarted are looked at again.
    pub restarts_due: Option<Timestamp>,
}

/// A lease, as its dynamic secret sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSeen {
    /// Name.
    pub name: String,
    /// Serial; 0 for leases that somebody asked for.
    pub serial: i64,
    /// It was reported as issued.
    pub issued_at: Option<Timestamp>,
    /// End, once claimed.
    pub expires_at: Option<Timestamp>,
    /// It is being taken back: marked as deleted, or reported and over. One that is over but was never reported is not
    /// ending before it is marked: until then it may turn out to have been delivered.
    pub ending: bool,
    /// What it was issued for.
    pub fingerprint: String,
    /// Its ttl in seconds.
    pub ttl_seconds: i64,
    /// Its group role.
    pub group: String,
    /// Workloads that are restarted at a rotation may still use it: no newer one ends it then.
    pub in_use: bool,
}

/// The target Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSeen {
    /// It names the newest delivered lease, unedited.
    Intact,
    /// It is gone.
    Absent,
    /// Its data was changed by hand.
    Edited,
    /// Our label was taken off.
    Released,
}

/// A group role on the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSeen {
    /// Role name.
    pub name: String,
    /// A credential issued now would use it.
    pub current: bool,
    /// Its pool is being deleted: later there will be no engine to drop it.
    pub leaving: bool,
}

/// Why a credential is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// There was none yet, or the last one ended (Rotate).
    First,
    /// The current one ends soon (Rotate).
    Renewal,
    /// The spec asks for something else than the current one is for.
    Changed,
    /// The annotation asks for it.
    Asked,
    /// The Secret was deleted or edited (Rotate).
    Repair,
}

/// Why a lease is ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Early {
    /// A newer one is delivered and the overlap is over.
    Rotated,
    /// The dynamic secret is being deleted.
    OwnerDeleted,
    /// The Secret was deleted by hand.
    TargetDeleted,
    /// The Secret was edited by hand.
    TargetEdited,
    /// Our label was taken off the Secret.
    TargetReleased,
    /// Its account is gone from the database.
    AccountMissing,
    /// Its account was changed by hand.
    AccountAltered,
    /// What it was bound to has ended.
    OwnerEnded,
    /// Somebody deleted the lease; never decided here, only told.
    LeaseDeleted,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Put the finalizer on, before the first lease.
    AddFinalizer,
    /// Make a lease; the serial is the least that it may have.
    Make {
        /// At least this.
        serial: i64,
        /// Why.
        need: Need,
    },
    /// Delete a lease object, which takes the account back.
    End {
        /// Name.
        lease: String,
        /// Why.
        why: Early,
    },
    /// Drop a group that nothing needs.
    DropGroup {
        /// Role name.
        group: String,
    },
    /// Take the finalizer off.
    Release,
    /// Nothing until then, or until something changes.
    Wait {
        /// None: only a change matters.
        until: Option<Timestamp>,
        /// What is waited for.
        waiting: Waiting,
    },
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The credential is valid.
    Valid,
    /// Mode Once, and its credential has ended.
    Ended,
    /// Somebody may ask (OnDemand).
    Asking,
    /// A lease is on its way.
    Issuing,
    /// Leases are being taken back.
    Revoking,
    /// It is deleted, and its leases live on to their end.
    LettingExpire,
    /// The next attempt is due later.
    Backoff,
    /// What to issue cannot be told yet.
    Unclear,
    /// Issuing is suspended.
    Suspended,
}

/// The next step.
pub fn next(seen: &Observed<'_>, now: Timestamp) -> Step {
    if seen.deleting {
        return leave(seen);
    }
    if !seen.finalizer {
        return Step::AddFinalizer;
    }
    if let Some(step) = end_early(seen, now).or_else(|| drop_leaving_group(seen)) {
        return step;
    }
    match need(seen, now) {
        Some(need) => make(seen, need, now),
        None => drop_unneeded_group(seen).unwrap_or_else(|| rest(seen, now)),
    }
}

/// The newest lease of the operator's own making that was delivered, unless it is ending. When it ends, no older one takes
/// its place: that one was replaced for a reason.
pub fn current<'a>(seen: &Observed<'a>) -> Option<&'a LeaseSeen> {
    let newest = newest_delivered(seen);
    seen.leases
        .iter()
        .find(|l| l.serial > 0 && l.serial == newest && l.issued_at.is_some() && !l.ending)
}

fn newest_delivered(seen: &Observed<'_>) -> i64 {
    let issued = seen.leases.iter().filter(|l| l.issued_at.is_some());
    issued.map(|l| l.serial).max().unwrap_or(0).max(seen.delivered_serial)
}

/// A lease that a newer one replaced, and that nobody is known to need.
fn overtaken<'a>(seen: &Observed<'a>) -> Option<&'a LeaseSeen> {
    replaced(seen).find(|l| !l.in_use)
}

/// Live leases that a newer one replaced.
pub fn replaced<'a>(seen: &Observed<'a>) -> impl Iterator<Item = &'a LeaseSeen> + use<'a> {
    let newest = newest_delivered(seen);
    seen.leases
        .iter()
        .filter(move |l| l.serial > 0 && l.serial < newest && !l.ending)
}

/// When the next credential is due: `renewBefore` ahead of the end, and up to a tenth of that earlier by the UID, so that
/// what was made together is not renewed together. A whole second, as everything that is written into a status: the spread has
/// fractions, and what is read back would differ from what is decided at each look. None in other modes than Rotate.
pub fn renew_at(seen: &Observed<'_>, lease: &LeaseSeen) -> Option<Timestamp> {
    if seen.mode != Mode::Rotate {
        return None;
    }
    let ahead = seen.renew_before + backoff::share(seen.renew_before / 10, seen.uid);
    let half = SignedDuration::from_secs(lease.ttl_seconds) / 2;
    // Never before half of the life, whatever the spec says now: a longer renewBefore must not renew without end.
    let due = lease.expires_at?.saturating_sub(ahead.min(half)).ok()?;
    Timestamp::from_second(due.as_second()).ok()
}

fn leave(seen: &Observed<'_>) -> Step {
    if !seen.finalizer {
        return Step::Wait {
            until: None,
            waiting: Waiting::Revoking,
        };
    }
    let at_once = seen.namespace_going || seen.deletion_policy == DeletionPolicy::Revoke;
    if let Some(open) = seen.leases.iter().find(|lease| at_once && !lease.ending) {
        return Step::End {
            lease: open.name.clone(),
            why: Early::OwnerDeleted,
        };
    }
    if !seen.leases.is_empty() {
        let live = || seen.leases.iter().filter(|lease| !lease.ending);
        return Step::Wait {
            until: live().filter_map(|lease| lease.expires_at).min(),
            waiting: if live().next().is_some() {
                Waiting::LettingExpire
            } else {
                Waiting::Revoking
            },
        };
    }
    match seen.groups.first() {
        Some(group) => Step::DropGroup {
            group: group.name.clone(),
        },
        None => Step::Release,
    }
}

fn end_early(seen: &Observed<'_>, now: Timestamp) -> Option<Step> {
    let end = |lease: &LeaseSeen, why| {
        Some(Step::End {
            lease: lease.name.clone(),
            why,
        })
    };
    let Some(current) = current(seen) else {
        // Rotate makes the next one first. In mode Once nothing follows, so there is nothing to wait for.
        let replaced = overtaken(seen).filter(|_| seen.mode == Mode::Once);
        return replaced.and_then(|lease| end(lease, Early::Rotated));
    };
    match (seen.target, seen.mode) {
        (TargetSeen::Released, _) => return end(current, Early::TargetReleased),
        (TargetSeen::Absent, Mode::Once) => return end(current, Early::TargetDeleted),
        (TargetSeen::Edited, Mode::Once) => return end(current, Early::TargetEdited),
        _ => {}
    }
    let over = overlap_ends(seen, current).is_some_and(|at| now >= at);
    let replaced = overtaken(seen).filter(|_| over);
    replaced.and_then(|lease| end(lease, Early::Rotated))
}

/// When what was replaced may end, if nobody needs it longer.
pub fn overlap_ends(seen: &Observed<'_>, current: &LeaseSeen) -> Option<Timestamp> {
    current.issued_at?.saturating_add(seen.overlap).ok()
}

fn need(seen: &Observed<'_>, now: Timestamp) -> Option<Need> {
    if seen.mode == Mode::OnDemand {
        return None;
    }
    if seen.rotate_at.is_some() && seen.rotate_at != seen.answered {
        return Some(Need::Asked);
    }
    let Some(current) = current(seen) else {
        let never = seen.delivered_serial == 0;
        return (never || (seen.mode == Mode::Rotate && seen.target != TargetSeen::Released)).then_some(Need::First);
    };
    if seen.fingerprint.is_some_and(|wanted| wanted != current.fingerprint) || seen.ttl.as_secs() < current.ttl_seconds
    {
        return Some(Need::Changed);
    }
    if seen.mode == Mode::Rotate {
        if matches!(seen.target, TargetSeen::Absent | TargetSeen::Edited) {
            return Some(Need::Repair);
        }
        return renew_at(seen, current).filter(|at| now >= *at).map(|_| Need::Renewal);
    }
    None
}

fn make(seen: &Observed<'_>, need: Need, now: Timestamp) -> Step {
    if seen.suspended {
        return Step::Wait {
            until: wake(seen, now),
            waiting: Waiting::Suspended,
        };
    }
    // One at a time: the next is made when the last is delivered or on its way back.
    if seen
        .leases
        .iter()
        .any(|l| l.serial > 0 && l.issued_at.is_none() && !l.ending)
    {
        return Step::Wait {
            until: wake(seen, now),
            waiting: Waiting::Issuing,
        };
    }
    if seen.fingerprint.is_none() {
        return Step::Wait {
            until: None,
            waiting: Waiting::Unclear,
        };
    }
    if let Some(last) = seen.last_failure {
        let due = backoff::next_attempt(seen.failures, last, seen.uid);
        if now < due {
            return Step::Wait {
                until: Some(due),
                waiting: Waiting::Backoff,
            };
        }
    }
    let highest = seen.leases.iter().map(|l| l.serial).max().unwrap_or(0);
    Step::Make {
        serial: highest.max(seen.last_serial) + 1,
        need,
    }
}

fn drop_unneeded_group(seen: &Observed<'_>) -> Option<Step> {
    // Without knowing the current one, any group may be it.
    seen.fingerprint?;
    drop_idle_group(seen, |group| !group.current)
}

fn drop_leaving_group(seen: &Observed<'_>) -> Option<Step> {
    drop_idle_group(seen, |group| group.leaving)
}

fn drop_idle_group(seen: &Observed<'_>, which: impl Fn(&GroupSeen) -> bool) -> Option<Step> {
    let used = |group: &GroupSeen| seen.leases.iter().any(|l| l.group == group.name);
    let idle = seen.groups.iter().find(|group| which(group) && !used(group))?;
    Some(Step::DropGroup {
        group: idle.name.clone(),
    })
}

fn rest(seen: &Observed<'_>, now: Timestamp) -> Step {
    let until = wake(seen, now);
    let waiting = if seen.mode == Mode::OnDemand {
        Waiting::Asking
    } else if current(seen).is_some() {
        Waiting::Valid
    } else if seen.leases.iter().any(|l| l.serial > 0) {
        Waiting::Revoking
    } else {
        Waiting::Ended
    };
    Step::Wait { until, waiting }
}

/// The next time at which something is due by the clock alone.
fn wake(seen: &Observed<'_>, now: Timestamp) -> Option<Timestamp> {
    let current = current(seen)?;
    let overlap = overtaken(seen).and_then(|_| overlap_ends(seen, current));
    [renew_at(seen, current), overlap, current.expires_at, seen.restarts_due]
        .into_iter()
        .flatten()
        .filter(|at| *at > now)
        .min()
}

#[cfg(test)]
mod tests;
