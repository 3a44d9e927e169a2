//! The brake: an audit that wants to end much at once is more likely wrong about the world than right. A base secret that
//! leads to another server for a moment, or books that were restored without their leases, must not end every credential.

use super::{Because, Fault, Findings};
use crate::api::names::base32_hash;
use std::collections::BTreeSet;

/// Accounts and leases that one audit of one server may end before their time without being asked.
pub const MOST_AT_ONCE: usize = 20;
/// Up to this many are ended even where they are more than a tenth: small installations would always be braked.
const FEW: usize = 3;
/// The share that may be ended, as one of so many.
const SHARE: usize = 10;
/// Characters of the value that confirms.
const VALUE: usize = 10;

/// What waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brake {
    /// How many accounts would end before their time.
    pub count: usize,
    /// Of how many.
    pub of: usize,
    /// Lease UIDs of those accounts.
    pub uids: BTreeSet<String>,
    /// The value that confirms exactly this.
    pub value: String,
}

/// Whether the findings must wait for a confirmation. On a server `elsewhere`, another one than the books were made with,
/// everything waits: its accounts are not those that the leases are about. `before` is what waited after the last audit: while nothing is added
/// to it, it is confirmed by the same value, since accounts reach their end in the meantime.
pub fn brake(findings: &Findings, elsewhere: bool, before: Option<&Brake>, confirmed: &[&str]) -> Option<Brake> {
    let early = findings
        .orphans
        .iter()
        .filter(|orphan| orphan.because != Because::Expired);
    let uids: BTreeSet<String> = early
        .map(|orphan| orphan.lease_uid.clone())
        .chain(findings.broken.iter().map(|lease| lease.lease_uid.clone()))
        .collect();
    let missing = findings.broken.iter().filter(|lease| lease.fault == Fault::Missing);
    let (count, of) = (uids.len(), findings.accounts + missing.count());
    let much = count > MOST_AT_ONCE || (count > FEW && count * SHARE > of) || (elsewhere && count > 0);
    let known = before.filter(|before| uids.is_subset(&before.uids));
    let value = known.map_or_else(|| value(&uids), |before| before.value.clone());
    if !much || confirmed.contains(&value.as_str()) {
        return None;
    }
    Some(Brake {
        count,
        of,
        uids: known.map_or(uids, |before| before.uids.clone()),
        value,
    })
}

fn value(uids: &BTreeSet<String>) -> String {
    let parts: Vec<&str> = uids.iter().map(String::as_str).collect();
    base32_hash(&parts).chars().take(VALUE).collect()
}
