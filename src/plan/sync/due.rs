//! When a sync is looked at: the first time at once, then at fixed places of its tenant's interval, and whenever somebody
//! asks.

use crate::plan::backoff;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// What is known of a sync without reading its source.
#[allow(clippy::struct_excessive_bools, reason = "each is a question of its own")]
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its UID: where in the interval its place is.
    pub uid: &'a str,
    /// The tenant's interval.
    pub interval: Duration,
    /// When it was looked at last.
    pub last_check: Option<Timestamp>,
    /// Attempts that failed since.
    pub failures: i64,
    /// When the last one failed.
    pub last_failure: Option<Timestamp>,
    /// Whether the spec was changed since.
    pub is_changed: bool,
    /// Whether somebody asked for a push.
    pub is_asked: bool,
    /// Whether a push was begun and nobody knows how it ended.
    pub is_unfinished: bool,
    /// Whether its source's credential is another one, or gone.
    pub is_rotated: bool,
}

/// When to look; now or before means at once.
pub fn next(seen: &Seen<'_>, now: Timestamp) -> Timestamp {
    if seen.is_changed {
        return now;
    }
    if let (true, Some(last)) = (seen.failures > 0, seen.last_failure) {
        return backoff::next_attempt(seen.failures, last, seen.uid);
    }
    if seen.is_asked || seen.is_unfinished || seen.is_rotated {
        return now;
    }
    match seen.last_check {
        None => now,
        Some(last) => place_after(last, seen.interval, seen.uid),
    }
}

/// The first place of this sync's after `last`: the same for all operators, and spread over the interval for many syncs. Never
/// less than half an interval later, so that a first push is not followed by the next look at once.
pub fn place_after(last: Timestamp, interval: Duration, uid: &str) -> Timestamp {
    let interval = SignedDuration::try_from(interval).unwrap_or(SignedDuration::from_mins(10));
    let length = interval.as_millis().max(1);
    let offset = backoff::share(interval, uid).as_millis();
    let since = i128::from(last.as_millisecond()) - offset;
    let mut place = (since.div_euclid(length) + 1) * length + offset;
    if place - i128::from(last.as_millisecond()) < length / 2 {
        place += length;
    }
    i64::try_from(place)
        .ok()
        .and_then(|place| Timestamp::from_millisecond(place).ok())
        .unwrap_or(Timestamp::MAX)
}

/// An interval that is shorter than the timer's period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syncInterval is shorter than the timer's period; the minimum is {}", told(.0))]
pub struct TooShort(pub Duration);

/// A length of time for people.
pub fn told(length: &Duration) -> String {
    let seconds = length.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, 1) => "1 second".to_owned(),
        (0, seconds) => format!("{seconds} seconds"),
        (1, 0) => "1 minute".to_owned(),
        (minutes, 0) => format!("{minutes} minutes"),
        _ => format!("{seconds} seconds"),
    }
}

/// The interval of a tenant: what is asked for, or the timer's period.
pub fn interval(asked: Option<Duration>, period: Duration) -> Result<Duration, TooShort> {
    match asked {
        None => Ok(period),
        Some(asked) if asked < period => Err(TooShort(period)),
        Some(asked) => Ok(asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn seen() -> Seen<'static> {
        Seen {
            uid: "6f1b9f7e-3a53-4b36-9d0f-0f8e9f6c2a11",
            interval: HOUR,
            last_check: Some(at(1_000_000)),
            failures: 0,
            last_failure: None,
            is_changed: false,
            is_asked: false,
            is_unfinished: false,
            is_rotated: false,
        }
    }

    #[test]
    fn what_is_new_asked_for_or_unfinished_is_due_at_once() {
        let now = at(1_000_010);
        let table = [
            (
                Seen {
                    last_check: None,
                    ..seen()
                },
                true,
            ),
            (
                Seen {
                    is_changed: true,
                    ..seen()
                },
                true,
            ),
            (
                Seen {
                    is_asked: true,
                    ..seen()
                },
                true,
            ),
            (
                Seen {
                    is_unfinished: true,
                    ..seen()
                },
                true,
            ),
            (
                Seen {
                    is_rotated: true,
                    ..seen()
                },
                true,
            ),
            (seen(), false),
        ];
        for (seen, due) in table {
            assert_eq!(next(&seen, now) <= now, due, "{seen:?}");
        }
    }

    #[test]
    fn failures_are_waited_for_longer_and_longer_whatever_is_asked() {
        let failed = |failures| Seen {
            failures,
            last_failure: Some(at(1_000_000)),
            is_asked: true,
            is_unfinished: true,
            ..seen()
        };
        let after = |failures| next(&failed(failures), at(1_000_000)).as_second() - 1_000_000;
        assert!((1..=2).contains(&after(1)) && (8..=10).contains(&after(4)) && after(30) <= 375);
        let changed = Seen {
            is_changed: true,
            ..failed(30)
        };
        assert_eq!(
            next(&changed, at(1_000_001)),
            at(1_000_001),
            "a changed spec ends the pause"
        );
    }

    #[test]
    fn a_thousand_syncs_are_spread_over_the_interval() {
        let last = at(1_000_000);
        let mut buckets = [0; 10];
        for n in 0..1000 {
            let uid = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("{n}").as_bytes()).to_string();
            let place = place_after(last, HOUR, &uid);
            let later = place.duration_since(last).as_secs();
            assert!((1800..=5400).contains(&later), "{later}");
            assert_eq!(place_after(place, HOUR, &uid).duration_since(place).as_secs(), 3600);
            let bucket = usize::try_from((later - 1800) * 10 / 3601).unwrap();
            buckets[bucket] += 1;
        }
        assert!(buckets.iter().all(|count| (60..=140).contains(count)), "{buckets:?}");
    }

    #[test]
    fn an_interval_below_the_period_is_refused_with_the_minimum() {
        let period = Duration::from_mins(10);
        assert_eq!(interval(None, period), Ok(period));
        assert_eq!(interval(Some(HOUR), period), Ok(HOUR));
        let text = interval(Some(Duration::from_mins(9)), period).unwrap_err().to_string();
        assert!(text.contains("10 minutes"), "{text}");
        assert_eq!(told(&Duration::from_secs(1)), "1 second");
        assert_eq!(told(&Duration::from_secs(90)), "90 seconds");
    }
}
