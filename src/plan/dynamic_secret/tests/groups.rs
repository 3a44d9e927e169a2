//! When group roles go.

use super::*;

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
