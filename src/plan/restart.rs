//! Restarting workloads for a credential: which are to be restarted, which are rolled out, and whether the account that the
//! credential replaced may still be in use.
//!
//! A restart is an annotation on the pod template with the name of the credential's lease. To write it again changes nothing,
//! so it does not matter who crashed when.

use crate::api::conditions::Reason;
use crate::api::target::WorkloadReference;
use jiff::Timestamp;

/// What is asked of every workload.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The current credential: the name of its lease.
    pub revision: &'a str,
    /// When it was delivered.
    pub delivered_at: Timestamp,
    /// No credential was delivered before it.
    pub first: bool,
}

/// A workload, as a look at the API server found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// There is none of this name.
    Missing,
    /// The operator may not look at it or change it; what the API server said.
    Forbidden(String),
    /// The API server did not say.
    Unknown,
    /// There it is.
    Seen(Workload),
}

/// What matters of a workload.
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent observations, each true or not"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// It is annotated as one that may be restarted.
    pub allowed: bool,
    /// Rollouts are paused (Deployment).
    pub paused: bool,
    /// Pods are replaced only when somebody deletes them (StatefulSet, `DaemonSet`), or some of them never (a partition).
    pub by_hand: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// For which credential it was restarted last.
    pub restarted_for: Option<String>,
    /// Its controller has seen the present template.
    pub observed: bool,
    /// Pods that it is to have.
    pub wanted: i64,
    /// Pods that it has, old ones among them.
    pub present: i64,
    /// Pods with the present template.
    pub updated: i64,
    /// Pods that are ready.
    pub ready: i64,
    /// Pods that have been ready for long enough.
    pub available: i64,
}

impl Workload {
    fn rolled_out(&self) -> bool {
        self.observed && self.updated >= self.wanted && self.present <= self.updated && self.available >= self.wanted
    }
}

/// What is known, or to be done, of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// To be restarted now.
    Due,
    /// It was restarted this moment.
    Restarted,
    /// Its pods are being replaced: so many new ones of so many.
    RollingOut(i64, i64),
    /// All of its pods started with the credential.
    Complete,
    /// It does not exist.
    Missing,
    /// It does not allow a restart.
    NotAllowed,
    /// It was stopped by somebody.
    Paused,
    /// Its pods are replaced by hand only.
    ByHand,
    /// The operator may not.
    Forbidden(String),
    /// The API server did not say.
    Unknown,
}

impl State {
    /// Whether pods may still use the replaced credential. A workload that does not exist has none.
    pub fn holds(&self) -> bool {
        !matches!(self, Self::Complete | Self::Missing)
    }
}

/// How it stands with one workload. `recorded`: the books say that it was restarted for this credential, whatever its
/// template says now: each is restarted once, also if somebody rolls it back.
pub fn judge(look: &Look, asked: &Asked<'_>, recorded: bool) -> State {
    let seen = match look {
        Look::Missing => return State::Missing,
        Look::Forbidden(why) => return State::Forbidden(why.clone()),
        Look::Unknown => return State::Unknown,
        Look::Seen(seen) => seen,
    };
    let of = seen.restarted_for.as_deref();
    let restarted = recorded || of == Some(asked.revision);
    if !restarted {
        // Our view is older than what another look has led to already.
        if of.is_some_and(|of| is_later(of, asked.revision)) {
            return State::Unknown;
        }
        // Pods that wait for their first Secret are not ready, and start with it; so do those of a younger workload.
        if seen.created_at > asked.delivered_at || (asked.first && seen.ready == 0) {
            return State::Complete;
        }
        if !seen.allowed {
            return State::NotAllowed;
        }
    }
    if seen.paused {
        return State::Paused;
    }
    if seen.by_hand && !(restarted && seen.rolled_out()) {
        return State::ByHand;
    }
    if !restarted {
        return State::Due;
    }
    if seen.rolled_out() {
        State::Complete
    } else {
        State::RollingOut(seen.updated, seen.wanted)
    }
}

/// Whether a credential is a later one of the same dynamic secret: the names of its leases end in their serial.
fn is_later(one: &str, other: &str) -> bool {
    let (Some((stem, one)), Some((same, other))) = (one.rsplit_once('-'), other.rsplit_once('-')) else {
        return false;
    };
    let serial = |text: &str| text.parse::<i64>().ok();
    stem == same && serial(one) > serial(other)
}

/// What is to be told of all of them: the one that needs somebody's hand first.
pub fn tell(all: &[(WorkloadReference, State)]) -> (Reason, String) {
    let told = all.iter().filter_map(|(workload, state)| {
        let (rank, reason, what) = word(state)?;
        let name = format!("{} {}", workload.kind.as_str(), workload.name);
        Some((rank, reason, what.replace("IT", &name)))
    });
    let mut told: Vec<_> = told.collect();
    told.sort_by_key(|(rank, ..)| *rank);
    let Some((_, reason, _)) = told.first() else {
        return (
            Reason::RolledOut,
            "every workload runs with the current credential".to_owned(),
        );
    };
    let sentences: Vec<&str> = told.iter().map(|(_, _, what)| what.as_str()).collect();
    (*reason, sentences.join("; "))
}

fn word(state: &State) -> Option<(u8, Reason, String)> {
    let (rank, reason, what) = match state {
        State::Complete => return None,
        State::Forbidden(why) => {
            let what = format!(
                "IT cannot be restarted: {why}. Have the operator installed with restarts.enabled=true, or apply \
                 config/rbac/optional/restarts.yaml"
            );
            return Some((0, Reason::RestartForbidden, what));
        }
        State::NotAllowed => (
            1,
            Reason::RestartNotAllowed,
            "IT does not allow restarts; annotate it with dsv.dev/restart=allowed",
        ),
        State::ByHand => (
            2,
            Reason::RestartPaused,
            "IT replaces its pods only by hand (OnDelete, or a partition); delete the old ones",
        ),
        State::Paused => (
            2,
            Reason::RestartPaused,
            "IT is paused; it is restarted when it is resumed",
        ),
        State::Missing => (
            3,
            Reason::WorkloadMissing,
            "IT does not exist; create it, or take it out of spec.target.restart",
        ),
        State::Unknown => (
            4,
            Reason::RollingOut,
            "IT could not be looked at; it is looked at again",
        ),
        State::Due | State::Restarted => (5, Reason::RollingOut, "IT is restarted"),
        State::RollingOut(done, wanted) => {
            let what = format!("IT is rolled out: {done} of {wanted} pods are new, and not all is ready yet");
            return Some((6, Reason::RollingOut, what));
        }
    };
    Some((rank, reason, what.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::target::WorkloadKind;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const ASKED: Asked<'_> = Asked {
        revision: "app-abcde-2",
        delivered_at: Timestamp::UNIX_EPOCH,
        first: false,
    };

    /// Made before the credential, three pods, restarted for the one before.
    fn workload() -> Workload {
        Workload {
            allowed: true,
            paused: false,
            by_hand: false,
            created_at: at(-100),
            restarted_for: Some("app-abcde-1".into()),
            observed: true,
            wanted: 3,
            present: 3,
            updated: 3,
            ready: 3,
            available: 3,
        }
    }

    fn judged(change: impl FnOnce(&mut Workload)) -> State {
        let mut workload = workload();
        change(&mut workload);
        judge(&Look::Seen(workload), &ASKED, false)
    }

    #[test]
    fn a_workload_is_restarted_once_for_each_credential() {
        assert_eq!(judged(|_| ()), State::Due);
        assert_eq!(judged(|w| w.restarted_for = None), State::Due);
        assert_eq!(
            judged(|w| w.restarted_for = Some("app-abcde-2".into())),
            State::Complete
        );
        let rolled_back = Look::Seen(workload());
        assert_eq!(
            judge(&rolled_back, &ASKED, true),
            State::Complete,
            "who rolled the template back is not fought"
        );
    }

    #[test]
    fn an_old_view_undoes_no_later_restart() {
        let of = |name: &str| judged(|w| w.restarted_for = Some(name.into()));
        assert_eq!(of("app-abcde-10"), State::Unknown);
        assert_eq!(of("app-vwxyz-10"), State::Due, "of one that was deleted and made again");
        assert_eq!(of("something"), State::Due);
    }

    #[test]
    fn a_rollout_is_complete_when_no_old_pod_is_left_and_all_new_ones_are_available() {
        let restarted = |change: fn(&mut Workload)| {
            judged(|w| {
                w.restarted_for = Some("app-abcde-2".into());
                change(w);
            })
        };
        assert_eq!(restarted(|w| w.observed = false), State::RollingOut(3, 3));
        assert_eq!(restarted(|w| w.updated = 1), State::RollingOut(1, 3));
        assert_eq!(restarted(|w| w.available = 2), State::RollingOut(3, 3));
        assert_eq!(
            restarted(|w| w.present = 4),
            State::RollingOut(3, 3),
            "an old pod is left"
        );
        let none = |w: &mut Workload| (w.wanted, w.present, w.updated, w.ready, w.available) = (0, 0, 0, 0, 0);
        assert_eq!(restarted(none), State::Complete, "scaled to nothing");
    }

    #[test]
    fn what_starts_with_the_credential_needs_no_restart() {
        assert_eq!(judged(|w| w.created_at = at(1)), State::Complete);
        let first = Asked { first: true, ..ASKED };
        let waiting = Workload {
            ready: 0,
            available: 0,
            restarted_for: None,
            allowed: false,
            ..workload()
        };
        assert_eq!(judge(&Look::Seen(waiting.clone()), &first, false), State::Complete);
        let running = Workload {
            ready: 1,
            allowed: true,
            ..waiting.clone()
        };
        assert_eq!(judge(&Look::Seen(running), &first, false), State::Due);
        let later = judge(
            &Look::Seen(Workload {
                allowed: true,
                ..waiting
            }),
            &ASKED,
            false,
        );
        assert_eq!(later, State::Due, "not ready for another reason");
    }

    #[test]
    fn what_cannot_be_restarted_is_told_and_not_fought() {
        assert_eq!(judged(|w| w.allowed = false), State::NotAllowed);
        assert_eq!(judged(|w| w.paused = true), State::Paused);
        assert_eq!(judged(|w| w.by_hand = true), State::ByHand);
        assert_eq!(judge(&Look::Missing, &ASKED, true), State::Missing);
        assert_eq!(judge(&Look::Unknown, &ASKED, true), State::Unknown);
        let stopped = judged(|w| {
            w.restarted_for = Some("app-abcde-2".into());
            w.paused = true;
            w.updated = 1;
        });
        assert_eq!(stopped, State::Paused, "paused in the middle");
        let by_hand = judged(|w| {
            w.restarted_for = Some("app-abcde-2".into());
            w.by_hand = true;
        });
        assert_eq!(by_hand, State::Complete, "somebody deleted the old pods");
    }

    #[test]
    fn only_what_is_complete_or_absent_lets_the_replaced_account_go() {
        let holds = |state: State| state.holds();
        assert!(!holds(State::Complete) && !holds(State::Missing));
        for state in [
            State::Due,
            State::Restarted,
            State::RollingOut(0, 1),
            State::NotAllowed,
            State::Paused,
            State::ByHand,
            State::Forbidden(String::new()),
            State::Unknown,
        ] {
            assert!(holds(state.clone()), "{state:?}");
        }
    }

    #[test]
    fn who_needs_somebodys_hand_is_told_first() {
        let workload = |name: &str| WorkloadReference {
            kind: WorkloadKind::Deployment,
            name: name.into(),
        };
        let (reason, message) = tell(&[
            (workload("a"), State::RollingOut(1, 2)),
            (workload("b"), State::Complete),
            (workload("c"), State::NotAllowed),
        ]);
        assert_eq!(reason, Reason::RestartNotAllowed);
        assert_eq!(
            message,
            "Deployment c does not allow restarts; annotate it with dsv.dev/restart=allowed; Deployment a is rolled out: 1 of \
             2 pods are new, and not all is ready yet"
        );
        assert_eq!(tell(&[(workload("b"), State::Complete)]).0, Reason::RolledOut);
    }
}
