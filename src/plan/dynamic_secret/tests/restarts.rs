//! Replaced accounts that restarted workloads may still use.

use super::*;

#[test]
fn what_restarted_workloads_may_still_use_lives_on_beyond_the_overlap() {
    let mut both = [lease(1, 0), lease(2, 700)];
    both[0].in_use = true;
    let view = Observed {
        restarts_due: Some(at(765)),
        ..seen(Mode::Rotate, &both)
    };
    assert_eq!(
        next(&view, at(760)),
        Step::Wait {
            until: Some(at(765)),
            waiting: Waiting::Valid
        }
    );
    // Its own end comes as always: by then it is `ending`, and nothing is left to hold.
    both[0].in_use = false;
    let moved = seen(Mode::Rotate, &both);
    assert!(
        matches!(next(&moved, at(759)), Step::Wait { .. }),
        "the overlap is the least"
    );
    let end = |name: &str| Step::End {
        lease: name.into(),
        why: Early::Rotated,
    };
    assert_eq!(next(&moved, at(760)), end("l-1"));
    // One that nobody needs does not wait for another one that somebody does.
    let mut three = [lease(1, 0), lease(2, 400), lease(3, 700)];
    three[0].in_use = true;
    assert_eq!(next(&seen(Mode::Rotate, &three), at(760)), end("l-2"));
}
