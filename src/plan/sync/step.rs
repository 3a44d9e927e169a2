//! The next step of a sync, from what the source makes, what the tenant has and what is on the books.

use crate::api::secret_sync::PushIntent;

/// What a tenant has at the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum There {
    /// Nothing.
    Absent,
    /// Something, with its keyed hash and version.
    Is {
        /// Keyed hash.
        hash: String,
        /// Version.
        version: String,
    },
    /// Something that is softly deleted.
    Marked,
    /// The login may not read it.
    Unreadable,
}

impl There {
    /// The version, where it is known.
    pub fn version(&self) -> Option<&str> {
        match self {
            Self::Is { version, .. } => Some(version),
            _ => None,
        }
    }
}

/// Everything that decides.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Keyed hash of what the source makes.
    pub wanted: &'a str,
    /// What the tenant has.
    pub there: &'a There,
    /// Keyed hash of what was pushed to this path last.
    pub last: Option<&'a str>,
    /// A push to this path that was begun.
    pub intent: Option<&'a PushIntent>,
    /// Whether somebody asked for a push.
    pub is_asked: bool,
    /// Whether what differs is overwritten.
    pub overwrites: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The tenant has it already.
    Keep,
    /// The same, and it is the push that was begun.
    Finished,
    /// Make it.
    Create,
    /// Write it.
    Update,
    /// Write it or make it: nobody may look.
    Blind,
    /// Restore it, then write it.
    Revive,
    /// Leave it and tell.
    Differs(Difference),
}

/// How the tenant differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Something is there that this sync never wrote.
    Taken,
    /// It was changed there.
    Changed,
    /// It was deleted there.
    Deleted,
}

/// The next step.
pub fn next(seen: &Seen<'_>) -> Step {
    let unchanged = seen.last == Some(seen.wanted);
    let may_write = seen.is_asked || seen.overwrites;
    match seen.there {
        There::Is { hash, version } if hash == seen.wanted => {
            let begun = seen.intent.filter(|intent| intent.hash == *hash);
            match begun {
                Some(intent) if intent.before.as_deref() != Some(version.as_str()) => Step::Finished,
                _ if seen.is_asked => Step::Update,
                _ => Step::Keep,
            }
        }
        There::Is { hash, .. } => {
            let ours = seen.last == Some(hash) || seen.intent.is_some_and(|intent| intent.hash == *hash);
            match seen.last {
                _ if ours || may_write => Step::Update,
                // What the source says now goes over what somebody wrote there once: the source is the truth.
                Some(_) if !unchanged => Step::Update,
                Some(_) => Step::Differs(Difference::Changed),
                None => Step::Differs(Difference::Taken),
            }
        }
        There::Absent if unchanged && !may_write && seen.intent.is_none() => Step::Differs(Difference::Deleted),
        There::Absent => Step::Create,
        There::Marked if may_write || (seen.last.is_some() && !unchanged) => Step::Revive,
        There::Marked => Step::Differs(if seen.last.is_some() {
            Difference::Deleted
        } else {
            Difference::Taken
        }),
        There::Unreadable if unchanged && !seen.is_asked && seen.intent.is_none() => Step::Keep,
        There::Unreadable => Step::Blind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn is(hash: &str, version: &str) -> There {
        There::Is {
            hash: hash.into(),
            version: version.into(),
        }
    }

    fn intent(hash: &str, before: Option<&str>) -> PushIntent {
        PushIntent {
            path: "a:b".into(),
            hash: hash.into(),
            before: before.map(str::to_owned),
            since: Time(jiff::Timestamp::UNIX_EPOCH),
        }
    }

    fn step(there: &There, last: Option<&str>, intent: Option<&PushIntent>, asked: bool, overwrites: bool) -> Step {
        next(&Seen {
            wanted: "new",
            there,
            last,
            intent,
            is_asked: asked,
            overwrites,
        })
    }

    #[test]
    fn what_is_pushed_when() {
        let (same, old, foreign) = (is("new", "3"), is("old", "3"), is("foreign", "3"));
        let table = [
            (&There::Absent, None, false, false, Step::Create),
            (&There::Absent, Some("old"), false, false, Step::Create),
            (
                &There::Absent,
                Some("new"),
                false,
                false,
                Step::Differs(Difference::Deleted),
            ),
            (&There::Absent, Some("new"), false, true, Step::Create),
            (&There::Absent, Some("new"), true, false, Step::Create),
            (&same, None, false, false, Step::Keep),
            (&same, Some("new"), false, false, Step::Keep),
            (&same, Some("new"), true, false, Step::Update),
            (&old, Some("old"), false, false, Step::Update),
            (&foreign, Some("old"), false, false, Step::Update),
            (&foreign, Some("new"), false, false, Step::Differs(Difference::Changed)),
            (&foreign, Some("new"), false, true, Step::Update),
            (&foreign, Some("new"), true, false, Step::Update),
            (&foreign, None, false, false, Step::Differs(Difference::Taken)),
            (&foreign, None, true, false, Step::Update),
            (
                &There::Marked,
                Some("new"),
                false,
                false,
                Step::Differs(Difference::Deleted),
            ),
            (&There::Marked, None, false, false, Step::Differs(Difference::Taken)),
            (&There::Marked, Some("old"), false, false, Step::Revive),
            (&There::Marked, Some("new"), false, true, Step::Revive),
            (&There::Unreadable, Some("new"), false, false, Step::Keep),
            (&There::Unreadable, Some("old"), false, false, Step::Blind),
            (&There::Unreadable, None, false, false, Step::Blind),
        ];
        for (there, last, asked, overwrites, expected) in table {
            let found = step(there, last, None, asked, overwrites);
            assert_eq!(found, expected, "{there:?} {last:?} {asked} {overwrites}");
        }
    }

    #[test]
    fn after_a_crash_nothing_is_pushed_twice_and_nothing_is_lost() {
        // The push of a change came through, or it did not.
        let begun = intent("new", Some("2"));
        assert_eq!(
            step(&is("new", "3"), Some("old"), Some(&begun), false, false),
            Step::Finished
        );
        assert_eq!(
            step(&is("old", "2"), Some("old"), Some(&begun), false, false),
            Step::Update
        );
        // A first push.
        let first = intent("new", None);
        assert_eq!(step(&is("new", "0"), None, Some(&first), false, false), Step::Finished);
        assert_eq!(step(&There::Absent, None, Some(&first), false, false), Step::Create);
        // A push that was asked for, of what is there already: only the version tells.
        assert_eq!(
            step(&is("new", "3"), Some("new"), Some(&begun), true, false),
            Step::Finished
        );
        assert_eq!(
            step(&is("new", "2"), Some("new"), Some(&begun), true, false),
            Step::Update
        );
        // The source changed once more since.
        assert_eq!(
            step(
                &is("between", "3"),
                Some("old"),
                Some(&intent("between", Some("2"))),
                false,
                false
            ),
            Step::Update
        );
        assert_eq!(
            step(&There::Unreadable, Some("old"), Some(&begun), false, false),
            Step::Blind
        );
    }
}
