//! Keeping a report within a frame: 64 blocked accounts have much to say.

use crate::channel::frames::{AccountState, MAX_FRAME, MAX_KEEPERS, RevokedAccount};
use crate::postgres::failure::shortened;

/// Most bytes of all entries; the rest of the frame is for what is around them, and for the names of databases that need
/// keepers, each at worst written with six bytes for one.
const MOST: usize = MAX_FRAME - 4096 - MAX_KEEPERS * 64 * 6;
/// Characters left of a sentence if there is no room for more.
const SENTENCE: usize = 120;

/// Shortens explanations until all entries fit, the last entries first. What became of each account is always said.
pub(super) fn fit(mut accounts: Vec<RevokedAccount>) -> Vec<RevokedAccount> {
    let mut total: usize = accounts.iter().map(size).sum();
    for shorten in [drop_sql, shorten_sentence] {
        for account in accounts.iter_mut().rev() {
            if total <= MOST {
                return accounts;
            }
            total -= size(account);
            shorten(&mut account.state);
            total += size(account);
        }
    }
    accounts
}

fn size(account: &RevokedAccount) -> usize {
    // With the comma. An entry always serializes: it is made of texts and numbers.
    serde_json::to_string(account).map_or(0, |json| json.len() + 1)
}

fn drop_sql(state: &mut AccountState) {
    if let AccountState::Blocked { sql, .. } = state {
        *sql = None;
    }
}

fn shorten_sentence(state: &mut AccountState) {
    match state {
        AccountState::Blocked { by, .. } => *by = shortened(by, SENTENCE),
        AccountState::Failed(failure) => failure.message = shortened(&failure.message, SENTENCE),
        AccountState::Gone { .. } | AccountState::NeedsKeeper | AccountState::Foreign { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::frames::{Done, MAX_REVOKE_BATCH, Outcome, ToOperator};

    fn blocked(length: usize) -> RevokedAccount {
        RevokedAccount {
            lease_uid: "0b2e0a32-5d7c-4a5c-9a6e-2d1f3c4b5a69".into(),
            state: AccountState::Blocked {
                locked: true,
                by: "\"".repeat(length),
                sql: Some("x".repeat(length)),
            },
        }
    }

    #[test]
    fn a_batch_of_long_explanations_fits_a_frame() {
        for length in [10, 400, 5000, 100_000] {
            let accounts = fit((0..MAX_REVOKE_BATCH).map(|_| blocked(length)).collect());
            assert_eq!(accounts.len(), MAX_REVOKE_BATCH);
            let outcome = Outcome::Done {
                done: Done::Revoked {
                    accounts,
                    keepers_wanted: vec!["\u{1}".repeat(63); MAX_KEEPERS],
                },
                clock: None,
            };
            let frame = serde_json::to_string(&ToOperator::Outcome { id: u64::MAX, outcome }).unwrap();
            assert!(frame.len() <= MAX_FRAME, "{} bytes at {length}", frame.len());
        }
    }

    #[test]
    fn what_fits_is_not_touched() {
        let accounts = vec![blocked(100), blocked(2000)];
        assert_eq!(fit(accounts.clone()), accounts);
    }
}
