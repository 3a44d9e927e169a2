//! Everything that talks to the API server: reading, claiming, writing with preconditions, leadership, Events.
//!
//! No business rules: what to do is decided in `plan`, when to do it in `control`.

pub mod credential_secret;
pub mod installation;
pub mod leader_pod;
pub mod leadership;
pub mod numbers;
pub mod objects;
pub mod owner;
mod parts;
pub mod review;
pub mod rights;
pub mod server_record;
pub mod signing_keys;
pub mod status;
pub mod watched;
pub mod workload;

pub use parts::Parts;

/// A call to the API server that failed: what was intended, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("{intention}")]
pub struct Error {
    /// What was intended, such as `read secret databases/orders-db`.
    pub intention: String,
    /// The client's error. Boxed since it is large.
    #[source]
    pub source: Box<kube::Error>,
}

impl Error {
    /// The status that the API server answered with, if it answered.
    pub fn status(&self) -> Option<&kube::core::Status> {
        match self.source.as_ref() {
            kube::Error::Api(status) => Some(status),
            _ => None,
        }
    }

    /// The object is not there.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_not_found)
    }

    /// The API server does not know the kind: its definition is not installed. That is no word about the object; an API server
    /// that is starting answers so too.
    pub fn is_not_served(&self) -> bool {
        self.status().is_some_and(|s| s.code == 404 && !s.is_not_found())
    }

    /// Somebody else wrote in between, or the object exists already.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|s| s.code == 409)
    }

    /// The API server understood and said no: the same again would be refused again.
    pub fn is_refused(&self) -> bool {
        self.status().is_some_and(|s| matches!(s.code, 400 | 403 | 422))
    }

    /// Nobody knows whether it happened: no answer, or one that says nothing about the effect.
    pub fn is_unknown(&self) -> bool {
        self.status().is_none_or(|s| s.code >= 500)
    }
}

/// Puts the intention on a client error.
pub trait Intention<T> {
    /// `to` completes "could not ...".
    fn to(self, intention: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Intention<T> for Result<T, kube::Error> {
    fn to(self, intention: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error {
            intention: intention(),
            source: Box::new(source),
        })
    }
}
