//! Whether what a lease is bound to still lives.

use crate::api::lease::BoundTo;
use jiff::SignedDuration;

/// Between two rounds of looks.
const EVERY: SignedDuration = SignedDuration::from_secs(10);
/// Longer rounds, where there are many: at most twenty looks a second.
const EACH: SignedDuration = SignedDuration::from_millis(50);

/// An object as a live look found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// There is none of this name.
    Absent,
    /// There it is.
    There {
        /// Its UID.
        uid: String,
        /// It has run to its end: a Pod that succeeded or failed, a Job that is complete or failed.
        finished: bool,
    },
    /// Nobody knows: the API server did not answer, or refused. Why, as a sentence.
    Unknown(String),
}

/// What follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// It lives.
    Alive,
    /// It has ended, and will not live again. How, for people.
    Ended(&'static str),
    /// Neither is known; nothing is issued for it, and nothing ended.
    Unknown(String),
}

/// Whether the object that a lease is bound to lives.
pub fn judge(bound: &BoundTo, look: &Look) -> Owner {
    match look {
        Look::Absent => Owner::Ended("is gone"),
        Look::There { uid, .. } if *uid != bound.uid => Owner::Ended("is gone; another one has its name"),
        Look::There { finished: true, .. } => Owner::Ended("has run to its end"),
        Look::There { .. } => Owner::Alive,
        Look::Unknown(why) => Owner::Unknown(why.clone()),
    }
}

/// How long after a round of so many looks the next one begins.
pub fn pause(looks: usize) -> SignedDuration {
    let looks = i32::try_from(looks).unwrap_or(i32::MAX);
    EVERY.max(EACH.saturating_mul(looks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::lease::BoundKind;

    #[test]
    fn a_lease_lives_as_long_as_exactly_what_it_is_bound_to() {
        let bound = BoundTo {
            kind: BoundKind::Pod,
            name: "job-x".into(),
            uid: "u-1".into(),
        };
        let there = |uid: &str, finished| Look::There {
            uid: uid.into(),
            finished,
        };
        assert_eq!(judge(&bound, &there("u-1", false)), Owner::Alive);
        for ended in [
            there("u-1", true),
            there("u-2", false),
            there("u-2", true),
            Look::Absent,
        ] {
            assert!(matches!(judge(&bound, &ended), Owner::Ended(_)), "{ended:?}");
        }
        let unknown = Look::Unknown("no answer".into());
        assert_eq!(
            judge(&bound, &unknown),
            Owner::Unknown("no answer".into()),
            "neither ended nor alive"
        );
    }

    #[test]
    fn many_are_looked_at_less_often() {
        assert_eq!(pause(0), EVERY);
        assert_eq!(pause(200), EVERY);
        assert_eq!(pause(2000), EVERY * 10);
        assert!(pause(usize::MAX) > EVERY);
    }
}
