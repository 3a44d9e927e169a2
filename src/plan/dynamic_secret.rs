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

/// A lease that a newer one replaced.
fn overtaken<'a>(seen: &Observed<'a>) -> Option<&'a LeaseSeen> {
    let newest = newest_delivered(seen);
    seen.leases
        .iter()
        .find(|l| l.serial > 0 && l.serial < newest && !l.ending)
}

/// When the next credential is due: `renewBefore` ahead of the end, and up to a tenth of that earlier by the UID, so that
/// what was made together is not renewed together. None in other modes than Rotate.
pub fn renew_at(seen: &Observed<'_>, lease: &LeaseSeen) -> Option<Timestamp> {
    if seen.mode != Mode::Rotate {
        return None;
    }
    let ahead = seen.renew_before + backoff::share(seen.renew_before / 10, seen.uid);
    let half = SignedDuration::from_secs(lease.ttl_seconds) / 2;
    // Never before half of the life, whatever the spec says now: a longer renewBefore must not renew without end.
    lease.expires_at?.saturating_sub(ahead.min(half)).ok()
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

fn overlap_ends(seen: &Observed<'_>, current: &LeaseSeen) -> Option<Timestamp> {
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
    [renew_at(seen, current), overlap, current.expires_at]
        .into_iter()
        .flatten()
        .filter(|at| *at > now)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn lease(serial: i64, issued: i64) -> LeaseSeen {
        LeaseSeen {
            name: format!("l-{serial}"),
            serial,
            issued_at: Some(at(issued)),
            expires_at: Some(at(issued + 1000)),
            ending: false,
            fingerprint: "f".into(),
            ttl_seconds: 1000,
            group: "g".into(),
        }
    }

    fn seen(mode: Mode, leases: &[LeaseSeen]) -> Observed<'_> {
        Observed {
            uid: "u",
            deleting: false,
            namespace_going: false,
            deletion_policy: DeletionPolicy::Revoke,
            finalizer: true,
            suspended: false,
            mode,
            ttl: SignedDuration::from_secs(1000),
            renew_before: SignedDuration::from_secs(300),
            overlap: SignedDuration::from_secs(60),
            fingerprint: Some("f"),
            rotate_at: None,
            answered: None,
            last_serial: leases.iter().map(|l| l.serial).max().unwrap_or(0),
            delivered_serial: leases.iter().map(|l| l.serial).max().unwrap_or(0),
            leases,
            target: TargetSeen::Intact,
            failures: 0,
            last_failure: None,
            groups: &[],
        }
    }

    fn waits(step: &Step) -> Option<Waiting> {
        match step {
            Step::Wait { waiting, .. } => Some(*waiting),
            _ => None,
        }
    }

    #[test]
    fn once_issues_one_and_never_again_by_itself() {
        let fresh = seen(Mode::Once, &[]);
        assert_eq!(
            next(&fresh, at(0)),
            Step::Make {
                serial: 1,
                need: Need::First
            }
        );
        let live = [lease(1, 0)];
        assert_eq!(waits(&next(&seen(Mode::Once, &live), at(999))), Some(Waiting::Valid));
        let ended = Observed {
            delivered_serial: 1,
            last_serial: 1,
            ..seen(Mode::Once, &[])
        };
        assert_eq!(waits(&next(&ended, at(5000))), Some(Waiting::Ended));
        let changed = Observed {
            fingerprint: Some("other"),
            ..ended.clone()
        };
        assert_eq!(
            waits(&next(&changed, at(5000))),
            Some(Waiting::Ended),
            "after its end a changed spec issues nothing"
        );
        let asked = Observed {
            rotate_at: Some("x"),
            ..ended
        };
        assert_eq!(
            next(&asked, at(5000)),
            Step::Make {
                serial: 2,
                need: Need::Asked
            }
        );
    }

    #[test]
    fn an_undelivered_lease_does_not_count_but_its_serial_does() {
        let failed = Observed {
            last_serial: 3,
            ..seen(Mode::Once, &[])
        };
        assert_eq!(
            next(&failed, at(0)),
            Step::Make {
                serial: 4,
                need: Need::First
            }
        );
    }

    #[test]
    fn rotate_renews_ahead_and_ends_the_old_one_after_the_overlap() {
        let live = [lease(1, 0)];
        let view = seen(Mode::Rotate, &live);
        let due = renew_at(&view, &live[0]).unwrap();
        assert!(due <= at(700) && due >= at(670), "{due}");
        assert_eq!(
            next(&view, at(700)),
            Step::Make {
                serial: 2,
                need: Need::Renewal
            }
        );
        let both = [lease(1, 0), lease(2, 700)];
        let view = seen(Mode::Rotate, &both);
        assert_eq!(
            next(&view, at(710)),
            Step::Wait {
                until: Some(at(760)),
                waiting: Waiting::Valid
            }
        );
        assert_eq!(
            next(&view, at(760)),
            Step::End {
                lease: "l-1".into(),
                why: Early::Rotated
            }
        );
    }

    #[test]
    fn when_the_newest_ends_no_older_one_takes_its_place() {
        let both = [
            LeaseSeen {
                fingerprint: "other".into(),
                ..lease(1, 0)
            },
            LeaseSeen {
                ending: true,
                ..lease(2, 10)
            },
        ];
        let once = seen(Mode::Once, &both);
        assert_eq!(current(&once), None);
        assert_eq!(
            next(&once, at(11)),
            Step::End {
                lease: "l-1".into(),
                why: Early::Rotated
            },
            "and nothing new is made for what the older one is not for"
        );
        let rotate = seen(Mode::Rotate, &both);
        assert_eq!(
            next(&rotate, at(11)),
            Step::Make {
                serial: 3,
                need: Need::First
            }
        );
        let released = Observed {
            leases: &both[..1],
            delivered_serial: 2,
            ..once
        };
        assert_eq!(current(&released), None);
    }

    #[test]
    fn renewal_never_comes_before_half_of_the_life() {
        let live = [lease(1, 0)];
        let view = Observed {
            renew_before: SignedDuration::from_secs(5000),
            ..seen(Mode::Rotate, &live)
        };
        assert_eq!(renew_at(&view, &live[0]), Some(at(500)));
    }

    #[test]
    fn only_what_the_credential_is_for_and_a_shorter_ttl_ask_for_a_new_one() {
        let live = [lease(1, 0)];
        let base = seen(Mode::Once, &live);
        let longer = Observed {
            ttl: SignedDuration::from_secs(2000),
            overlap: SignedDuration::ZERO,
            ..base.clone()
        };
        assert_eq!(waits(&next(&longer, at(10))), Some(Waiting::Valid));
        for changed in [
            Observed {
                fingerprint: Some("other"),
                ..base.clone()
            },
            Observed {
                ttl: SignedDuration::from_secs(999),
                ..base.clone()
            },
        ] {
            assert_eq!(
                next(&changed, at(10)),
                Step::Make {
                    serial: 2,
                    need: Need::Changed
                }
            );
        }
        let unclear = Observed {
            fingerprint: None,
            ..base
        };
        assert_eq!(
            waits(&next(&unclear, at(10))),
            Some(Waiting::Valid),
            "what cannot be told changes nothing"
        );
    }

    #[test]
    fn a_lost_secret_is_repaired_by_rotate_and_ends_once() {
        let live = [lease(1, 0)];
        for (target, why) in [
            (TargetSeen::Absent, Early::TargetDeleted),
            (TargetSeen::Edited, Early::TargetEdited),
        ] {
            let once = Observed {
                target,
                ..seen(Mode::Once, &live)
            };
            assert_eq!(
                next(&once, at(10)),
                Step::End {
                    lease: "l-1".into(),
                    why
                }
            );
            let rotate = Observed {
                target,
                ..seen(Mode::Rotate, &live)
            };
            assert_eq!(
                next(&rotate, at(10)),
                Step::Make {
                    serial: 2,
                    need: Need::Repair
                }
            );
        }
        for mode in [Mode::Once, Mode::Rotate] {
            let released = Observed {
                target: TargetSeen::Released,
                ..seen(mode, &live)
            };
            assert_eq!(
                next(&released, at(10)),
                Step::End {
                    lease: "l-1".into(),
                    why: Early::TargetReleased
                }
            );
        }
    }

    #[test]
    fn suspend_stops_issuing_but_not_taking_back() {
        let both = [lease(1, 0), lease(2, 700)];
        let suspended = Observed {
            suspended: true,
            ..seen(Mode::Rotate, &both)
        };
        assert_eq!(
            next(&suspended, at(800)),
            Step::End {
                lease: "l-1".into(),
                why: Early::Rotated
            }
        );
        let due = [lease(2, 700)];
        let suspended = Observed {
            suspended: true,
            ..seen(Mode::Rotate, &due)
        };
        assert_eq!(waits(&next(&suspended, at(1690))), Some(Waiting::Suspended));
    }

    #[test]
    fn one_lease_is_on_its_way_at_a_time_and_failures_wait() {
        let pending = [LeaseSeen {
            issued_at: None,
            ..lease(1, 0)
        }];
        let view = Observed {
            delivered_serial: 0,
            ..seen(Mode::Once, &pending)
        };
        assert_eq!(waits(&next(&view, at(1))), Some(Waiting::Issuing));
        let failed = Observed {
            failures: 5,
            last_failure: Some(at(0)),
            ..seen(Mode::Once, &[])
        };
        assert_eq!(waits(&next(&failed, at(1))), Some(Waiting::Backoff));
        assert_eq!(
            next(&failed, at(21)),
            Step::Make {
                serial: 1,
                need: Need::First
            }
        );
    }

    #[test]
    fn deletion_ends_leases_then_drops_groups_then_lets_go() {
        let groups = [GroupSeen {
            name: "g".into(),
            current: true,
            leaving: false,
        }];
        let live = [lease(1, 0)];
        let going = Observed {
            deleting: true,
            groups: &groups,
            ..seen(Mode::Rotate, &live)
        };
        assert_eq!(
            next(&going, at(1)),
            Step::End {
                lease: "l-1".into(),
                why: Early::OwnerDeleted
            }
        );
        let patient = Observed {
            deletion_policy: DeletionPolicy::LetExpire,
            ..going.clone()
        };
        assert_eq!(
            next(&patient, at(1)),
            Step::Wait {
                until: Some(at(1000)),
                waiting: Waiting::LettingExpire
            },
            "nothing is looked at before the clock or a change asks for it"
        );
        let namespace = Observed {
            namespace_going: true,
            ..patient
        };
        assert!(matches!(next(&namespace, at(1)), Step::End { .. }));
        let ending = [LeaseSeen {
            ending: true,
            ..lease(1, 0)
        }];
        assert_eq!(
            waits(&next(
                &Observed {
                    leases: &ending,
                    ..going.clone()
                },
                at(1)
            )),
            Some(Waiting::Revoking)
        );
        let empty = Observed { leases: &[], ..going };
        assert_eq!(next(&empty, at(1)), Step::DropGroup { group: "g".into() });
        assert_eq!(next(&Observed { groups: &[], ..empty }, at(1)), Step::Release);
    }

    #[test]
    fn a_group_goes_when_neither_spec_nor_lease_needs_it() {
        let groups = [
            GroupSeen {
                name: "old".into(),
                current: false,
                leaving: false,
            },
            GroupSeen {
                name: "g".into(),
                current: true,
                leaving: false,
            },
        ];
        let live = [
            LeaseSeen {
                group: "old".into(),
                ..lease(1, 0)
            },
            lease(2, 10),
        ];
        let view = Observed {
            groups: &groups,
            ..seen(Mode::Rotate, &live)
        };
        assert_eq!(
            waits(&next(&view, at(20))),
            Some(Waiting::Valid),
            "a live lease still needs it"
        );
        let view = Observed {
            leases: &live[1..],
            ..view
        };
        assert_eq!(next(&view, at(20)), Step::DropGroup { group: "old".into() });
        assert_eq!(
            waits(&next(
                &Observed {
                    fingerprint: None,
                    ..view
                },
                at(20)
            )),
            Some(Waiting::Valid)
        );
    }

    #[test]
    fn the_groups_of_a_pool_that_leaves_go_first_whatever_else_is_due() {
        let groups = [GroupSeen {
            name: "g".into(),
            current: true,
            leaving: true,
        }];
        let live = [lease(1, 0)];
        let view = Observed {
            groups: &groups,
            ..seen(Mode::Rotate, &live)
        };
        assert_eq!(
            waits(&next(&view, at(20))),
            Some(Waiting::Valid),
            "a live lease needs it"
        );
        let ended = Observed { leases: &[], ..view };
        assert_eq!(next(&ended, at(20)), Step::DropGroup { group: "g".into() });
    }

    #[test]
    fn on_demand_issues_nothing_by_itself() {
        assert_eq!(waits(&next(&seen(Mode::OnDemand, &[]), at(0))), Some(Waiting::Asking));
    }
}
