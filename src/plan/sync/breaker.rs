//! Whether a tenant that did not answer is asked again.

use crate::plan::backoff;
use jiff::{SignedDuration, Timestamp};

/// Failures in a row after which nobody else tries.
const THRESHOLD: i64 = 3;
/// Longest pause: one attempt costs next to nothing, and everything that waits goes on after it.
const LONGEST: SignedDuration = SignedDuration::from_secs(20);
/// How long the one who tries has until somebody else may.
const TRIAL: SignedDuration = SignedDuration::from_secs(60);

/// A circuit breaker: closed while a tenant answers, open after some failures, and after a pause one attempt decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: i64,
    open_until: Option<Timestamp>,
}

impl Breaker {
    /// Whether one may try now, or when. In an open one each yes is given to one only.
    pub fn ask(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        match self.open_until {
            None => Ok(()),
            Some(until) if now < until => Err(until),
            Some(_) => {
                self.open_until = Some(now.saturating_add(TRIAL).unwrap_or(Timestamp::MAX));
                Ok(())
            }
        }
    }

    /// The tenant answered, whatever it said. Returns whether that is news.
    pub fn answered(&mut self) -> bool {
        let was_open = self.open_until.is_some();
        *self = Self::default();
        was_open
    }

    /// The tenant did not answer. `uid` spreads tenants that went together.
    pub fn silent(&mut self, now: Timestamp, uid: &str) {
        self.failures += 1;
        if self.failures >= THRESHOLD {
            let pause = backoff::next_attempt(self.failures - THRESHOLD + 1, now, uid);
            let longest = LONGEST + backoff::share(LONGEST / 4, uid);
            self.open_until = Some(pause.min(now.saturating_add(longest).unwrap_or(Timestamp::MAX)));
        }
    }

    /// The tenant asked for patience until then.
    pub fn wait(&mut self, until: Timestamp) {
        self.open_until = Some(self.open_until.map_or(until, |known| known.max(until)));
    }

    /// Until when nobody tries.
    pub fn open_until(&self) -> Option<Timestamp> {
        self.open_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn after_three_failures_one_attempt_at_a_time_decides() {
        let mut breaker = Breaker::default();
        for second in 0..3 {
            assert_eq!(breaker.ask(at(second)), Ok(()));
            breaker.silent(at(second), "u");
        }
        let until = breaker.ask(at(2)).unwrap_err();
        assert!(until > at(2) && until <= at(5), "{until}");
        assert_eq!(breaker.ask(until), Ok(()), "one tries");
        assert!(breaker.ask(until).is_err(), "and nobody else meanwhile");
        breaker.silent(until, "u");
        let later = breaker.ask(until).unwrap_err();
        assert!(
            later.duration_since(until) > until.duration_since(at(2)),
            "the pause grows"
        );
        assert_eq!(breaker.ask(later), Ok(()));
        assert!(breaker.answered(), "and a success ends it for all");
        assert_eq!(breaker.ask(later), Ok(()));
        assert_eq!(breaker.ask(later), Ok(()));
        assert!(!breaker.answered());
        for _ in 0..30 {
            breaker.silent(later, "u");
        }
        assert!(
            breaker.ask(later).unwrap_err() <= at(later.as_second() + 26),
            "it stops growing"
        );
    }

    #[test]
    fn patience_that_was_asked_for_is_had() {
        let mut breaker = Breaker::default();
        breaker.wait(at(100));
        assert_eq!(breaker.ask(at(50)), Err(at(100)));
        assert_eq!(breaker.ask(at(100)), Ok(()));
    }
}
