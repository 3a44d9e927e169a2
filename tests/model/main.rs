//! The life of leases under everything that can go wrong: views that are old, answers that are lost, requests that arrive
//! late or twice, processes that die after any effect, replicas that take over from each other, people who delete and edit.
//!
//! The decisions are the real ones of `dsv::plan`. What surrounds them here mirrors `dsv::control` with its guards, and
//! replaces API server, engines and database by the least that has their semantics.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cluster;
mod database;
mod dynamic_pass;
mod found;

mod lease_pass;
mod people;
mod rest;
mod world;

use cluster::Spec;
use dsv::api::dynamic_secret::{DeletionPolicy, Mode};
use people::Action;
use proptest::collection::vec;
use proptest::prelude::*;
use world::{Dice, World};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    /// Every controller once, with fresh views.
    Round(Vec<u8>),
    LeasePass {
        which: usize,
        behind: usize,
        owner_behind: usize,
        dice: Vec<u8>,
    },
    DynamicPass {
        behind: usize,
        leases_behind: usize,
        dice: Vec<u8>,
    },
    /// The leader dies after so many effects more.
    Fuse(u8),
    TakeOver,
    Arrive {
        which: usize,
        again: bool,
    },
    Tick(i64),
    Engine(bool),
    /// An account owns something that cannot go, or no longer.
    Resist {
        which: usize,
        resists: bool,
    },
    CollectGarbage,
    Sweep {
        behind: usize,
        dice: Vec<u8>,
    },
    People(Action),
}

impl World {
    fn happen(&mut self, event: Event) {
        match event {
            Event::Round(dice) => {
                self.dice = Dice(dice);
                self.round();
            }
            Event::LeasePass {
                which,
                behind,
                owner_behind,
                dice,
            } => {
                self.dice = Dice(dice);
                let names: Vec<String> = self.view(behind).leases.keys().cloned().collect();
                if !names.is_empty() {
                    self.lease_pass(&names[which % names.len()], behind, owner_behind);
                }
            }
            Event::DynamicPass {
                behind,
                leases_behind,
                dice,
            } => {
                self.dice = Dice(dice);
                self.dynamic_pass(behind, leases_behind);
            }
            Event::Fuse(effects) => self.fuse = Some(effects),
            Event::TakeOver => self.take_over(),
            Event::Arrive { which, again } => self.arrive(which, again),
            Event::Tick(seconds) => self.now += seconds,
            Event::Engine(up) => self.engine = up,
            Event::Resist { which, resists } => self.resist(which, resists),
            Event::CollectGarbage => self.cluster.collect_garbage(),
            Event::Sweep { behind, dice } => {
                self.dice = Dice(dice);
                self.sweep(behind);
            }
            Event::People(action) => self.people(action),
        }
        self.dice = Dice::default();
        self.settle_moment();
    }

    fn resist(&mut self, which: usize, resists: bool) {
        let roles: Vec<_> = self.database.roles.keys().copied().collect();
        if !resists {
            self.database.resisting.clear();
        } else if !roles.is_empty() {
            self.database.resisting.insert(roles[which % roles.len()]);
        }
    }
}

fn dice() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![2 => Just(Vec::new()), 3 => vec(0..16_u8, 1..6)]
}

fn behind() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0), 2 => 1..world::OLDEST]
}

fn event(people: BoxedStrategy<Action>) -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => dice().prop_map(Event::Round),
        8 => (0..4_usize, behind(), behind(), dice()).prop_map(|(which, behind, owner_behind, dice)| {
            Event::LeasePass { which, behind, owner_behind, dice }
        }),
        6 => (behind(), behind(), dice())
            .prop_map(|(behind, leases_behind, dice)| Event::DynamicPass { behind, leases_behind, dice }),
        2 => (0..5_u8).prop_map(Event::Fuse),
        1 => Just(Event::TakeOver),
        4 => (0..8_usize, any::<bool>()).prop_map(|(which, again)| Event::Arrive { which, again }),
        4 => (1..22_i64).prop_map(Event::Tick),
        1 => any::<bool>().prop_map(Event::Engine),
        1 => (0..4_usize, any::<bool>()).prop_map(|(which, resists)| Event::Resist { which, resists }),
        1 => Just(Event::CollectGarbage),
        1 => (behind(), dice()).prop_map(|(behind, dice)| Event::Sweep { behind, dice }),
        6 => people.prop_map(Event::People),
    ]
}

fn spec(mode: Mode) -> impl Strategy<Value = Spec> {
    (any::<bool>(), any::<bool>()).prop_map(move |(policy, overlap)| Spec {
        mode,
        ttl: 20,
        renew_before: 6,
        overlap: if overlap { 3 } else { 0 },
        print: 0,
        suspended: false,
        policy: if policy {
            DeletionPolicy::Revoke
        } else {
            DeletionPolicy::LetExpire
        },
    })
}

/// A world with one dynamic secret, after everything that happened.
fn after(spec: Spec, skew: i64, events: Vec<Event>) -> World {
    let mut world = World::new(skew);
    world.cluster.create_dynamic(spec);
    world.settle_moment();
    for event in events {
        world.happen(event);
    }
    world
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::with_cases(count)
    }
}

fn any_mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Once), Just(Mode::Rotate), Just(Mode::OnDemand)]
}

proptest! {
    #![proptest_config(cases(2000))]

    /// Whatever happens: at every moment every role has its lease on the books, with its one verifier, and no Secret names
    /// a lease that is released; when it stops, everything comes to rest, and in the end nothing is left.
    #[test]
    fn nothing_outlives_its_lease(
        spec in any_mode().prop_flat_map(spec),
        skew in -30..30_i64,
        events in vec(event(people::anything()), 1..50),
    ) {
        let mut world = after(spec, skew, events);
        world.come_to_rest();
        world.hold_at_rest();
        world.lose_the_engines_until_all_is_expired();
        world.delete_everything();
    }

    /// A restart finds what is there, and issues nothing by itself.
    #[test]
    fn a_restart_issues_nothing(
        spec in any_mode().prop_flat_map(spec),
        skew in -30..30_i64,
        events in vec(event(people::anything()), 1..30),
    ) {
        let mut world = after(spec, skew, events);
        world.come_to_rest();
        world.restart_changes_nothing();
    }

    /// Mode Once: one credential, and one more for each time that somebody asks.
    #[test]
    fn once_means_once(
        spec in spec(Mode::Once),
        skew in -30..30_i64,
        events in vec(event(people::anything_but_another_mode()), 1..50),
    ) {
        let mut world = after(spec, skew, events);
        world.come_to_rest();
        for (dynamic, reported) in &world.past.reported {
            let asked = world.past.asked.get(dynamic).copied().unwrap_or_default();
            prop_assert!(reported.len() <= 1 + asked, "{} credentials, asked for {} more", reported.len(), asked);
        }
    }
}
