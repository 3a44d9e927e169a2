//! Whether this process may act, answered at the moment of asking.

use super::{ACTING, Term};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// Whether this process leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Another one does, or nobody.
    Following,
    /// This one does.
    Leading(Term),
}

/// This process does not lead, or the term that was asked for is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this process does not lead any more; the work is left to the one that does")]
pub struct NotLeading;

/// When a request began, on two clocks.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    steady: Instant,
    wall: SystemTime,
}

impl Start {
    /// Now.
    pub fn now() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// What is left of a length of time that began here. The steady clock goes on while the process is stopped, but not
    /// while the machine sleeps; then the wall clock shows it. The wall clock alone could be set back.
    pub fn left(&self, of: Duration) -> Duration {
        let wall = self.wall.elapsed().unwrap_or_default();
        of.saturating_sub(self.steady.elapsed().max(wall))
    }
}

#[derive(Default)]
enum State {
    #[default]
    Following,
    Leading(Term, Start),
    /// Given up for good.
    Closed,
}

/// The term that is held, shared between the loop that renews it and everybody who acts under it.
pub struct Tenure {
    state: Mutex<State>,
    standing: watch::Sender<Standing>,
}

impl Tenure {
    /// Nothing is held.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            standing: watch::Sender::new(Standing::Following),
        })
    }

    /// Changes of the standing.
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Takes or renews the term, by a request that began at `start`. Has no effect once closed.
    pub fn lead(&self, term: &Term, start: Start) {
        self.change(|state| {
            if !matches!(state, State::Closed) {
                *state = State::Leading(term.clone(), start);
            }
        });
    }

    /// Stops acting.
    pub fn follow(&self) {
        self.change(|state| {
            if !matches!(state, State::Closed) {
                *state = State::Following;
            }
        });
    }

    /// Stops acting for good.
    pub fn close(&self) {
        self.change(|state| *state = State::Closed);
    }

    /// The term under which this process may act now, and for how long if nothing more is heard.
    pub fn acting(&self) -> Option<(Term, Duration)> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Leading(term, start) => {
                let left = start.left(ACTING);
                (!left.is_zero()).then(|| (term.clone(), left))
            }
            State::Following | State::Closed => None,
        }
    }

    /// Changes the state, then tells whoever watches.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        let standing = self
            .acting()
            .map_or(Standing::Following, |(term, _)| Standing::Leading(term));
        self.standing.send_if_modified(|told| {
            let news = *told != standing;
            *told = standing;
            news
        });
    }
}

/// Stops acting when the loop that renews ends, however it ends.
pub struct StopsActing(pub Arc<Tenure>);

impl Drop for StopsActing {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(number: i64) -> Term {
        Term {
            holder: "a".into(),
            number,
        }
    }

    fn ago(seconds: u64) -> Start {
        Start {
            steady: Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap(),
            wall: SystemTime::now() - Duration::from_secs(seconds),
        }
    }

    #[test]
    fn acting_ends_by_itself_although_nobody_says_so() {
        let tenure = Tenure::new();
        tenure.lead(&term(1), ago(5));
        assert_eq!(tenure.acting().unwrap().0, term(1));
        tenure.lead(&term(1), ago(6));
        assert_eq!(tenure.acting(), None);
    }

    #[test]
    fn a_machine_that_slept_does_not_act_on_waking() {
        let tenure = Tenure::new();
        let slept = Start {
            steady: Instant::now(),
            ..ago(60)
        };
        tenure.lead(&term(1), slept);
        assert_eq!(tenure.acting(), None);
        let set_back = Start {
            wall: SystemTime::now() + Duration::from_hours(1),
            ..ago(6)
        };
        tenure.lead(&term(1), set_back);
        assert_eq!(tenure.acting(), None, "a wall clock that was set back prolongs nothing");
    }

    #[test]
    fn nothing_is_taken_after_the_end() {
        let tenure = Tenure::new();
        let standing = tenure.watch();
        tenure.lead(&term(1), Start::now());
        assert_eq!(*standing.borrow(), Standing::Leading(term(1)));
        drop(StopsActing(tenure.clone()));
        assert_eq!(*standing.borrow(), Standing::Following);
        tenure.lead(&term(1), Start::now());
        assert_eq!(tenure.acting(), None);
        assert_eq!(*standing.borrow(), Standing::Following);
    }

    #[test]
    fn watchers_wake_for_news_only() {
        let tenure = Tenure::new();
        let mut standing = tenure.watch();
        tenure.lead(&term(1), Start::now());
        assert!(standing.has_changed().unwrap());
        standing.mark_unchanged();
        tenure.lead(&term(1), Start::now());
        assert!(!standing.has_changed().unwrap(), "a renewal is no news");
        tenure.follow();
        assert!(standing.has_changed().unwrap());
    }
}
