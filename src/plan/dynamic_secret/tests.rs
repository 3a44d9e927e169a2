//! Tables of what is decided for a dynamic secret.

mod groups;
mod restarts;
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
        in_use: false,
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
        restarts_due: None,
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
fn on_demand_issues_nothing_by_itself() {
    assert_eq!(waits(&next(&seen(Mode::OnDemand, &[]), at(0))), Some(Waiting::Asking));
}
