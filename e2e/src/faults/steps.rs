//! The steps of a credential's life, and the places in the programs at which a fault can strike each of them.

/// A column of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Prepare,
    Make,
    Issue,
    Deliver,
    Report,
    Rotate,
    Expire,
    Revoke,
    Release,
    /// The whole of it, where a fault is a story of its own.
    Life,
}

impl Step {
    pub const ALL: [Self; 10] = [
        Self::Prepare,
        Self::Make,
        Self::Issue,
        Self::Deliver,
        Self::Report,
        Self::Rotate,
        Self::Expire,
        Self::Revoke,
        Self::Release,
        Self::Life,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Make => "make",
            Self::Issue => "issue",
            Self::Deliver => "deliver",
            Self::Report => "report",
            Self::Rotate => "rotate",
            Self::Expire => "expire",
            Self::Revoke => "revoke",
            Self::Release => "release",
            Self::Life => "life",
        }
    }
}

/// What a user does, or what time does, that leads to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// A dynamic secret is created.
    Ask,
    /// Another credential is asked for.
    Rotate,
    /// A credential's time is over.
    Expire,
    /// A dynamic secret with a live credential is deleted.
    Delete,
}

/// Where a fault strikes.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub step: Step,
    /// Name of the failpoint.
    pub point: &'static str,
    pub story: Story,
}

impl Place {
    /// Whether the others must wait until this one is reached: a group is made by whoever asks first, and revocations that
    /// come together are one task.
    pub fn comes_alone(&self) -> bool {
        self.point.contains("ensureGroup") || self.point.contains("revoke")
    }
}

const fn place(step: Step, point: &'static str, story: Story) -> Place {
    Place { step, point, story }
}

/// Before and after each effect, in the order in which they are led up to.
pub const PLACES: [Place; 29] = [
    place(Step::Prepare, "engine.ensureGroup.done", Story::Ask),
    place(Step::Prepare, "prepare.recorded", Story::Ask),
    place(Step::Prepare, "prepare.grouped", Story::Ask),
    place(Step::Make, "make.before", Story::Ask),
    place(Step::Make, "make.posted", Story::Ask),
    place(Step::Issue, "issue.before", Story::Ask),
    place(Step::Issue, "engine.issue.before", Story::Ask),
    place(Step::Issue, "engine.issue.done", Story::Ask),
    place(Step::Issue, "issue.answered", Story::Ask),
    place(Step::Deliver, "deliver.before", Story::Ask),
    place(Step::Deliver, "deliver.written", Story::Ask),
    place(Step::Report, "report.before", Story::Ask),
    place(Step::Report, "report.written", Story::Ask),
    place(Step::Rotate, "make.posted@2", Story::Rotate),
    place(Step::Rotate, "engine.issue.done@2", Story::Rotate),
    place(Step::Rotate, "deliver.before@2", Story::Rotate),
    place(Step::Rotate, "deliver.written@2", Story::Rotate),
    place(Step::Revoke, "revoke.answered", Story::Delete),
    place(Step::Revoke, "engine.revoke.done", Story::Delete),
    place(Step::Revoke, "engine.revoke.before", Story::Delete),
    place(Step::Revoke, "revoke.before", Story::Delete),
    place(Step::Release, "end.before", Story::Expire),
    place(Step::Release, "end.recorded", Story::Expire),
    place(Step::Release, "close.deleted", Story::Expire),
    place(Step::Release, "release.before", Story::Expire),
    place(Step::Release, "release.done", Story::Expire),
    place(Step::Expire, "expire.before", Story::Expire),
    place(Step::Expire, "expire.deleted", Story::Expire),
    place(Step::Expire, "close.before", Story::Expire),
];
