//! What a server's refusals mean, in classes that decide what happens next and sentences for whoever must act.

use crate::channel::frames::{Failure, FailureClass, Outcome};
use tokio_postgres::error::{DbError, Severity, SqlState};

/// Why a statement gave no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The server refused it and rolled it back.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The connection was lost, or the answer did not come in time: it may have happened, or may still happen.
    #[error("{0}")]
    Lost(String),
}

impl Trouble {
    /// PostgreSQL's code, where the server refused.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(failure) => failure.sqlstate.as_deref(),
            Self::Lost(_) => None,
        }
    }

    pub(super) fn is(&self, code: &SqlState) -> bool {
        self.code() == Some(code.code())
    }

    /// Whether the same statement may succeed a moment later.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Refused(failure) if failure.class == FailureClass::Busy)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

impl From<Trouble> for Outcome {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(failure) => Self::Failed(failure),
            Trouble::Lost(message) => Self::Unknown { message },
        }
    }
}

/// For tasks whose every step may be repeated, a lost answer is only a failure to get there.
impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(failure) => failure,
            Trouble::Lost(message) => failure(FailureClass::Unreachable, message),
        }
    }
}

pub(super) fn failure(class: FailureClass, message: impl Into<String>) -> Failure {
    Failure {
        class,
        sqlstate: None,
        message: message.into(),
    }
}

/// Judges the error of a statement that was sent. `doing` is a clause such as "create the account".
pub(super) fn from_statement(doing: &str, error: &tokio_postgres::Error) -> Trouble {
    match error.as_db_error() {
        // The session ended with the answer; whether the statement had committed by then cannot be told.
        Some(said) if matches!(said.parsed_severity(), Some(Severity::Fatal | Severity::Panic)) => {
            Trouble::Lost(format!(
                "to {doing} was sent, then the server ended the session: {}",
                said.message()
            ))
        }
        Some(said) => Trouble::Refused(Failure {
            class: class_of(said),
            sqlstate: Some(said.code().code().to_owned()),
            message: format!("could not {doing}: the server says: {}", sentence_of(said)),
        }),
        None => Trouble::Lost(format!(
            "to {doing} was sent, then the connection was lost before an answer came ({})",
            chain(error)
        )),
    }
}

/// Most characters of a server's detail that are passed on: it may list a hundred objects, and frames are small.
const DETAIL: usize = 300;

/// The server's message with its detail, which often names the object.
pub(super) fn sentence_of(said: &DbError) -> String {
    match said.detail() {
        Some(detail) => format!(
            "{} ({})",
            said.message(),
            shortened(&detail.replace('\n', ", "), DETAIL)
        ),
        None => said.message().to_owned(),
    }
}

/// The text, or its beginning and an ellipsis.
pub(super) fn shortened(text: &str, longest: usize) -> String {
    let mut short: String = text.chars().take(longest).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// An error with everything below it, for causes that have no variant of their own.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        below = cause.source();
    }
    text
}

pub(super) fn class_of(said: &DbError) -> FailureClass {
    let code = said.code();
    match code.code() {
        "42501" => FailureClass::MissingPrivilege,
        "25006" => FailureClass::ReadOnly,
        "40001" | "40P01" | "55P03" | "57014" => FailureClass::Busy,
        // An elog, so never translated: two GRANTs or role changes met on one catalog row. Rolled back.
        "XX000" if said.message().starts_with("tuple concurrently") => FailureClass::Busy,
        "57P01" | "57P02" | "57P03" => FailureClass::Unreachable,
        "3D000" | "3F000" | "42P01" | "42883" => FailureClass::ObjectMissing,
        // A reserved name, or one that is none.
        "42939" | "42602" | "42622" => FailureClass::BadTask,
        other if other.starts_with("53") => FailureClass::Busy,
        other if other.starts_with("28") => FailureClass::LoginRefused,
        other if other.starts_with("08") => FailureClass::Unreachable,
        _ => FailureClass::Server,
    }
}
