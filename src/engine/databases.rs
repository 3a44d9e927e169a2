//! The database side that the program `dsv-engine` is built with.

use super::accounts::Accounts;
use crate::channel::frames::{
    Account, DatabaseClock, Failure, FailureClass, Group, Outcome, ProbeReport, Revocation, ServerLogin,
};
use crate::keys::SigningPublicKey;
use std::time::Duration;

/// No database side yet: every task on a database is refused, nothing is touched.
#[derive(Debug, Clone, Copy)]
pub struct NoDatabases;

fn refused() -> Failure {
    let message = "this build of the engine has no database side; install another build".to_owned();
    Failure {
        class: FailureClass::BadTask,
        sqlstate: None,
        message,
    }
}

impl Accounts for NoDatabases {
    async fn probe(&self, _: &ServerLogin) -> Result<(ProbeReport, DatabaseClock), Failure> {
        Err(refused())
    }

    async fn ensure_group(&self, _: &ServerLogin, _: &Group, _: Duration) -> Result<(), Failure> {
        Err(refused())
    }

    async fn issue(&self, _: &ServerLogin, _: &Group, _: &Account, _: Duration) -> Outcome {
        Outcome::Failed(refused())
    }

    async fn revoke(&self, _: &ServerLogin, _: &[SigningPublicKey], _: &[Revocation]) -> Outcome {
        Outcome::Failed(refused())
    }

    async fn drop_group(&self, _: &ServerLogin, _: &[SigningPublicKey], _: &Group) -> Outcome {
        Outcome::Failed(refused())
    }

    fn forget_idle(&self, _: Duration) {}
}
