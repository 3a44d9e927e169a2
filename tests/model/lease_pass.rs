//! One pass over one lease: observe, ask `plan::lease`, act with the guards of `docs/architecture.md`, until it waits.

use super::cluster::{Cluster, DYNAMIC, Dynamic, Lease, Naming, Secret, Uid, Write};
use super::database::{Answer, Task};
use super::world::{Lost, World, at};
use dsv::api::dynamic_secret::Mode;
use dsv::api::lease::Claim;
use dsv::plan::lease::{Now, Observed, SecretSeen, Step, next};
use std::rc::Rc;

/// Steps of one pass; a plan that never waits would not end.
const STEPS: usize = 40;

#[derive(Clone)]
enum Found {
    NotLookedYet,
    Nothing,
    Secret(Secret),
}

impl Found {
    fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Secret(secret) => Some(secret),
            Self::NotLookedYet | Self::Nothing => None,
        }
    }
}

struct Pass {
    lease: Lease,
    /// The cache of dynamic secrets.
    owners: Rc<Cluster>,
    /// The Secret as looked at in this pass.
    found: Found,
    account: bool,
    gone: bool,
}

/// Whether the pass is over.
type Turn = Result<bool, Lost>;

impl World {
    /// `owner_behind` for the dynamic secret: two caches.
    pub fn lease_pass(&mut self, name: &str, behind: usize, owner_behind: usize) {
        let view = self.view(behind);
        let Some(lease) = view.leases.get(name).cloned() else {
            return;
        };
        if self.busy.iter().any(|busy| busy == name) {
            return;
        }
        self.busy.push(name.to_owned());
        let mut pass = Pass {
            lease,
            owners: self.view(owner_behind),
            found: Found::NotLookedYet,
            account: false,
            gone: false,
        };
        let ended = (0..STEPS).any(|_| self.lease_step(&mut pass).unwrap_or(true));
        assert!(ended, "a pass does not end: {:?}", pass.lease);
        self.busy.pop();
    }

    fn lease_step(&mut self, pass: &mut Pass) -> Turn {
        let claim = pass.lease.claim.clone();
        let now = Now {
            operator: at(self.now),
            database: self.memory().clock.map(|skew| at(self.now + skew)),
        };
        let lease = &pass.lease;
        let lives = claim.as_ref().is_some_and(|claim| now.operator < claim.expires_at.0);
        let steady = lease.issued_at.is_some() && !lease.meta.deleting && lives;
        let secret = match claim.as_ref().and_then(|claim| claim.target.clone()) {
            None => SecretSeen::NotWanted,
            Some(_) if steady => SecretSeen::Ours,
            Some(target) => {
                if matches!(pass.found, Found::NotLookedYet) {
                    let live = self.cluster.secrets.get(&target).cloned();
                    pass.found = live.map_or(Found::Nothing, Found::Secret);
                }
                whose(pass.found.secret(), lease)
            }
        };
        let observed = Observed {
            deleting: lease.meta.deleting,
            finalizer: lease.meta.finalizer,
            claim: claim.as_deref(),
            reported: lease.issued_at.is_some(),
            account: pass.account,
            secret,
            password: lease.verifier.is_some_and(|v| self.memory().passwords.contains(&v)),
            gone: pass.gone,
            end_recorded: self.end_is_recorded(pass),
        };
        let step = next(&observed, now);
        match (step, claim) {
            (Step::TakeOn, claim) => self.take_on(&pass.lease.clone(), claim.is_some()).map(|()| true),
            (Step::Release, _) => self.release(&pass.lease),
            (Step::Delete, _) => self.delete(pass),
            (Step::Issue, Some(claim)) => self.issue(pass, &claim),
            (Step::Deliver, Some(claim)) => self.deliver(pass, &claim, secret),
            (Step::Report, Some(_)) => self.report(pass),
            (Step::DeleteSecret, Some(claim)) => self.delete_secret(pass, &claim),
            (Step::Revoke, Some(claim)) => self.revoke(pass, &claim),
            (Step::RecordEnd, Some(claim)) => self.record_end(pass, &claim),
            // It waits, or the plan asks for what only a claimed lease can have.
            (Step::Wait(_) | Step::Nothing, _) | (_, None) => Ok(true),
        }
    }

    /// The lease's dynamic secret. One that the view does not show is looked for at the source: without it there is nobody
    /// to be told, and an old view must not bring that about.
    fn owner(&self, pass: &Pass) -> Option<Dynamic> {
        let claim = pass.lease.claim.as_ref()?;
        let is_it = |dynamic: &&Dynamic| dynamic.meta.uid.to_string() == *claim.dynamic_secret_uid;
        let seen = pass.owners.dynamic.as_ref().filter(is_it);
        seen.or(self.cluster.dynamic.as_ref().filter(is_it)).cloned()
    }

    fn end_is_recorded(&self, pass: &Pass) -> bool {
        let recorded = self.memories[self.leads].recorded.contains(&pass.lease.meta.uid);
        let Some(owner) = self.owner(pass) else { return true };
        recorded || owner.status.history.contains(&pass.lease.name)
    }

    fn issue(&mut self, pass: &mut Pass, claim: &Claim) -> Turn {
        let answer = self.ask(Task::Issue {
            lease: pass.lease.meta.uid,
            verifier: pass.lease.verifier.unwrap_or_default(),
            deadline: claim.issue_deadline.0.as_second(),
            valid_until: claim.valid_until.0.as_second(),
        })?;
        if answer == Answer::Issued {
            pass.account = true;
            return Ok(false);
        }
        self.give_up(pass, claim)
    }

    /// The answer was no: counted, and taken back.
    fn give_up(&mut self, pass: &mut Pass, claim: &Claim) -> Turn {
        if let Some(owner) = self.owner(pass).filter(|_| claim.serial > 0) {
            let now = self.now;
            self.amend_dynamic(&owner, |owner| {
                owner.count_failure(now);
                true
            })?;
        }
        self.forget_password(&pass.lease);
        self.delete(pass)
    }

    fn forget_password(&mut self, lease: &Lease) {
        if let Some(verifier) = lease.verifier {
            self.memory().passwords.remove(&verifier);
        }
    }

    fn deliver(&mut self, pass: &mut Pass, claim: &Claim, secret: SecretSeen) -> Turn {
        let (Some(target), Some(verifier)) = (claim.target.clone(), pass.lease.verifier) else {
            return Ok(true);
        };
        if !self.memory().passwords.contains(&verifier) {
            return Ok(true);
        }
        let names = Naming {
            lease: pass.lease.meta.uid,
            dynamic: dynamic_of(claim),
            serial: claim.serial,
        };
        let write = match (secret, pass.found.secret().cloned()) {
            (SecretSeen::Absent, _) => Write::PostSecret(target, names),
            (SecretSeen::Older, Some(older)) => Write::PutSecret(target, older.meta, names),
            _ => return self.give_up(pass, claim),
        };
        self.then_look_again(pass, write)
    }

    /// What was written, or what came of a write without an answer, is looked at before it is believed.
    fn then_look_again(&mut self, pass: &mut Pass, write: Write) -> Turn {
        match self.write(write) {
            Ok(()) | Err(Lost::Conflict | Lost::NotFound | Lost::Unknown) => {
                pass.found = Found::NotLookedYet;
                Ok(false)
            }
            Err(lost) => Err(lost),
        }
    }

    fn report(&mut self, pass: &mut Pass) -> Turn {
        let now = self.now;
        let written = self.amend_lease(&pass.lease, |lease| {
            // A lease that is marked as deleted is not reported any more: see `plan::lease`.
            let news = lease.issued_at.is_none() && !lease.meta.deleting;
            if news {
                lease.issued_at = Some(now);
            }
            news
        })?;
        self.forget_password(&pass.lease);
        let Some(lease) = written else { return Ok(true) };
        pass.lease = lease;
        Ok(false)
    }

    fn delete_secret(&mut self, pass: &mut Pass, claim: &Claim) -> Turn {
        let (Some(target), Some(found)) = (claim.target.clone(), pass.found.secret().cloned()) else {
            return Ok(true);
        };
        self.then_look_again(pass, Write::DeleteSecret(target, found.meta))
    }

    fn revoke(&mut self, pass: &mut Pass, claim: &Claim) -> Turn {
        let answer = self.ask(Task::Revoke {
            lease: pass.lease.meta.uid,
            deadline: claim.issue_deadline.0.as_second(),
        })?;
        pass.gone = answer == Answer::Gone { proven: true };
        Ok(!pass.gone)
    }

    fn record_end(&mut self, pass: &mut Pass, claim: &Claim) -> Turn {
        if let Some(owner) = self.owner(pass) {
            let (name, serial) = (pass.lease.name.clone(), claim.serial);
            let delivered = pass.lease.issued_at.is_some() && serial > 0;
            let answers = pass.lease.answers;
            self.amend_dynamic(&owner, |owner| {
                let status = &mut owner.status;
                if status.history.contains(&name) {
                    return false;
                }
                status.history.insert(0, name.clone());
                status.history.truncate(5);
                status.last_serial = status.last_serial.max(serial);
                if delivered && answers > 0 && serial >= status.delivered_serial {
                    status.answered = answers;
                }
                if delivered {
                    status.delivered_serial = status.delivered_serial.max(serial);
                }
                true
            })?;
        }
        let uid = pass.lease.meta.uid;
        self.memory().recorded.insert(uid);
        Ok(false)
    }

    fn delete(&mut self, pass: &mut Pass) -> Turn {
        self.write(Write::DeleteLease(pass.lease.name.clone(), pass.lease.meta.uid))?;
        let fresh = self.cluster.leases.get(&pass.lease.name).cloned();
        match fresh.filter(|fresh| fresh.meta.uid == pass.lease.meta.uid) {
            Some(fresh) => {
                pass.lease = fresh;
                Ok(false)
            }
            None => Ok(true),
        }
    }

    fn release(&mut self, lease: &Lease) -> Turn {
        self.write(Write::ReleaseLease(lease.name.clone(), lease.meta.clone()))?;
        self.forget_password(lease);
        Ok(true)
    }

    /// A lease that somebody asked for: the same checks as for our own, then finalizer, then claim.
    fn take_on(&mut self, lease: &Lease, claimed: bool) -> Result<(), Lost> {
        let mut held = lease.clone();
        if claimed {
            return self.write(Write::HoldLease(held));
        }
        let Some(owner) = self.cluster.dynamic.clone() else {
            return Ok(());
        };
        if owner.spec.mode != Mode::OnDemand || owner.spec.suspended || owner.meta.deleting {
            return Ok(());
        }
        let Some(target_free) = self.prepare(&owner, lease.wants.as_deref(), 0)? else {
            return Ok(());
        };
        if !target_free {
            return Ok(());
        }
        let claim = self.claim(&owner, 0, lease.wants.clone());
        held.owner = Some(owner.meta.uid);
        self.write(Write::HoldLease(held))?;
        let now_held = self.cluster.leases.get(&lease.name).cloned();
        let Some(held) = now_held.filter(|held| held.meta.uid == lease.meta.uid) else {
            return Ok(());
        };
        let made = lease.wants.is_some().then(|| self.fresh_verifier());
        self.memory().passwords.extend(made);
        self.amend_lease(&held, |lease| {
            if lease.claim.is_some() {
                return false;
            }
            lease.claim = Some(claim.clone());
            lease.verifier = made.or(lease.verifier);
            true
        })?;
        Ok(())
    }
}

impl Dynamic {
    pub fn count_failure(&mut self, now: i64) {
        let status = &mut self.status;
        let before = if status.failed_generation == self.generation {
            status.failures
        } else {
            0
        };
        status.failures = before + 1;
        status.last_failure = Some(now);
        status.failed_generation = self.generation;
    }
}

/// The dynamic secret that a claim is of.
pub fn dynamic_of(claim: &Claim) -> Uid {
    claim.dynamic_secret_uid.parse().unwrap()
}

/// Whose a Secret is, as a lease sees it.
pub fn whose(found: Option<&Secret>, lease: &Lease) -> SecretSeen {
    let claim = lease.claim.as_ref();
    let serial = claim.map_or(0, |claim| claim.serial);
    let dynamic = claim.map(|claim| dynamic_of(claim));
    whose_for(found, lease.meta.uid, dynamic, serial)
}

/// The same for a lease that is not made yet, with a UID that no Secret names.
pub fn whose_for(found: Option<&Secret>, lease: u32, dynamic: Option<Uid>, serial: i64) -> SecretSeen {
    let Some(secret) = found else { return SecretSeen::Absent };
    let Some(names) = &secret.names else {
        return SecretSeen::Foreign;
    };
    if names.lease == lease {
        return if secret.labelled {
            SecretSeen::Ours
        } else {
            SecretSeen::Released
        };
    }
    let same_owner = dynamic == Some(names.dynamic);
    if !(secret.labelled && same_owner && names.serial > 0 && serial > 0) {
        return SecretSeen::Foreign;
    }
    if names.serial > serial {
        SecretSeen::Newer
    } else {
        SecretSeen::Older
    }
}

/// Name of a lease of the operator's own making.
pub fn lease_name(dynamic: u32, serial: i64) -> String {
    format!("{DYNAMIC}-{dynamic}-{serial}")
}
