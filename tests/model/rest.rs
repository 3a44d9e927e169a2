//! When faults have stopped: that everything comes to rest, and what must be true then.

use super::cluster::{Lease, Secret, TARGET, Write};
use super::world::{Dice, World};
use dsv::api::dynamic_secret::Mode;

/// Seconds; longer than any ttl, and than any backoff that a sequence can bring about.
const LONG: i64 = 100;

impl World {
    /// Deletes Secrets whose lease is gone, as the sweep does: suspicion from the cache, belief from live reads.
    pub fn sweep(&mut self, behind: usize) {
        let view = self.view(behind);
        let names: Vec<String> = view.secrets.keys().cloned().collect();
        for name in names {
            let Some(live) = self.cluster.secrets.get(&name).cloned() else {
                continue;
            };
            let Some(names) = live.names.as_ref().filter(|_| live.labelled) else {
                continue;
            };
            if view.lease_of(names.lease).is_none() && self.cluster.lease_of(names.lease).is_none() {
                let _ = self.write(Write::DeleteSecret(name, live.meta));
            }
        }
    }

    /// All controllers once, with fresh views. Whether anything changed.
    pub fn round(&mut self) -> bool {
        let before = self.past.landed;
        let names: Vec<String> = self.cluster.leases.keys().cloned().collect();
        for name in names {
            self.lease_pass(&name, 0, 0);
        }
        self.dynamic_pass(0, 0);
        self.cluster.collect_garbage();
        self.settle_moment();
        self.sweep(0);
        self.past.landed != before
    }

    fn quiet(&mut self) {
        let mut rounds = 0;
        while self.round() {
            rounds += 1;
            assert!(rounds < 60, "does not come to rest: {:#?}", self.cluster);
        }
    }

    fn pass_time(&mut self, seconds: i64) {
        let mut left = seconds;
        while left > 0 {
            self.now += 4;
            left -= 4;
            self.quiet();
        }
    }

    /// Faults stop, and time passes.
    pub fn come_to_rest(&mut self) {
        (self.dice, self.fuse, self.engine) = (Dice::default(), None, true);
        self.database.resisting.clear();
        while !self.flights.is_empty() {
            self.arrive(0, false);
        }
        self.quiet();
        self.pass_time(LONG);
    }

    fn is_live(&self, lease: &Lease) -> bool {
        let ends = lease.claim.as_ref().map(|claim| claim.expires_at.0.as_second());
        lease.issued_at.is_some() && !lease.meta.deleting && ends.is_some_and(|ends| self.now < ends)
    }

    /// Leases are live or were never taken on; accounts and Secrets are those of live leases; who waits has got it.
    pub fn hold_at_rest(&self) {
        for lease in self.cluster.leases.values() {
            let refused = lease.claim.is_none();
            assert!(refused || self.is_live(lease), "{lease:#?} is stuck");
            assert!(
                refused || self.database.roles.contains_key(&lease.meta.uid),
                "{lease:#?} has no account"
            );
        }
        for (name, secret) in &self.cluster.secrets {
            if let Some(names) = secret.names.as_ref().filter(|_| secret.labelled) {
                assert!(self.cluster.lease_of(names.lease).is_some(), "{name} names nothing");
            }
        }
        self.hold_delivered();
    }

    fn hold_delivered(&self) {
        let Some(dynamic) = self
            .cluster
            .dynamic
            .as_ref()
            .filter(|d| !d.meta.deleting && !d.spec.suspended)
        else {
            return;
        };
        let target = self.cluster.secrets.get(TARGET);
        if dynamic.spec.mode == Mode::OnDemand || target.is_some_and(|secret| !secret.labelled) {
            return;
        }
        let reported = self
            .past
            .reported
            .get(&dynamic.meta.uid)
            .map_or(0, std::collections::BTreeSet::len);
        assert!(reported > 0, "nothing was ever delivered: {:#?}", self.cluster);
        if let Some((_, before)) = self.past.rotated.filter(|(uid, _)| *uid == dynamic.meta.uid) {
            assert!(reported > before, "asked for another credential, and got none");
        }
        if dynamic.spec.mode == Mode::Rotate {
            self.hold_fresh(target);
        }
    }

    fn hold_fresh(&self, target: Option<&Secret>) {
        let newest = self.cluster.leases.values().filter(|lease| self.is_live(lease));
        let newest = newest.max_by_key(|lease| lease.claim.as_ref().map(|claim| claim.serial));
        let named = target
            .filter(|secret| !secret.edited)
            .and_then(|secret| secret.names.as_ref());
        assert!(
            newest.is_some() && named.map(|names| names.lease) == newest.map(|lease| lease.meta.uid),
            "the Secret does not hold the newest credential: {:#?}",
            self.cluster
        );
    }

    pub fn restart_changes_nothing(&mut self) {
        let before = (self.past.posts, self.past.roles_made, self.past.secrets_written);
        self.crash();
        self.dynamic_pass_before_leases_are_shown();
        self.quiet();
        self.take_over();
        self.crash();
        self.dynamic_pass_before_leases_are_shown();
        self.quiet();
        let after = (self.past.posts, self.past.roles_made, self.past.secrets_written);
        assert_eq!(before, after, "leases, roles and Secrets written by a restart");
    }

    /// Without any engine no account can go, but at the end of its lease every Secret goes.
    pub fn lose_the_engines_until_all_is_expired(&mut self) {
        self.engine = false;
        self.pass_time(40);
        for (name, secret) in &self.cluster.secrets {
            assert!(!secret.labelled || secret.names.is_none(), "{name} outlives its lease");
        }
        let open = self
            .cluster
            .leases
            .values()
            .filter(|lease| lease.claim.is_some())
            .count();
        assert!(open < 20, "{open} leases wait for an engine");
        self.engine = true;
    }

    pub fn delete_everything(&mut self) {
        self.cluster.delete_dynamic();
        self.pass_time(LONG);
        assert!(self.cluster.dynamic.is_none(), "{:#?}", self.cluster);
        assert!(self.database.roles.is_empty(), "{:#?}", self.database);
        let ours = |lease: &&Lease| lease.meta.finalizer || lease.claim.is_some();
        assert_eq!(self.cluster.leases.values().find(ours), None);
        assert!(self.cluster.secrets.values().all(|secret| !secret.labelled));
    }
}
