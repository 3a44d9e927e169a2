//! Sequences that once broke a promise, shrunk by the model. Each names what it holds now.

use super::cluster::Spec;
use super::people::Action;
use super::{Event, after};
use dsv::api::dynamic_secret::{DeletionPolicy, Mode};

const ONCE: Spec = Spec {
    mode: Mode::Once,
    ttl: 20,
    renew_before: 6,
    overlap: 3,
    print: 0,
    suspended: false,
    policy: DeletionPolicy::LetExpire,
};

/// Events, then rest, and how many credentials there have been.
fn credentials(events: Vec<Event>) -> usize {
    let mut world = after(ONCE, 0, events);
    world.come_to_rest();
    world.hold_at_rest();
    world.past.reported.values().map(std::collections::BTreeSet::len).sum()
}

fn round() -> Event {
    Event::Round(Vec::new())
}

fn dynamic_pass(behind: usize, leases_behind: usize) -> Event {
    Event::DynamicPass {
        behind,
        leases_behind,
        dice: Vec::new(),
    }
}

fn lease_pass(which: usize, behind: usize, owner_behind: usize) -> Event {
    Event::LeasePass {
        which,
        behind,
        owner_behind,
        dice: Vec::new(),
    }
}

#[test]
fn asking_between_delivery_and_its_record_is_not_lost() {
    let made = || vec![dynamic_pass(0, 0), dynamic_pass(0, 0), lease_pass(0, 0, 0)];
    assert_eq!(credentials(made()), 1);
    let mut asked = made();
    asked.push(Event::People(Action::Rotate));
    assert_eq!(credentials(asked), 2);
}

#[test]
fn an_old_view_does_not_record_a_delivered_lease_as_failed() {
    let events = vec![
        dynamic_pass(0, 0),
        dynamic_pass(0, 0),
        lease_pass(0, 0, 0),
        Event::Tick(20),
        lease_pass(0, 1, 0),
    ];
    assert_eq!(credentials(events), 1);
}

#[test]
fn when_the_newest_lease_is_deleted_no_older_one_asks_for_another() {
    let events = vec![
        dynamic_pass(0, 0),
        dynamic_pass(0, 0),
        Event::People(Action::ChangeGrants),
        lease_pass(0, 0, 0),
        dynamic_pass(0, 0),
        lease_pass(1, 0, 0),
        Event::People(Action::DeleteLease(1)),
        dynamic_pass(0, 0),
    ];
    assert_eq!(credentials(events), 2);
}

#[test]
fn an_old_view_of_a_delivered_lease_does_not_make_another() {
    let events = vec![
        dynamic_pass(0, 0),
        dynamic_pass(0, 0),
        lease_pass(0, 0, 0),
        Event::Tick(20),
        dynamic_pass(0, 1),
    ];
    assert_eq!(credentials(events), 1);
}

#[test]
fn what_an_old_spec_asked_for_is_not_made() {
    let events = vec![
        round(),
        dynamic_pass(0, 0),
        round(),
        Event::TakeOver,
        Event::People(Action::ChangeGrants),
        round(),
        round(),
        dynamic_pass(5, 0),
        round(),
    ];
    assert_eq!(credentials(events), 2);
}

#[test]
fn a_delivery_that_nobody_lived_to_report_counts() {
    let events = vec![
        round(),
        round(),
        Event::Fuse(2),
        Event::Round(vec![5, 9, 7]),
        Event::Tick(20),
        dynamic_pass(0, 0),
    ];
    assert_eq!(credentials(events), 1);
}

#[test]
fn a_dynamic_secret_that_a_cache_does_not_show_yet_is_told_of_the_end() {
    let events = vec![
        dynamic_pass(0, 0),
        dynamic_pass(0, 0),
        lease_pass(0, 0, 0),
        Event::Tick(20),
        lease_pass(0, 0, 5),
    ];
    assert_eq!(credentials(events), 1);
}
