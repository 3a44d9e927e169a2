//! What people do to the objects.

use super::cluster::{Lease, Meta, Spec, TARGET};
use super::world::World;
use dsv::api::dynamic_secret::Mode;
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
pub enum Action {
    CreateDynamic(Mode),
    DeleteDynamic,
    Rotate,
    ChangeGrants,
    ShortenTtl,
    SetMode(Mode),
    Suspend(bool),
    DeleteLease(usize),
    DeleteSecret,
    EditSecret,
    TakeLabelOff,
    ForeignSecret,
    /// Ask for a lease; with a Secret, or with a verifier.
    Ask {
        secret: bool,
    },
}

impl Action {
    /// What can come between a look and the write that follows.
    pub const SUDDEN: &[Self] = &[
        Self::TakeLabelOff,
        Self::DeleteSecret,
        Self::EditSecret,
        Self::ForeignSecret,
        Self::DeleteLease(0),
        Self::DeleteLease(1),
        Self::DeleteDynamic,
        Self::Suspend(true),
    ];
}

pub fn anything() -> BoxedStrategy<Action> {
    let mode = prop_oneof![Just(Mode::Once), Just(Mode::Rotate), Just(Mode::OnDemand)];
    prop_oneof![
        6 => anything_but_another_mode(),
        1 => mode.prop_map(Action::SetMode),
    ]
    .boxed()
}

pub fn anything_but_another_mode() -> BoxedStrategy<Action> {
    prop_oneof![
        2 => Just(Action::CreateDynamic(Mode::Once)),
        1 => Just(Action::DeleteDynamic),
        2 => Just(Action::Rotate),
        1 => Just(Action::ChangeGrants),
        1 => Just(Action::ShortenTtl),
        1 => any::<bool>().prop_map(Action::Suspend),
        2 => (0..4_usize).prop_map(Action::DeleteLease),
        2 => Just(Action::DeleteSecret),
        1 => Just(Action::EditSecret),
        1 => Just(Action::TakeLabelOff),
        1 => Just(Action::ForeignSecret),
        2 => any::<bool>().prop_map(|secret| Action::Ask { secret }),
    ]
    .boxed()
}

impl World {
    pub fn people(&mut self, action: Action) {
        match action {
            Action::CreateDynamic(mode) => self.cluster.create_dynamic(Spec {
                mode,
                ttl: 20,
                renew_before: 6,
                overlap: 3,
                print: 0,
                suspended: false,
                policy: dsv::api::dynamic_secret::DeletionPolicy::Revoke,
            }),
            Action::DeleteDynamic => self.cluster.delete_dynamic(),
            Action::Rotate => self.rotate(),
            Action::ChangeGrants => {
                self.count_ask();
                self.cluster.edit_dynamic(|dynamic| dynamic.spec.print += 1);
            }
            Action::ShortenTtl => {
                self.count_ask();
                self.cluster
                    .edit_dynamic(|dynamic| dynamic.spec.ttl = (dynamic.spec.ttl - 2).max(10));
            }
            Action::SetMode(mode) => self.cluster.edit_dynamic(|dynamic| dynamic.spec.mode = mode),
            Action::Suspend(suspend) => self.cluster.edit_dynamic(|dynamic| dynamic.spec.suspended = suspend),
            Action::DeleteLease(which) => self.delete_lease(which),
            Action::DeleteSecret => {
                self.past.hands_off.remove(TARGET);
                self.cluster.secrets.remove(TARGET);
            }
            Action::EditSecret => self.cluster.edit_secret(TARGET, |secret| secret.edited = true),
            Action::TakeLabelOff => self.cluster.edit_secret(TARGET, |secret| secret.labelled = false),
            Action::ForeignSecret => self.cluster.create_foreign_secret(TARGET),
            Action::Ask { secret } => self.ask_for_a_lease(secret),
        }
        self.note_what_is_not_ours();
        self.settle_moment();
    }

    /// Secrets that are not ours, or not any more: from now on only people touch them.
    fn note_what_is_not_ours(&mut self) {
        for (name, secret) in &self.cluster.secrets {
            if !secret.labelled {
                self.past.hands_off.insert(name.clone(), secret.clone());
            }
        }
    }

    fn count_ask(&mut self) {
        if let Some(dynamic) = &self.cluster.dynamic {
            *self.past.asked.entry(dynamic.meta.uid).or_default() += 1;
        }
    }

    fn rotate(&mut self) {
        self.count_ask();
        let Some(dynamic) = &self.cluster.dynamic else { return };
        let reported = self
            .past
            .reported
            .get(&dynamic.meta.uid)
            .map_or(0, std::collections::BTreeSet::len);
        self.past.rotated = Some((dynamic.meta.uid, reported));
        self.cluster.edit_dynamic(|dynamic| dynamic.rotate_at += 1);
    }

    fn delete_lease(&mut self, which: usize) {
        let leases: Vec<_> = self.cluster.leases.values().cloned().collect();
        if !leases.is_empty() {
            let lease = &leases[which % leases.len()];
            self.cluster.delete_lease(&lease.name, lease.meta.uid);
        }
    }

    fn ask_for_a_lease(&mut self, secret: bool) {
        let name = format!("asked-{}", self.cluster.version);
        let verifier = self.fresh_verifier();
        let lease = Lease {
            meta: Meta::default(),
            owner: None,
            claim: None,
            verifier: (!secret).then_some(verifier),
            wants: secret.then(|| format!("{name}-secret")),
            name,
            answers: 0,
            issued_at: None,
        };
        let _ = self.cluster.post_lease(lease);
    }
}
