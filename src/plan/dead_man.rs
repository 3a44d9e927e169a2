//! What an engine does on its own while it has no operator: take back what is past its end, and nothing else.

use jiff::{SignedDuration, Timestamp};

/// How long after its end an account is left to the operator, which knows more: what becomes of what the account owns.
pub const PATIENCE: SignedDuration = SignedDuration::from_secs(30);
/// Longest pause between two looks: other engines may have issued meanwhile, and what resisted is tried again.
const LONGEST: SignedDuration = SignedDuration::from_secs(15);
/// Shortest pause.
const SHORTEST: SignedDuration = SignedDuration::from_secs(1);
/// A server without accounts is forgotten after this long: longer than an issue that is under way can take to land.
pub const EMPTY: SignedDuration = SignedDuration::from_secs(120);

/// Whether an account is to be taken back, at `now` in the database's clock. `expires_at` is from its signed comment; one
/// without an end is not for us to judge.
pub fn is_due(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_some_and(|end| now.duration_since(end) >= PATIENCE)
}

/// How long until the next look, given the ends of all accounts that were found.
pub fn pause(ends: impl IntoIterator<Item = Option<Timestamp>>, now: Timestamp) -> SignedDuration {
    let left = |end: Timestamp| PATIENCE.saturating_sub(now.duration_since(end));
    let ahead = ends
        .into_iter()
        .flatten()
        .filter(|end| !is_due(Some(*end), now))
        .map(left);
    ahead.min().unwrap_or(LONGEST).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_account_is_due_thirty_seconds_after_its_end_and_never_before() {
        for (end, due) in [(100, false), (71, false), (70, true), (0, true), (1000, false)] {
            assert_eq!(is_due(Some(at(end)), at(100)), due, "end {end}");
        }
        assert!(!is_due(None, at(100)), "without a signed end nothing is due");
        let far = Timestamp::MAX;
        assert!(!is_due(Some(far), Timestamp::MIN) && is_due(Some(Timestamp::MIN), far));
    }

    #[test]
    fn the_next_look_comes_when_the_next_account_is_due() {
        let pause = |ends: &[i64]| super::pause(ends.iter().map(|end| Some(at(*end))), at(100)).as_secs();
        assert_eq!(pause(&[75, 1000]), 5);
        assert_eq!(pause(&[1000]), 15);
        assert_eq!(pause(&[]), 15);
        assert_eq!(pause(&[0, 69]), 15, "what resists is tried again without haste");
        assert_eq!(super::pause([Some(at(70)), None], at(99)).as_secs(), 1);
    }
}
