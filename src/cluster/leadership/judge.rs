//! What a record of leadership means to one candidate. Pure: no client, no clock of its own.

use super::{DURATION, Term};
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::jiff::Timestamp;
use std::time::{Duration, Instant};

/// The second from which terms are counted where no record tells one: the start of 2026.
const EPOCH: i64 = 1_767_225_600;
/// The longest time that a record can claim for its holder, in case somebody wrote nonsense into it.
const LONGEST: Duration = Duration::from_mins(1);
/// The duration in a record that was given up.
pub const GIVEN_UP_SECONDS: i32 = 1;

/// What to do about the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody leads: try to take over.
    Take,
    /// The record is ours: renew it.
    Renew,
    /// Somebody leads, or may still believe so until then.
    Wait {
        /// Earliest time of a take-over.
        until: Instant,
    },
}

/// The record as it was last read, and since when it has looked so.
#[derive(Debug, Clone)]
pub struct Sight {
    record: Option<LeaseSpec>,
    since: Instant,
    /// No record was ever seen, so there is no former holder to wait for.
    untouched: bool,
}

impl Sight {
    /// The first look.
    pub fn first(record: Option<LeaseSpec>, now: Instant) -> Self {
        let untouched = record.is_none();
        Self {
            record,
            since: now,
            untouched,
        }
    }

    /// A later look: only a change of the record starts its time anew.
    pub fn again(self, record: Option<LeaseSpec>, now: Instant) -> Self {
        if self.record == record {
            return self;
        }
        Self {
            untouched: false,
            ..Self::first(record, now)
        }
    }
}

/// What to do about the record. Its times are never compared with our clock: clocks of machines differ. A holder is given
/// up when the record did not change for its duration while we watched, which is later than the holder's own limit.
///
/// `mine` is the term that this process took itself. A record of our name that we do not remember is a stranger's: another
/// process may use the same name, or an earlier one of ours may still have requests on the way.
pub fn judge(sight: &Sight, mine: Option<&Term>, now: Instant) -> Verdict {
    let wait = match &sight.record {
        None if sight.untouched => return Verdict::Take,
        // Somebody deleted the record. Its holder may not know yet.
        None => DURATION,
        Some(record) if is_given_up(record) => return Verdict::Take,
        Some(record) if mine.is_some_and(|term| is_of(record, term)) => return Verdict::Renew,
        Some(record) => duration(record),
    };
    let until = sight.since + wait;
    if now >= until {
        Verdict::Take
    } else {
        Verdict::Wait { until }
    }
}

/// Whether a record says what this term's holder wrote.
pub fn is_of(record: &LeaseSpec, term: &Term) -> bool {
    holder(record) == Some(term.holder.as_str()) && number(record) == term.number
}

/// Whether its holder emptied the record, after it had stopped acting. A record that somebody else emptied lacks the short
/// duration, and its holder may not know yet.
fn is_given_up(record: &LeaseSpec) -> bool {
    holder(record).is_none() && record.lease_duration_seconds == Some(GIVEN_UP_SECONDS)
}

/// Who leads, if anybody.
fn holder(record: &LeaseSpec) -> Option<&str> {
    record.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// The number of the term that the record tells of; 0 where it tells none.
pub fn number(record: &LeaseSpec) -> i64 {
    record.lease_transitions.map_or(0, |number| i64::from(number.max(0)))
}

/// The number of the next term: greater than every one before. A record that tells none is new, or somebody deleted or
/// emptied it; then the count goes on from the clock, which is ahead of every count, as no term is as short as a second.
pub fn next_number(record: Option<&LeaseSpec>, highest: i64, now: Timestamp) -> i64 {
    let told = record.map_or(0, number);
    let clock = if told == 0 { now.as_second() - EPOCH } else { 0 };
    // The field has 31 bits; by the clock they last until 2094.
    told.max(highest).max(clock).saturating_add(1).min(i32::MAX.into())
}

/// Never less than what our own releases promise to each other, whatever stands there.
fn duration(record: &LeaseSpec) -> Duration {
    let seconds = record.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
    Duration::from_secs(seconds.unwrap_or(0)).clamp(DURATION, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    fn record(holder: &str, number: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_transitions: Some(number),
            lease_duration_seconds: Some(9),
            // Years ago by its own word: never looked at.
            renew_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        }
    }

    fn term(holder: &str, number: i64) -> Term {
        Term {
            holder: holder.into(),
            number,
        }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn every_record_has_its_verdict() {
        let start = Instant::now();
        let until = |n| Verdict::Wait {
            until: start + seconds(n),
        };
        let me = term("a", 3);
        let silent = |duration| LeaseSpec {
            lease_duration_seconds: duration,
            ..record("b", 3)
        };
        let given_up = LeaseSpec {
            lease_duration_seconds: Some(GIVEN_UP_SECONDS),
            ..record("", 3)
        };
        let table = [
            ("none ever", None, Some(&me), 0, Verdict::Take),
            ("given up", Some(given_up), None, 0, Verdict::Take),
            ("emptied by somebody else", Some(record("", 3)), None, 8, until(9)),
            ("without anything", Some(LeaseSpec::default()), None, 8, until(9)),
            (
                "without anything, over",
                Some(LeaseSpec::default()),
                None,
                9,
                Verdict::Take,
            ),
            ("ours", Some(record("a", 3)), Some(&me), 100, Verdict::Renew),
            ("our name, unknown term", Some(record("a", 3)), None, 0, until(9)),
            ("our name, later term", Some(record("a", 4)), Some(&me), 0, until(9)),
            ("a rival's", Some(record("b", 3)), Some(&me), 8, until(9)),
            ("a silent rival's", Some(record("b", 3)), None, 9, Verdict::Take),
            ("no duration", Some(silent(None)), None, 8, until(9)),
            ("negative duration", Some(silent(Some(-5))), None, 8, until(9)),
            ("short duration", Some(silent(Some(1))), None, 8, until(9)),
            ("endless duration", Some(silent(Some(i32::MAX))), None, 59, until(60)),
            ("endless, over", Some(silent(Some(i32::MAX))), None, 60, Verdict::Take),
        ];
        for (case, record, mine, after, verdict) in table {
            let sight = Sight::first(record, start);
            assert_eq!(judge(&sight, mine, start + seconds(after)), verdict, "{case}");
        }
    }

    #[test]
    fn only_a_change_of_the_record_proves_that_its_holder_lives() {
        let start = Instant::now();
        let renewed = LeaseSpec {
            renew_time: Some(MicroTime(Timestamp::MAX)),
            ..record("b", 3)
        };
        let sight = Sight::first(Some(record("b", 3)), start);
        let sight = sight.again(Some(record("b", 3)), start + seconds(8));
        assert_eq!(judge(&sight, None, start + seconds(9)), Verdict::Take);
        let sight = sight.again(Some(renewed), start + seconds(8));
        assert_eq!(
            judge(&sight, None, start + seconds(16)),
            Verdict::Wait {
                until: start + seconds(17)
            }
        );
    }

    #[test]
    fn a_deleted_record_is_waited_out_as_its_holder_may_still_act() {
        let start = Instant::now();
        let sight = Sight::first(Some(record("b", 3)), start).again(None, start + seconds(1));
        assert_eq!(
            judge(&sight, None, start + seconds(9)),
            Verdict::Wait {
                until: start + seconds(10)
            }
        );
        assert_eq!(judge(&sight, None, start + seconds(10)), Verdict::Take);
    }

    #[test]
    fn a_malformed_number_counts_as_none() {
        for (stands, means) in [(None, 0), (Some(-7), 0), (Some(7), 7), (Some(i32::MAX), 2_147_483_647)] {
            let record = LeaseSpec {
                lease_transitions: stands,
                ..record("b", 0)
            };
            assert_eq!(number(&record), means);
        }
    }

    #[test]
    fn terms_grow_although_the_record_is_deleted_or_emptied() {
        let at = |second| Timestamp::from_second(EPOCH + second).unwrap();
        assert_eq!(next_number(Some(&record("b", 7)), 0, at(1000)), 8);
        assert_eq!(next_number(Some(&record("b", 7)), 9, at(1000)), 10);
        assert_eq!(next_number(Some(&record("b", i32::MAX)), 0, at(0)), 2_147_483_647);
        for lost in [None, Some(&LeaseSpec::default())] {
            assert_eq!(next_number(lost, 0, at(1000)), 1001);
            assert_eq!(
                next_number(lost, 0, at(1009)),
                1010,
                "nine seconds later, by who never saw the last one"
            );
            assert_eq!(next_number(lost, 2000, at(1000)), 2001);
            assert_eq!(
                next_number(lost, 0, Timestamp::UNIX_EPOCH),
                1,
                "a clock that is far off"
            );
        }
    }
}
