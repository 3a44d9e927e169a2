//! When the key of an engine is changed, and how a change that was interrupted goes on. Making keys and writing them is not
//! done here.
//!
//! The spec accepts the new key and, for a while, the one before; then the Secret gets the new one; then the status tells it.
//! After a crash the three show which of these steps was the last: at no time does the Secret hold a key that is refused.

use super::backoff::share;
use jiff::{SignedDuration, Timestamp};

/// How long the key before is still accepted: the time in which an engine has to be started anew.
pub const OVERLAP: SignedDuration = SignedDuration::from_hours(24);
/// Age at which the key of an engine in the cluster is changed, unless its pool says something else.
pub const USUAL_AGE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What is known without reading the Secret.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The operator's clock.
    pub now: Timestamp,
    /// Since when the key is in use, by the status.
    pub since: Timestamp,
    /// Age at which it is changed by itself; none: never.
    pub age: Option<SignedDuration>,
    /// The value of the annotation that asks for a change.
    pub asked: Option<&'a str>,
    /// The value that was answered last.
    pub answered: Option<&'a str>,
    /// Whether the key in the spec was put there by a change of ours. Of a key that somebody brought along nothing is unfinished.
    pub ours: bool,
    /// Until when the key before is accepted.
    pub previous_until: Option<Timestamp>,
    /// Spreads the engines of a pool.
    pub uid: &'a str,
}

/// When to change the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nobody asks, and it does not age.
    Never,
    /// Not before this.
    At(Timestamp),
    /// Somebody asks, its time is over, or a change is to be finished.
    Now,
}

/// Which key the Secret holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// That of `spec.publicKey`.
    Current,
    /// That of `spec.previousPublicKey`: the one that should have followed was never written, or somebody brought his own.
    Previous,
    /// The Secret is gone, and the key with it.
    Nothing,
    /// Another: somebody brought a key along, and it is theirs to change.
    Foreign,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make a key, accept it, hand it out, tell it.
    Change,
    /// It is handed out; only the status does not tell it yet.
    Tell,
    /// It is not ours.
    Leave,
}

/// When to change the key.
pub fn due(facts: &Facts<'_>) -> Due {
    let asked = facts.asked.is_some() && facts.asked != facts.answered;
    if asked || is_unfinished(facts) {
        return Due::Now;
    }
    let Some(age) = facts.age else { return Due::Never };
    let at = facts
        .since
        .saturating_add(age - share(age / 8, facts.uid))
        .unwrap_or(Timestamp::MAX);
    if at <= facts.now { Due::Now } else { Due::At(at) }
}

/// Whether the spec tells of a change that the status does not know.
fn is_unfinished(facts: &Facts<'_>) -> bool {
    facts
        .previous_until
        .filter(|_| facts.ours)
        .and_then(|until| until.checked_sub(OVERLAP).ok())
        .is_some_and(|changed| facts.since < changed)
}

/// What to do, now that it is due.
pub fn step(facts: &Facts<'_>, held: Held) -> Step {
    match held {
        Held::Current if is_unfinished(facts) => Step::Tell,
        Held::Previous if is_unfinished(facts) => Step::Change,
        Held::Current | Held::Nothing => Step::Change,
        Held::Previous | Held::Foreign => Step::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "2f3c6a9e-0000-4000-8000-000000000001";

    fn at(hours: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours)
    }

    fn facts(now: i64) -> Facts<'static> {
        Facts {
            now: at(now),
            since: at(0),
            age: Some(USUAL_AGE),
            asked: None,
            answered: None,
            ours: false,
            previous_until: None,
            uid: UID,
        }
    }

    #[test]
    fn a_key_is_changed_at_its_age_and_not_before() {
        let Due::At(then) = due(&facts(1)) else {
            panic!("it is due at some time")
        };
        assert!(at(26 * 24) < then && then <= at(30 * 24), "{then}");
        assert_eq!(due(&facts(31 * 24)), Due::Now);
        let ageless = Facts {
            age: None,
            ..facts(9999 * 24)
        };
        assert_eq!(due(&ageless), Due::Never);
    }

    #[test]
    fn who_asks_is_answered_once() {
        let asked = Facts {
            asked: Some("a"),
            age: None,
            ..facts(1)
        };
        assert_eq!(due(&asked), Due::Now);
        assert_eq!(step(&asked, Held::Current), Step::Change);
        let answered = Facts {
            answered: Some("a"),
            ..asked
        };
        assert_eq!(due(&answered), Due::Never);
        // A leaked key is changed again within the overlap of the last change.
        let again = Facts {
            answered: Some("a"),
            asked: Some("b"),
            since: at(1),
            previous_until: Some(at(25)),
            ..asked
        };
        assert_eq!(step(&again, Held::Current), Step::Change);
    }

    #[test]
    fn an_interrupted_change_is_finished_from_wherever_it_stopped() {
        // The spec was written at hour 10, the status tells of hour 0.
        let cut = Facts {
            ours: true,
            previous_until: Some(at(34)),
            age: None,
            ..facts(11)
        };
        assert_eq!(due(&cut), Due::Now);
        assert_eq!(
            step(&cut, Held::Previous),
            Step::Change,
            "the new key died with the operator"
        );
        assert_eq!(
            step(&cut, Held::Current),
            Step::Tell,
            "another change would refuse the engine's key"
        );
        let told = Facts { since: at(10), ..cut };
        assert_eq!(due(&told), Due::Never);
    }

    #[test]
    fn a_key_that_somebody_brings_along_stays_his() {
        // As the guide says it: his key into the spec, ours with an end beside it.
        let his = Facts {
            previous_until: Some(at(900)),
            age: None,
            ..facts(11)
        };
        assert_eq!(due(&his), Due::Never);
        let asked = Facts {
            asked: Some("a"),
            ..his
        };
        assert_eq!(step(&asked, Held::Previous), Step::Leave);
    }

    #[test]
    fn a_lost_secret_is_made_again_and_a_foreign_key_is_left() {
        let asked = Facts {
            asked: Some("a"),
            ..facts(1)
        };
        assert_eq!(step(&asked, Held::Nothing), Step::Change);
        assert_eq!(step(&asked, Held::Foreign), Step::Leave);
    }
}
