//! Everything together: cluster, database, two replicas of the operator, what is on its way between them, and time.

use super::cluster::{Cluster, Dynamic, Lease, Refused, Secret, Uid, Verifier, Write};
use super::database::{Answer, Database, Task};
use super::lease_pass::dynamic_of;
use super::people::Action;
use dsv::api::lease::Maker;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// How many versions of the cluster a view may be behind.
pub const OLDEST: usize = 6;

/// Chance, given by the test's input; without any left everything goes well. So sequences shrink to few faults.
#[derive(Debug, Default)]
pub struct Dice(pub Vec<u8>);

impl Dice {
    pub fn roll(&mut self, sides: u8) -> u8 {
        self.0.pop().unwrap_or(0) % sides
    }
}

/// What becomes of a request.
enum Fate {
    Prompt,
    /// It happens; nobody hears of it.
    AnswerLost,
    RequestLost,
    /// Nobody hears of it, and it happens later, if at all; a task perhaps twice.
    Late,
    /// Another controller of the same process does something first, or people do.
    Between,
}

/// On its way, after its sender has given up.
#[derive(Debug, Clone)]
pub enum Flight {
    Write(Write),
    Task(Task),
}

/// Why a request did not bring an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    Conflict,
    NotFound,
    /// It may have happened.
    Unknown,
    /// Nobody could be asked.
    NoEngine,
    /// The process has ended.
    Dead,
}

/// A replica's memory: all of it may be lost.
#[derive(Debug, Default, Clone)]
pub struct Memory {
    pub passwords: BTreeSet<Verifier>,
    /// Database clock less operator clock, once an engine reported it.
    pub clock: Option<i64>,
    /// Leases whose end is recorded.
    pub recorded: BTreeSet<Uid>,
    pub group_checked: Option<i64>,
}

/// What the properties need to know of the past.
#[derive(Debug, Default)]
pub struct Past {
    /// The verifier that a lease was first seen with.
    pub verifiers: BTreeMap<Uid, Verifier>,
    /// Leases of the operator's own making that were reported, by DynamicSecret.
    pub reported: BTreeMap<Uid, BTreeSet<Uid>>,
    /// How often people asked for another credential, by DynamicSecret.
    pub asked: BTreeMap<Uid, usize>,
    /// Who asked last for another credential, and how many there had been then.
    pub rotated: Option<(Uid, usize)>,
    /// Secrets that are not ours to touch.
    pub hands_off: BTreeMap<String, Secret>,
    /// Writes and tasks that had an effect.
    pub landed: usize,
    pub posts: usize,
    pub roles_made: usize,
    pub secrets_written: usize,
}

pub struct World {
    /// The operator's clock.
    pub now: i64,
    /// Database clock less operator clock.
    pub skew: i64,
    pub cluster: Cluster,
    pub views: Vec<Rc<Cluster>>,
    pub database: Database,
    pub flights: Vec<Flight>,
    pub memories: [Memory; 2],
    pub leads: usize,
    pub term: i64,
    pub engine: bool,
    pub dice: Dice,
    /// Effects until the process dies.
    pub fuse: Option<u8>,
    /// Objects that a pass works on; nobody else does meanwhile.
    pub busy: Vec<String>,
    pub verifiers: Verifier,
    pub past: Past,
}

impl World {
    pub fn new(skew: i64) -> Self {
        Self {
            now: 1_000,
            skew,
            cluster: Cluster::default(),
            views: vec![Rc::default()],
            database: Database::default(),
            flights: Vec::new(),
            memories: [Memory::default(), Memory::default()],
            leads: 0,
            term: 1,
            engine: true,
            dice: Dice::default(),
            fuse: None,
            busy: Vec::new(),
            verifiers: 0,
            past: Past::default(),
        }
    }

    pub fn me(&self) -> Maker {
        Maker {
            holder: format!("replica-{}", self.leads),
            term: self.term,
        }
    }

    pub fn memory(&mut self) -> &mut Memory {
        &mut self.memories[self.leads]
    }

    pub fn fresh_verifier(&mut self) -> Verifier {
        self.verifiers += 1;
        self.verifiers
    }

    /// The cluster as a cache shows it, so many versions behind.
    pub fn view(&self, behind: usize) -> Rc<Cluster> {
        self.views[self.views.len().saturating_sub(1 + behind)].clone()
    }

    /// Remembers the present for old views, and holds what must be true at any time.
    pub fn settle_moment(&mut self) {
        let version = self.cluster.version;
        if self.views.last().is_none_or(|view| view.version != version) {
            self.views.push(Rc::new(self.cluster.clone()));
            if self.views.len() > OLDEST {
                self.views.remove(0);
            }
        }
        self.check_moment();
    }

    fn check_moment(&mut self) {
        for (lease, role) in &self.database.roles {
            let on_the_books = self.cluster.lease_of(*lease).filter(|lease| lease.meta.finalizer);
            let on_the_books = on_the_books.unwrap_or_else(|| panic!("role of {lease} without a lease on the books"));
            assert_eq!(
                Some(role.verifier),
                on_the_books.verifier,
                "the role's verifier is another one"
            );
        }
        for lease in self.cluster.leases.values() {
            if let Some(verifier) = lease.verifier {
                let first = self.past.verifiers.entry(lease.meta.uid).or_insert(verifier);
                assert_eq!(*first, verifier, "the verifier of {} changed", lease.name);
            }
            let Some(claim) = lease
                .claim
                .as_ref()
                .filter(|c| c.serial > 0 && lease.issued_at.is_some())
            else {
                continue;
            };
            let dynamic = dynamic_of(claim);
            self.past.reported.entry(dynamic).or_default().insert(lease.meta.uid);
        }
        for (name, secret) in &self.past.hands_off {
            assert_eq!(
                self.cluster.secrets.get(name),
                Some(secret),
                "Secret {name} is not ours"
            );
        }
        for (name, secret) in &self.cluster.secrets {
            let Some(names) = secret.names.as_ref().filter(|_| secret.labelled && !secret.late) else {
                continue;
            };
            assert!(
                self.cluster.lease_of(names.lease).is_some(),
                "Secret {name} names a lease that is released"
            );
        }
    }

    fn check_no_issue_can_land(&self, released: Option<&Lease>) {
        let claim = released.and_then(|lease| lease.claim.as_ref());
        let deadline = claim.map(|claim| claim.issue_deadline.0.as_second());
        let over = deadline.is_none_or(|deadline| self.now + self.skew > deadline);
        assert!(over, "released while an issue may still land");
    }

    /// Groups are dropped before a dynamic secret goes, so by then no lease may need them.
    fn check_books_closed(&self, dynamic: Uid) {
        let mut leases = self.cluster.leases.values();
        let open = leases.find(|lease| lease.owner == Some(dynamic) && lease.claim.is_some());
        assert_eq!(open, None, "the dynamic secret goes before its lease");
    }

    fn fate(&mut self) -> Fate {
        match self.dice.roll(16) {
            1 | 2 => Fate::AnswerLost,
            3 | 4 => Fate::RequestLost,
            5 | 6 => Fate::Late,
            7 | 8 => Fate::Between,
            _ => Fate::Prompt,
        }
    }

    /// Whether the process still lives after one more effect.
    fn burn(&mut self) -> Result<(), Lost> {
        match self.fuse {
            Some(0) => {
                self.crash();
                Err(Lost::Dead)
            }
            Some(left) => {
                self.fuse = Some(left - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The leader loses its memory and leads again under another term.
    pub fn crash(&mut self) {
        self.fuse = None;
        *self.memory() = Memory::default();
        self.term += 1;
    }

    /// The other replica leads. The old one keeps its memory, and may lead again later.
    pub fn take_over(&mut self) {
        self.leads = 1 - self.leads;
        self.term += 1;
    }

    fn land(&mut self, write: &Write, late: bool) -> Result<(), Lost> {
        let before = match write {
            Write::ReleaseLease(name, _) => self.cluster.leases.get(name).cloned(),
            _ => None,
        };
        let result = self.cluster.apply(write, late);
        if result.is_ok() {
            self.past.landed += 1;
            match write {
                Write::PostLease(_) => self.past.posts += 1,
                Write::PostSecret(..) | Write::PutSecret(..) => self.past.secrets_written += 1,
                Write::ReleaseLease(..) => self.check_no_issue_can_land(before.as_ref()),
                Write::ReleaseDynamic(meta) if !late => self.check_books_closed(meta.uid),
                _ => {}
            }
        }
        self.settle_moment();
        result.map_err(|refused| match refused {
            Refused::Conflict => Lost::Conflict,
            Refused::NotFound => Lost::NotFound,
        })
    }

    fn execute(&mut self, task: &Task) -> Answer {
        let roles = self.database.roles.len();
        let answer = self.database.run(task, self.now + self.skew);
        self.past.roles_made += self.database.roles.len().saturating_sub(roles);
        self.settle_moment();
        answer
    }

    /// One write by the leader.
    pub fn write(&mut self, write: Write) -> Result<(), Lost> {
        let term = self.term;
        let result = match self.fate() {
            Fate::Prompt => self.land(&write, false),
            Fate::AnswerLost => self.land(&write, false).and(Err(Lost::Unknown)),
            Fate::RequestLost => Err(Lost::Unknown),
            Fate::Late => {
                self.flights.push(Flight::Write(write));
                Err(Lost::Unknown)
            }
            Fate::Between => {
                self.pass_between();
                if self.term != term {
                    return Err(Lost::Dead);
                }
                self.land(&write, false)
            }
        };
        self.burn()?;
        result
    }

    /// One task for an engine.
    pub fn ask(&mut self, task: Task) -> Result<Answer, Lost> {
        if !self.engine {
            return Err(Lost::NoEngine);
        }
        let result = match self.fate() {
            Fate::AnswerLost => {
                self.execute(&task);
                Err(Lost::Unknown)
            }
            Fate::RequestLost => Err(Lost::Unknown),
            Fate::Late => {
                self.flights.push(Flight::Task(task));
                Err(Lost::Unknown)
            }
            // Done, and delivered once more later.
            Fate::Between => {
                self.flights.push(Flight::Task(task.clone()));
                Ok(self.execute(&task))
            }
            Fate::Prompt => Ok(self.execute(&task)),
        };
        self.burn()?;
        if result.is_ok() {
            self.memory().clock = Some(self.skew);
        }
        result
    }

    /// Something that was on its way arrives; a task stays, and may arrive again.
    pub fn arrive(&mut self, which: usize, again: bool) {
        if self.flights.is_empty() {
            return;
        }
        let which = which % self.flights.len();
        match self.flights[which].clone() {
            Flight::Write(write) => {
                self.flights.remove(which);
                let _ = self.land(&write, true);
            }
            Flight::Task(task) => {
                if !again {
                    self.flights.remove(which);
                }
                self.execute(&task);
            }
        }
    }

    fn pass_between(&mut self) {
        if self.busy.len() > 1 {
            return;
        }
        let leases: Vec<String> = self.cluster.leases.keys().cloned().collect();
        let choice = usize::from(self.dice.roll(4));
        if choice == 3 {
            let action = usize::from(self.dice.roll(16));
            return self.people(Action::SUDDEN[action % Action::SUDDEN.len()]);
        }
        match leases.get(choice) {
            Some(name) => self.lease_pass(&name.clone(), 0, 0),
            None => self.dynamic_pass(0, 0),
        }
    }

    /// Changes the status of exactly the object that was seen, as `cluster::status` does. None: it is gone.
    pub fn amend_dynamic(&mut self, seen: &Dynamic, change: impl Fn(&mut Dynamic) -> bool) -> Result<(), Lost> {
        let mut object = seen.clone();
        for _ in 0..5 {
            if !change(&mut object) {
                return Ok(());
            }
            match self.write(Write::DynamicStatus(object)) {
                Err(Lost::Conflict) => {}
                Err(Lost::NotFound) => return Ok(()),
                other => return other,
            }
            match self.cluster.dynamic.clone().filter(|d| d.meta.uid == seen.meta.uid) {
                Some(fresh) => object = fresh,
                None => return Ok(()),
            }
        }
        Err(Lost::Conflict)
    }

    /// The same for a lease; the lease as written.
    pub fn amend_lease(&mut self, seen: &Lease, change: impl Fn(&mut Lease) -> bool) -> Result<Option<Lease>, Lost> {
        let mut object = seen.clone();
        for _ in 0..5 {
            if !change(&mut object) {
                return Ok(Some(object));
            }
            let done = match self.write(Write::LeaseStatus(object)) {
                Err(Lost::Conflict) => false,
                Err(Lost::NotFound) => return Ok(None),
                other => other.map(|()| true)?,
            };
            let fresh = self.cluster.leases.get(&seen.name).cloned();
            match fresh.filter(|lease| lease.meta.uid == seen.meta.uid) {
                Some(fresh) if done => return Ok(Some(fresh)),
                Some(fresh) => object = fresh,
                None => return Ok(None),
            }
        }
        Err(Lost::Conflict)
    }
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}
