//! How many CREATE ROLE run at once on one server: enough to keep its cores busy, and no more, since each costs it 3 ms of
//! one core and the rest only queue there.
//!
//! A server does not tell its cores, and shares them with others. So it is told from how long the statements take, as TCP
//! Vegas tells from round trips how much it may have in flight: with `n` in flight that take `d` each where one alone takes
//! `f`, about `n * (1 - f / d)` of them wait. Two that wait keep the cores busy while others wait for the flush of their
//! commit; with less than that a core stands still now and then, and more than three only queue.
//!
//! No clock and no session here.

use std::time::Duration;

/// Fewest in flight: while the answer to one is under way, the server works on another.
pub(super) const LEAST: usize = 2;
/// Most in flight, and so most sessions for issuing: a server's connections are not ours alone.
pub(super) const MOST: usize = 8;
/// How many that wait in the server are too few, and too many.
const WAITING: (f64, f64) = (1.9, 3.0);
/// Samples of one look, for each in flight: enough that one slow flush does not decide.
const SAMPLES: u32 = 8;
/// After so many looks the best time is found anew, with the fewest in flight: a server that became slower for good is not
/// taken for a crowded one for ever, and one that is always crowded not for a slow one.
const LOOKS: u32 = 128;

/// What follows from one more sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// One more may be in flight.
    Wider,
    /// One less.
    Narrower,
    /// As before.
    Same,
}

/// How many may be in flight on one server.
#[derive(Debug)]
pub(super) struct Pace {
    width: usize,
    /// Seconds that the best took.
    fastest: f64,
    /// Seconds of the samples of this look, and how many there are.
    sum: f64,
    samples: u32,
    /// Of how many samples all places were taken.
    pressed: u32,
    /// Until the best time is found anew.
    looks: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            width: LEAST,
            fastest: f64::INFINITY,
            sum: 0.0,
            samples: 0,
            pressed: 0,
            looks: LOOKS,
        }
    }
}

impl Pace {
    /// How many may be in flight now.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Takes note of one that took so long; `pressed` says that all places are taken.
    pub(super) fn note(&mut self, took: Duration, pressed: bool) -> Change {
        if self.looks == 0 {
            if self.width > LEAST {
                self.width -= 1;
                return Change::Narrower;
            }
            *self = Self::default();
        }
        let took = took.as_secs_f64();
        self.fastest = self.fastest.min(took);
        self.sum += took;
        self.samples += 1;
        self.pressed += u32::from(pressed);
        let width = u32::try_from(self.width).unwrap_or(1);
        if self.samples < width * SAMPLES {
            return Change::Same;
        }
        let mean = self.sum / f64::from(self.samples);
        let waiting = f64::from(width) * (1.0 - self.fastest / mean.max(self.fastest));
        self.looks -= 1;
        // Mostly, and not always: of four who ask, one is on the way there or back.
        let pressed = 2 * self.pressed > self.samples;
        (self.sum, self.samples, self.pressed) = (0.0, 0, 0);
        if waiting > WAITING.1 && self.width > LEAST {
            self.width -= 1;
            return Change::Narrower;
        }
        // Where nobody waits for a place, one more would never be taken.
        if waiting < WAITING.0 && pressed && self.width < MOST {
            self.width += 1;
            return Change::Wider;
        }
        Change::Same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server of so many cores on which a statement takes 3 ms of one.
    fn settled(pace: &mut Pace, cores: u32, pressed: bool) -> usize {
        for _ in 0..2000 {
            let busy = u32::try_from(pace.width()).unwrap().max(cores);
            pace.note(Duration::from_millis(3) * busy / cores, pressed);
        }
        pace.width()
    }

    #[test]
    fn a_server_gets_as_many_as_it_has_cores_for() {
        // The time of one alone is never seen, so a single core is taken for two.
        assert_eq!(settled(&mut Pace::default(), 1, true), 4);
        assert_eq!(settled(&mut Pace::default(), 2, true), 4);
        assert_eq!(settled(&mut Pace::default(), 4, true), 6);
        assert_eq!(settled(&mut Pace::default(), 32, true), MOST);
    }

    #[test]
    fn without_anybody_who_waits_it_stays_narrow() {
        assert_eq!(settled(&mut Pace::default(), 32, false), LEAST);
    }

    #[test]
    fn a_server_that_others_load_gets_fewer_again() {
        let mut pace = Pace::default();
        assert_eq!(settled(&mut pace, 32, true), MOST);
        let mut narrowest = MOST;
        for _ in 0..400 {
            pace.note(Duration::from_millis(9), true);
            narrowest = narrowest.min(pace.width());
        }
        assert!(narrowest <= LEAST + 2, "{narrowest} are still in flight");
    }

    #[test]
    fn a_server_that_became_slower_for_good_is_not_narrow_for_ever() {
        let mut pace = Pace::default();
        settled(&mut pace, 32, true);
        let widest = (0..20_000).map(|_| {
            pace.note(Duration::from_millis(9), true);
            pace.width()
        });
        assert_eq!(widest.skip(10_000).max(), Some(MOST));
    }

    #[test]
    fn a_server_that_is_always_crowded_is_not_crowded_more_and_more() {
        let mut pace = Pace::default();
        for _ in 0..50 {
            assert!(settled(&mut pace, 2, true) <= 4);
        }
    }
}
