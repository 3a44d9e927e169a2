//! From a task to the call that does it.

use super::accounts::Accounts;
use super::metrics::EngineMetrics;
use super::proven::ProvenGroups;
use crate::channel::frames::{DatabaseClock, Done, Failure, FailureClass, MAX_REVOKE_BATCH, Outcome, Task};
use crate::channel::link::Tasks;
use crate::postgres::Signers;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The last line of defence against a database call without an end, which would hold one of the engine's few slots for
/// ever. The calls have limits of their own, far below this.
const BEYOND_PATIENCE: Duration = Duration::from_mins(5);

const NOTED: Outcome = Outcome::Done {
    done: Done::Noted,
    clock: None,
};

/// Gives tasks to the database side.
#[derive(Debug)]
pub struct Dispatcher<A> {
    accounts: Arc<A>,
    metrics: EngineMetrics,
    proven: ProvenGroups,
}

impl<A: Accounts> Dispatcher<A> {
    /// Tasks go to `accounts` and are counted in `metrics`.
    pub fn new(accounts: Arc<A>, metrics: EngineMetrics) -> Self {
        Self {
            accounts,
            metrics,
            proven: ProvenGroups::default(),
        }
    }

    async fn done(&self, task: &Task, patience: Duration) -> Outcome {
        match task {
            Task::Echo => plain(Done::Echo),
            Task::Probe { server } => seen(self.accounts.probe(server).await, Done::Probe),
            Task::EnsureGroup { server, group } => {
                let ensured = self.accounts.ensure_group(server, group, patience).await;
                ensured.map_or_else(Outcome::Failed, |()| plain(Done::GroupReady))
            }
            Task::Issue { server, group, account } => {
                // Before there is an account: from its first moment on somebody is there to take it back.
                if let Some(signers) = self.proven.signers(group) {
                    self.accounts.guard(server, &signers);
                }
                self.accounts.issue(server, group, account, patience).await
            }
            Task::Revoke { accounts, .. } if accounts.len() > MAX_REVOKE_BATCH => {
                Outcome::Failed(bad_task(format!("a task revokes at most {MAX_REVOKE_BATCH} accounts")))
            }
            Task::Revoke {
                server,
                installation,
                signers,
                accounts,
                keepers,
            } => match read(installation, signers) {
                Ok(signers) => self.accounts.revoke(server, &signers, accounts, keepers).await,
                Err(failure) => Outcome::Failed(failure),
            },
            Task::DropGroup {
                server,
                installation,
                signers,
                group,
                keepers,
            } => match read(installation, signers) {
                Ok(signers) => self.accounts.drop_group(server, &signers, group, keepers).await,
                Err(failure) => Outcome::Failed(failure),
            },
            Task::Inventory { server, after } => {
                seen(self.accounts.inventory(server, *after, patience).await, Done::Inventory)
            }
            Task::Sessions { server, role } => {
                let count = self.accounts.sessions(server, role, patience).await;
                seen(count, |count| Done::Sessions { count })
            }
            Task::Guard {
                server,
                installation,
                signers,
            } => read(installation, signers).map_or_else(Outcome::Failed, |signers| {
                self.accounts.guard(server, &signers);
                NOTED
            }),
            Task::Forget { except } => {
                self.accounts.forget_except(except);
                NOTED
            }
            Task::Unknown => Outcome::Unsupported,
        }
    }
}

fn plain(done: Done) -> Outcome {
    Outcome::Done { done, clock: None }
}

/// What was seen of a server, with its clock.
fn seen<T>(looked: Result<(T, DatabaseClock), Failure>, done: impl FnOnce(T) -> Done) -> Outcome {
    match looked {
        Ok((seen, clock)) => Outcome::Done {
            done: done(seen),
            clock: Some(clock),
        },
        Err(failure) => Outcome::Failed(failure),
    }
}

impl<A: Accounts> Tasks for Dispatcher<A> {
    async fn run(&self, task: Task, patience: Duration) -> Outcome {
        failpoint!(format!("engine.{}.before", task.kind()), subject(&task));
        let doing = self.done(&task, patience);
        let outcome = timeout(patience.saturating_add(BEYOND_PATIENCE), doing)
            .await
            .unwrap_or_else(|_| {
                tracing::error!(kind = task.kind(), "a task did not end and was given up");
                Outcome::Unknown {
                    message: "the engine gave up waiting for the database".to_owned(),
                }
            });
        if let Outcome::Failed(Failure {
            class,
            sqlstate,
            message,
        }) = &outcome
        {
            tracing::info!(kind = task.kind(), ?class, sqlstate, message, "a task failed");
        }
        failpoint!(format!("engine.{}.done", task.kind()), subject(&task));
        self.metrics.task(&task, &outcome);
        outcome
    }
}

/// Whom a task is about, for the fault tests.
#[cfg(feature = "failpoints")]
fn subject(task: &Task) -> String {
    match task {
        Task::Issue { account, .. } => account.role.clone(),
        Task::Revoke { accounts, .. } => accounts.iter().map(|a| a.role.as_str()).collect::<Vec<_>>().join(" "),
        Task::EnsureGroup { group, .. } | Task::DropGroup { group, .. } => group.name.clone(),
        _ => String::new(),
    }
}

fn read(installation: &str, signers: &[String]) -> Result<Signers, Failure> {
    let read = Signers::parse(installation, signers);
    read.map_err(|error| bad_task(format!("the task lists a signing key that is none: {error}")))
}

fn bad_task(message: String) -> Failure {
    Failure {
        class: FailureClass::BadTask,
        sqlstate: None,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::{Accounts, Dispatcher, EngineMetrics, Failure, FailureClass, Outcome, Signers, Task, Tasks};
    use crate::channel::frames::{
        Account, AccountSettings, DatabaseClock, Done, Group, InventoryPage, Keeper, OwnedObjects, ProbeReport,
        Revocation, ServerLogin, SslMode,
    };
    use crate::keys::{SecretText, SigningKey};
    use crate::postgres::Swept;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// Writes down what it is asked to do.
    #[derive(Default)]
    struct Books(Mutex<Vec<String>>);

    impl Books {
        fn note(&self, what: String) -> Outcome {
            self.0.lock().unwrap().push(what);
            Outcome::Done {
                done: Done::Echo,
                clock: None,
            }
        }
    }

    impl Accounts for Books {
        async fn probe(&self, login: &ServerLogin) -> Result<(ProbeReport, DatabaseClock), Failure> {
            self.note(format!("probe {}", login.host));
            Err(super::bad_task("no such server".to_owned()))
        }
        async fn ensure_group(&self, _: &ServerLogin, group: &Group, _: Duration) -> Result<(), Failure> {
            self.note(format!("ensure {}", group.name));
            Ok(())
        }
        async fn issue(&self, _: &ServerLogin, group: &Group, account: &Account, patience: Duration) -> Outcome {
            self.note(format!("issue {} in {} within {patience:?}", account.role, group.name))
        }
        async fn revoke(
            &self,
            _: &ServerLogin,
            signers: &Signers,
            accounts: &[Revocation],
            keepers: &[Keeper],
        ) -> Outcome {
            let (accounts, keepers) = (accounts.len(), keepers.len());
            self.note(format!("revoke {accounts} of {} for {keepers}", signers.installation()))
        }
        async fn drop_group(&self, _: &ServerLogin, signers: &Signers, group: &Group, keepers: &[Keeper]) -> Outcome {
            let (signers, keepers) = (signers.installation(), keepers.len());
            self.note(format!("drop {} of {signers} for {keepers}", group.name))
        }
        async fn inventory(
            &self,
            _: &ServerLogin,
            after: Option<u32>,
            _: Duration,
        ) -> Result<(InventoryPage, DatabaseClock), Failure> {
            self.note(format!("inventory after {after:?}"));
            Err(super::bad_task("no such server".to_owned()))
        }
        async fn sessions(&self, _: &ServerLogin, role: &str, _: Duration) -> Result<(u64, DatabaseClock), Failure> {
            self.note(format!("sessions of {role}"));
            Err(super::bad_task("no such server".to_owned()))
        }
        async fn end_zombies(&self) -> usize {
            0
        }
        fn guard(&self, login: &ServerLogin, signers: &Signers) {
            self.note(format!("guard {} of {}", login.record, signers.installation()));
        }
        fn forget_except(&self, records: &[String]) {
            self.note(format!("forget all but {records:?}"));
        }
        fn guarded(&self) -> usize {
            0
        }
        async fn revoke_expired(&self) -> Swept {
            Swept::default()
        }
        fn forget_idle(&self, _: Duration) {}
    }

    fn server() -> ServerLogin {
        ServerLogin {
            record: "server-1".to_owned(),
            host: "db.test".to_owned(),
            port: 5432,
            ports: vec![],
            username: "admin".to_owned(),
            password: SecretText::new("hunter2"),
            database: "postgres".to_owned(),
            sslmode: SslMode::Require,
            ca: None,
            client_certificate: None,
            client_key: None,
        }
    }

    fn keeper() -> Keeper {
        Keeper {
            database: "orders".to_owned(),
            name: "dsvk_1".to_owned(),
            comment: String::new(),
        }
    }

    fn revoke(signer: &str, count: usize) -> Task {
        let account = Revocation {
            lease_uid: "uid-1".to_owned(),
            role: "role-1".to_owned(),
            issue_deadline: "2026-11-22T10:00:00Z".parse().unwrap(),
            role_oid: None,
            owned_objects: OwnedObjects::Reassign,
        };
        Task::Revoke {
            server: server(),
            installation: "inst-1".to_owned(),
            signers: vec![signer.to_owned()],
            accounts: vec![account; count],
            keepers: vec![keeper()],
        }
    }

    async fn dispatch(task: Task) -> (Outcome, Vec<String>) {
        let books = Arc::new(Books::default());
        let outcome = Dispatcher::new(books.clone(), EngineMetrics::default())
            .run(task, PATIENCE)
            .await;
        let done = books.0.lock().unwrap().clone();
        (outcome, done)
    }

    #[tokio::test]
    #[allow(clippy::too_many_lines, reason = "one kind after the other")]
    async fn every_kind_of_task_reaches_the_call_that_does_it() {
        let signer = SigningKey::generate().unwrap().public().to_string();
        let group = || Group {
            name: "g1".to_owned(),
            comment: String::new(),
            signers: vec![],
            grants: vec![],
        };
        let drop = Task::DropGroup {
            server: server(),
            installation: "inst-1".to_owned(),
            signers: vec![signer.clone()],
            group: group(),
            keepers: vec![keeper(), keeper()],
        };
        assert_eq!(dispatch(revoke(&signer, 2)).await.1, ["revoke 2 of inst-1 for 1"]);
        assert_eq!(dispatch(drop).await.1, ["drop g1 of inst-1 for 2"]);
        let (outcome, done) = dispatch(Task::EnsureGroup {
            server: server(),
            group: group(),
        })
        .await;
        assert_eq!(done, ["ensure g1"]);
        assert!(matches!(
            outcome,
            Outcome::Done {
                done: Done::GroupReady,
                ..
            }
        ));
        let (outcome, done) = dispatch(Task::Probe { server: server() }).await;
        assert_eq!(done, ["probe db.test"]);
        assert!(matches!(outcome, Outcome::Failed(_)));
        let account = Account {
            lease_uid: "uid-1".to_owned(),
            role: "r1".to_owned(),
            verifier: String::new(),
            comment: String::new(),
            valid_until: "2026-11-22T10:00:00Z".parse().unwrap(),
            issue_deadline: "2026-11-22T10:00:00Z".parse().unwrap(),
            settings: AccountSettings::default(),
        };
        let issue = Task::Issue {
            server: server(),
            group: group(),
            account,
        };
        assert_eq!(dispatch(issue).await.1, ["issue r1 in g1 within 5s"]);
        let inventory = Task::Inventory {
            server: server(),
            after: Some(7),
        };
        assert_eq!(dispatch(inventory).await.1, ["inventory after Some(7)"]);
        let sessions = Task::Sessions {
            server: server(),
            role: "r1".to_owned(),
        };
        assert_eq!(dispatch(sessions).await.1, ["sessions of r1"]);
        let guard = Task::Guard {
            server: server(),
            installation: "inst-1".to_owned(),
            signers: vec![signer.clone()],
        };
        assert_eq!(dispatch(guard).await.1, ["guard server-1 of inst-1"]);
        let forget = Task::Forget {
            except: vec!["server-1".to_owned()],
        };
        assert_eq!(dispatch(forget).await.1, [r#"forget all but ["server-1"]"#]);
        assert!(dispatch(Task::Echo).await.1.is_empty());
        assert_eq!(dispatch(Task::Unknown).await, (Outcome::Unsupported, vec![]));
    }

    #[tokio::test]
    async fn a_malformed_revocation_touches_no_database() {
        let signer = SigningKey::generate().unwrap().public().to_string();
        for task in [revoke("no key", 1), revoke(&signer, 65)] {
            let (outcome, done) = dispatch(task).await;
            assert!(
                matches!(
                    outcome,
                    Outcome::Failed(Failure {
                        class: FailureClass::BadTask,
                        ..
                    })
                ),
                "{outcome:?}"
            );
            assert!(done.is_empty(), "{done:?}");
        }
    }
}
