//! The escape hatch: letting go of an account (or of group roles) without the proof that it is gone, because somebody who
//! may change the pool has said so, with a reason, and the database has been silent for a while.

use crate::api::names::ABANDON;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// Shortest reason, in characters: `true` or `yes` says nothing to whoever asks later.
pub const SHORTEST_REASON: usize = 10;
/// How long it must have been due: a database that restarts is not gone for good, and an annotation that was written long
/// before must not act on the first failure.
pub const RIPE: SignedDuration = SignedDuration::from_secs(60);

/// What a pool's annotations say about one UID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish<'a> {
    /// Nothing.
    None,
    /// To let go, but without a reason worth the name.
    Unreasoned,
    /// To let go, for this reason.
    LetGo(&'a str),
}

/// What the annotations say about the lease or DynamicSecret of this UID.
pub fn wish<'a>(annotations: &'a BTreeMap<String, String>, uid: &str) -> Wish<'a> {
    let Some(reason) = annotations.get(&format!("{ABANDON}{uid}")) else {
        return Wish::None;
    };
    let reason = reason.trim();
    if reason.chars().count() < SHORTEST_REASON {
        Wish::Unreasoned
    } else {
        Wish::LetGo(reason)
    }
}

/// All UIDs that annotations name.
pub fn named(annotations: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    annotations.keys().filter_map(|key| key.strip_prefix(ABANDON))
}

/// When something may be let go of that is due since then: deleted, or at its end.
pub fn ripe_at(deleted: Option<Timestamp>, expires: Option<Timestamp>) -> Timestamp {
    let due = [deleted, expires].into_iter().flatten().min().unwrap_or(Timestamp::MAX);
    due.saturating_add(RIPE).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b2e0a32-5d7c-4a5c-9a6e-2d1f3c4b5a69";

    fn annotations(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        entries.iter().map(own).collect()
    }

    #[test]
    fn only_the_exact_uid_with_a_reason_lets_go() {
        let key = format!("abandon.dsv.dev/{UID}");
        let other = "abandon.dsv.dev/0b2e0a32-5d7c-4a5c-9a6e-2d1f3c4b5a68";
        let table = [
            (vec![], Wish::None),
            (vec![(other, "the server was scrapped")], Wish::None),
            (vec![("dsv.dev/abandon", UID)], Wish::None),
            (vec![(key.as_str(), "")], Wish::Unreasoned),
            (vec![(key.as_str(), "true")], Wish::Unreasoned),
            (vec![(key.as_str(), "   yes       ")], Wish::Unreasoned),
            (
                vec![(key.as_str(), " server scrapped, OPS-42 "), (other, "x")],
                Wish::LetGo("server scrapped, OPS-42"),
            ),
        ];
        for (entries, wished) in table {
            assert_eq!(wish(&annotations(&entries), UID), wished, "{entries:?}");
        }
        assert_eq!(
            wish(&annotations(&[("abandon.dsv.dev/", "no uid at all")]), UID),
            Wish::None
        );
        let all = annotations(&[(other, "one"), (key.as_str(), "two"), ("x", "three")]);
        assert_eq!(named(&all).count(), 2);
    }

    #[test]
    fn nothing_is_let_go_of_before_it_was_due_for_a_minute() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        for (deleted, expires, ripe) in [(None, 100, 160), (at(50), 100, 110), (at(200), 100, 160)] {
            assert_eq!(ripe_at(deleted, at(expires)), at(ripe).unwrap());
        }
        assert_eq!(
            ripe_at(None, None),
            Timestamp::MAX,
            "what is not due is never let go of"
        );
    }
}
