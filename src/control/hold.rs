//! Why something does not go on: as a value, since waiting is not an error.

use crate::api::conditions::Reason;
use crate::channel::frames::{Failure, FailureClass};
use crate::cluster;
use crate::cluster::leadership::NotLeading;

/// Why nothing is issued (or taken back) for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The word.
    pub reason: Reason,
    /// The sentence, with the next step.
    pub message: String,
}

impl Hold {
    /// A reason with its sentence.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

impl From<&Failure> for Hold {
    fn from(failure: &Failure) -> Self {
        let reason = match failure.class {
            FailureClass::Unreachable => Reason::DatabaseUnreachable,
            FailureClass::LoginRefused => Reason::LoginRefused,
            FailureClass::TlsRefused => Reason::TlsRefused,
            FailureClass::MissingPrivilege => Reason::MissingPrivilege,
            FailureClass::ObjectMissing => Reason::ObjectMissing,
            FailureClass::GrantIncomplete => Reason::GrantIncomplete,
            FailureClass::TooLate => Reason::NotDelivered,
            FailureClass::Foreign => Reason::ForeignRole,
            FailureClass::ReadOnly => Reason::DatabaseReadOnly,
            FailureClass::Busy => Reason::DatabaseBusy,
            FailureClass::BadTask => Reason::InvalidSpec,
            FailureClass::Server | FailureClass::Other => Reason::DatabaseError,
        };
        Self::new(reason, failure.message.clone())
    }
}

/// What ends a pass before its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// Another operator leads now; whatever is left is its work.
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
    /// A role comment could not be signed.
    #[error("could not sign a role comment")]
    Comment(#[from] crate::keys::CommentError),
}

/// Either a hold or an error: what a preparation ends with if it does not succeed.
#[derive(Debug)]
pub enum Halt {
    /// Waiting or refused.
    Hold(Hold),
    /// A surprise.
    Error(Error),
}

impl<E: Into<Error>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl From<Hold> for Halt {
    fn from(hold: Hold) -> Self {
        Self::Hold(hold)
    }
}
