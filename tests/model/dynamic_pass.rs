//! One pass over the dynamic secret: observe, ask `plan::dynamic_secret`, act; and making a lease.

use super::cluster::{Cluster, Dynamic, Lease, Meta, TARGET, Uid, Write};
use super::database::Task;
use super::lease_pass::{lease_name, whose_for};
use super::world::{Lost, World, at};
use dsv::api::dynamic_secret::OwnedObjectsPolicy;
use dsv::api::lease::{Claim, ClaimedGroup, ClaimedPool};
use dsv::plan::dynamic_secret::{LeaseSeen, Observed, Step, TargetSeen, Waiting, current, next};
use dsv::plan::lease::SecretSeen;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::rc::Rc;

/// Seconds after the claim in which the account may be made.
pub const ISSUE_WINDOW: i64 = 6;
/// How long a group counts as checked.
const GROUP_CHECKED: i64 = 60;

/// What a decision knew of what was delivered.
struct Known {
    /// The live credential.
    current: Option<LeaseSeen>,
    /// The highest serial that was delivered.
    delivered: i64,
}

struct Gathered {
    uid: String,
    leases: Vec<LeaseSeen>,
    fingerprint: String,
    target: TargetSeen,
    /// A delivered lease was made for the annotation's present value.
    answered: bool,
}

impl World {
    /// `behind` for the dynamic secret, `leases_behind` for its leases: two caches.
    pub fn dynamic_pass(&mut self, behind: usize, leases_behind: usize) {
        let leases = self.view(leases_behind);
        self.pass(behind, &leases);
    }

    /// After a start: one cache is complete while the other shows nothing yet.
    pub fn dynamic_pass_before_leases_are_shown(&mut self) {
        self.pass(0, &Cluster::default());
    }

    fn pass(&mut self, behind: usize, leases: &Cluster) {
        let Some(seen) = self.view(behind).dynamic.clone() else {
            return;
        };
        if self.busy.iter().any(|busy| busy == "dynamic") {
            return;
        }
        self.busy.push("dynamic".to_owned());
        // Before the books are closed, leases are listed at the source.
        let is_open = |lease: &Lease| lease.owner == Some(seen.meta.uid) && lease.claim.is_some();
        let leases = if seen.meta.deleting && !leases.leases.values().any(is_open) {
            &self.cluster
        } else {
            leases
        };
        let gathered = self.gather(&seen, leases);
        let observed = gathered.observed(&seen);
        let step = next(&observed, at(self.now));
        let known = Known {
            current: current(&observed).cloned(),
            delivered: observed.delivered_serial,
        };
        // What could not be done is done by a later pass.
        let _ = self.act(&seen, step, &known);
        self.busy.pop();
    }

    fn gather(&self, seen: &Dynamic, view: &Cluster) -> Gathered {
        let uid = seen.meta.uid.to_string();
        let of_owner = view.leases.values().filter(|lease| lease.owner == Some(seen.meta.uid));
        let leases: Vec<LeaseSeen> = of_owner.filter_map(|lease| lease_seen(lease, self.now)).collect();
        let delivered = leases.iter().filter(|l| l.serial > 0 && l.issued_at.is_some());
        let mut delivered = delivered.filter_map(|l| view.leases.get(&l.name));
        let answered = delivered.any(|lease| lease.answers == seen.rotate_at);
        let newest = leases
            .iter()
            .filter(|l| l.serial > 0 && l.issued_at.is_some() && !l.ending);
        let newest = newest.max_by_key(|l| l.serial).and_then(|l| view.leases.get(&l.name));
        Gathered {
            fingerprint: format!("print-{}", seen.spec.print),
            target: newest.map_or(TargetSeen::Intact, |lease| self.target_seen(lease, seen.meta.uid)),
            uid,
            leases,
            answered,
        }
    }

    fn target_seen(&self, lease: &Lease, owner: Uid) -> TargetSeen {
        let Some(secret) = self.cluster.secrets.get(TARGET) else {
            return TargetSeen::Absent;
        };
        match &secret.names {
            Some(names) if names.lease == lease.meta.uid && secret.labelled => {
                if secret.edited {
                    TargetSeen::Edited
                } else {
                    TargetSeen::Intact
                }
            }
            Some(names) if names.lease != lease.meta.uid && names.dynamic == owner && secret.labelled => {
                TargetSeen::Intact
            }
            _ => TargetSeen::Released,
        }
    }

    fn act(&mut self, seen: &Dynamic, step: Step, known: &Known) -> Result<(), Lost> {
        match step {
            Step::AddFinalizer => self.write(Write::HoldDynamic(seen.meta.clone())),
            Step::Make { serial, .. } => self.make(seen, serial, known),
            Step::End { lease, .. } => match self.cluster.leases.get(&lease).cloned() {
                Some(found) => self.write(Write::DeleteLease(found.name, found.meta.uid)),
                None => Ok(()),
            },
            Step::DropGroup { .. } => Ok(()),
            Step::Release => self.write(Write::ReleaseDynamic(seen.meta.clone())),
            Step::Wait { waiting, .. } => match known.current.as_ref().filter(|_| waiting == Waiting::Valid) {
                Some(newest) => self.write_valid(seen, newest),
                None => Ok(()),
            },
        }
    }

    fn write_valid(&mut self, seen: &Dynamic, newest: &LeaseSeen) -> Result<(), Lost> {
        let answers = self
            .views
            .last()
            .and_then(|view| Some(view.leases.get(&newest.name)?.answers));
        let (serial, answers) = (newest.serial, answers.unwrap_or(0));
        self.amend_dynamic(seen, |owner| {
            let status = &mut owner.status;
            let before = status.clone();
            if answers > 0 && before.delivered_serial <= serial {
                status.answered = answers;
            }
            status.last_serial = status.last_serial.max(serial);
            status.delivered_serial = serial;
            (status.failures, status.last_failure, status.failed_generation) = (0, None, 0);
            *status != before
        })
    }

    /// What must be true before a lease is claimed. None: not now; else whether the target is free for that serial.
    pub fn prepare(&mut self, owner: &Dynamic, target: Option<&str>, serial: i64) -> Result<Option<bool>, Lost> {
        let checked = self.memory().group_checked;
        if self.memory().clock.is_none() || checked.is_none_or(|at| self.now - at >= GROUP_CHECKED) {
            if let Err(lost) = self.ask(Task::Prepare) {
                return if lost == Lost::Dead { Err(lost) } else { Ok(None) };
            }
            let now = self.now;
            self.memory().group_checked = Some(now);
        }
        let Some(target) = target else { return Ok(Some(true)) };
        let found = self.cluster.secrets.get(target);
        let whose = whose_for(found, 0, Some(owner.meta.uid), serial);
        Ok(Some(matches!(whose, SecretSeen::Absent | SecretSeen::Older)))
    }

    fn make(&mut self, seen: &Dynamic, serial: i64, known: &Known) -> Result<(), Lost> {
        // What was decided on another version is decided again: the spec may ask for something else by now, or for nothing.
        let fresh = self.cluster.dynamic.clone();
        let Some(owner) = fresh.filter(|owner| owner.meta == seen.meta && !owner.meta.deleting) else {
            return Ok(());
        };
        let Some(target_free) = self.prepare(&owner, Some(TARGET), serial)? else {
            return Ok(());
        };
        if !target_free {
            let now = self.now;
            return self.amend_dynamic(&owner, |owner| {
                owner.count_failure(now);
                true
            });
        }
        if !self.is_free(&owner, serial, known) {
            return Ok(());
        }
        let verifier = self.fresh_verifier();
        let claim = self.claim(&owner, serial, Some(TARGET.to_owned()));
        let lease = Lease {
            meta: Meta {
                finalizer: true,
                ..Meta::default()
            },
            name: lease_name(owner.meta.uid, serial),
            owner: Some(owner.meta.uid),
            claim: Some(claim),
            verifier: Some(verifier),
            wants: None,
            answers: owner.rotate_at,
            issued_at: None,
        };
        self.memory().passwords.insert(verifier);
        let name = lease.name.clone();
        match self.write(Write::PostLease(lease)) {
            Err(Lost::Conflict | Lost::Unknown) => {
                let found = self.cluster.leases.get(&name);
                if found.is_some_and(|found| found.verifier != Some(verifier)) {
                    self.memory().passwords.remove(&verifier);
                }
                Ok(())
            }
            other => other,
        }
    }

    /// By a live list: no lease of ours is on its way, and no serial is taken, delivered or live that the decision did not know of.
    fn is_free(&self, owner: &Dynamic, serial: i64, known: &Known) -> bool {
        let me = self.me();
        let of_owner = self
            .cluster
            .leases
            .values()
            .filter(|lease| lease.owner == Some(owner.meta.uid));
        let ours: Vec<_> = of_owner
            .filter_map(|lease| Some((lease, lease.claim.as_ref().filter(|c| c.serial > 0)?)))
            .collect();
        let on_the_way = ours
            .iter()
            .any(|(lease, claim)| lease.issued_at.is_none() && !lease.meta.deleting && *claim.maker == me);
        let listed = ours.iter().map(|(_, claim)| claim.serial).max().unwrap_or(0);
        let issued = ours.iter().filter(|(lease, _)| lease.issued_at.is_some());
        let live = issued.clone().filter(|(lease, claim)| {
            let over = lease.meta.deleting || at(self.now) >= claim.expires_at.0;
            !over && claim.serial >= known.delivered
        });
        let live = live.map(|(_, claim)| claim.serial).max();
        let unseen = live.is_some() && live != known.current.as_ref().map(|lease| lease.serial);
        let issued = issued.map(|(_, claim)| claim.serial).max().unwrap_or(0);
        let unknown = unseen || issued.max(owner.status.delivered_serial) > known.delivered;
        !on_the_way && !unknown && listed.max(owner.status.last_serial) < serial
    }

    pub fn claim(&mut self, owner: &Dynamic, serial: i64, target: Option<String>) -> Rc<Claim> {
        let (now, ttl) = (self.now, owner.spec.ttl);
        let database = now + self.memory().clock.unwrap();
        let time = |second| Time(at(second));
        Rc::new(Claim {
            maker: self.me().into(),
            dynamic_secret_uid: owner.meta.uid.to_string().into(),
            serial,
            server: "server".into(),
            pool: ClaimedPool {
                namespace: "databases".into(),
                name: "orders".into(),
                uid: "pool".into(),
            }
            .into(),
            group: ClaimedGroup {
                name: "group".into(),
                grants: Vec::new(),
                since: time(0),
            }
            .into(),
            user_prefix: "".into(),
            fingerprint: format!("print-{}", owner.spec.print).into(),
            ttl_seconds: ttl,
            claimed_at: time(database),
            issue_deadline: time(database + ISSUE_WINDOW.min(ttl)),
            valid_until: time(database + ttl),
            expires_at: time(now + ttl),
            target,
            owned_objects: OwnedObjectsPolicy::Reassign,
            account: None,
        })
    }
}

impl Gathered {
    fn observed<'a>(&'a self, seen: &'a Dynamic) -> Observed<'a> {
        let (spec, status) = (&seen.spec, &seen.status);
        let failures = if status.failed_generation == seen.generation {
            status.failures
        } else {
            0
        };
        let issued = self
            .leases
            .iter()
            .filter(|l| l.issued_at.is_some())
            .map(|l| l.serial)
            .max()
            .unwrap_or(0);
        Observed {
            uid: &self.uid,
            deleting: seen.meta.deleting,
            namespace_going: false,
            deletion_policy: spec.policy,
            finalizer: seen.meta.finalizer,
            suspended: spec.suspended,
            mode: spec.mode,
            ttl: SignedDuration::from_secs(spec.ttl),
            renew_before: SignedDuration::from_secs(spec.renew_before),
            overlap: SignedDuration::from_secs(spec.overlap),
            fingerprint: Some(&self.fingerprint),
            rotate_at: word(seen.rotate_at),
            answered: word(if self.answered { seen.rotate_at } else { status.answered }),
            last_serial: status.last_serial,
            delivered_serial: status.delivered_serial.max(issued),
            leases: &self.leases,
            target: self.target,
            failures,
            last_failure: status.last_failure.filter(|_| failures > 0).map(at),
            groups: &[],
            restarts_due: None,
        }
    }
}

/// Values of the annotation; 0: none.
fn word(value: u32) -> Option<&'static str> {
    const WORDS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let at = usize::try_from(value).unwrap().checked_sub(1)?;
    Some(WORDS[at % WORDS.len()])
}

fn lease_seen(lease: &Lease, now: i64) -> Option<LeaseSeen> {
    let claim = lease.claim.as_ref()?;
    Some(LeaseSeen {
        name: lease.name.clone(),
        serial: claim.serial,
        issued_at: lease.issued_at.map(at),
        expires_at: Some(claim.expires_at.0),
        ending: lease.meta.deleting || (lease.issued_at.is_some() && at(now) >= claim.expires_at.0),
        fingerprint: claim.fingerprint.to_string(),
        ttl_seconds: claim.ttl_seconds,
        group: claim.group.name.clone(),
        in_use: false,
    })
}
