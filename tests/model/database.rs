//! The database of the model: roles with their verifier, the lock on the lease's UID, the deadline inside the statement.

use super::cluster::{Uid, Verifier};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    pub verifier: Verifier,
    pub valid_until: i64,
}

#[derive(Debug, Clone)]
pub enum Task {
    /// Touches only the group; says what time it is.
    Prepare,
    Issue {
        lease: Uid,
        verifier: Verifier,
        deadline: i64,
        valid_until: i64,
    },
    Revoke {
        lease: Uid,
        deadline: i64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Ready,
    Issued,
    TooLate,
    Gone { proven: bool },
    Blocked,
}

#[derive(Debug, Default)]
pub struct Database {
    /// By the lease's UID, which the signed comment carries.
    pub roles: BTreeMap<Uid, Role>,
    /// Accounts that own something which resists.
    pub resisting: BTreeSet<Uid>,
}

impl Database {
    /// One statement under the lock, at `now` by the database's clock.
    pub fn run(&mut self, task: &Task, now: i64) -> Answer {
        match task {
            Task::Prepare => Answer::Ready,
            Task::Issue {
                lease,
                verifier,
                deadline,
                valid_until,
            } => {
                if self.roles.contains_key(lease) {
                    return Answer::Issued; // adopted; never changed
                }
                if now >= *deadline {
                    return Answer::TooLate;
                }
                let role = Role {
                    verifier: *verifier,
                    valid_until: *valid_until,
                };
                self.roles.insert(*lease, role);
                Answer::Issued
            }
            Task::Revoke { lease, deadline } => {
                if self.roles.contains_key(lease) && self.resisting.contains(lease) {
                    return Answer::Blocked;
                }
                self.roles.remove(lease);
                Answer::Gone {
                    proven: now > *deadline,
                }
            }
        }
    }
}
