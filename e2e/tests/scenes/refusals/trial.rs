//! One fault on trial: refused with the right words, nothing made, no storm, mended, issued, gone without a trace.
//!
//! All rows of a table go through each phase together, so that the mending of one is no noise in the quiet of another.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use dsv::api::conditions::{Reason, ReasonKind};
use e2e::postgres::Login;
use e2e::say::say;
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::refusals::kube_client::condition;
use crate::refusals::world::{Mend, PATIENCE, World, within};

/// How long it must stay quiet, and how much may be written about one object in that time: attempts follow after 1 and 2
/// more seconds, each with one status; an Event is written once.
const QUIET: Duration = Duration::from_secs(4);
const QUIET_WRITES: usize = 4;

/// One fault.
pub struct Row {
    /// What is wrong, in the words of a failure.
    pub fault: &'static str,
    /// Name of the DynamicSecret; no other row's name begins with it.
    pub name: &'static str,
    pub namespace: String,
    pub spec: Value,
    pub reason: Reason,
    /// What the message must say: what is wrong and what to do.
    pub says: Vec<String>,
    /// What it must not say.
    pub hides: Vec<String>,
    pub mend: Mend,
    /// Whether the operator can see the mending, so that it need not wait for its next attempt.
    pub seen: bool,
    /// Whether a group role without members may be left while it is refused: its grants are what fails.
    pub group: bool,
    /// A Secret is in the target's place, which must stay as it is.
    pub occupied: bool,
    /// Whether the credential is for the server without TLS.
    pub plain: bool,
}

impl Row {
    pub fn new(world: &World, fault: &'static str, name: &'static str, reason: Reason, says: &[&str]) -> Self {
        let mut spec = world.spec(name);
        spec["target"] = json!({"name": format!("{name}-login")});
        Self {
            fault,
            name,
            namespace: world.databases.to_string(),
            spec,
            reason,
            says: says.iter().map(|text| (*text).to_owned()).collect(),
            hides: Vec::new(),
            mend: Box::new(|_| Box::pin(async {})),
            seen: true,
            group: false,
            occupied: false,
            plain: false,
        }
    }

    /// `mend` is what somebody does about it.
    pub fn mended(
        mut self,
        mend: impl for<'a> Fn(&'a World) -> futures::future::LocalBoxFuture<'a, ()> + 'static,
    ) -> Self {
        self.mend = Box::new(mend);
        self
    }

    /// Mended by SQL, which nobody tells the operator about.
    pub fn mended_in_the_database(mut self, sql: impl Into<String>) -> Self {
        let sql = sql.into();
        self.seen = false;
        self.mended(move |world| {
            let sql = sql.clone();
            Box::pin(async move { world.sql(&sql).await })
        })
    }

    fn twin(&self) -> String {
        format!("twin-{}", self.name)
    }

    fn prefix(&self) -> &str {
        self.spec["userPrefix"].as_str().unwrap_or_default()
    }

    fn target<'a>(&'a self, name: &'a str) -> &'a str {
        self.spec["target"]["name"].as_str().unwrap_or(name)
    }
}

/// Puts all rows on trial.
pub async fn hold(world: &World, rows: Vec<Row>) {
    let mut failures = String::new();
    let mut trials: Vec<Trial<'_>> = rows.into_iter().map(|row| Trial { row, world }).collect();
    for phase in [Phase::Refused, Phase::Quiet, Phase::Left, Phase::Mended, Phase::Gone] {
        let outcomes = join_all(trials.iter().map(|trial| trial.go_through(phase))).await;
        let mut outcomes = outcomes.into_iter();
        trials.retain(|trial| match outcomes.next().unwrap() {
            Ok(()) => true,
            Err(why) => {
                let about = world.log_about(trial.row.name);
                writeln!(
                    failures,
                    "\n{} ({}, {phase:?}): {why}\n  operator:\n{about}",
                    trial.row.fault, trial.row.name
                )
                .unwrap();
                false
            }
        });
    }
    assert!(failures.is_empty(), "{failures}");
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Refused,
    Quiet,
    Left,
    Mended,
    Gone,
}

struct Trial<'a> {
    row: Row,
    world: &'a World,
}

type Outcome = Result<(), String>;

impl Trial<'_> {
    async fn go_through(&self, phase: Phase) -> Outcome {
        match phase {
            Phase::Refused => self.refused().await,
            Phase::Quiet => self.quiet().await,
            Phase::Left => self.left().await,
            Phase::Mended => self.mended().await,
            Phase::Gone => self.gone().await,
        }
    }

    async fn object(&self, name: &str) -> Option<Value> {
        self.world.kube.read("DynamicSecret", &self.row.namespace, name).await
    }

    async fn status(&self) -> String {
        let object = self.object(self.row.name).await.unwrap_or_default();
        object
            .get("status")
            .map_or_else(|| "no status".to_owned(), ToString::to_string)
    }

    /// Two of them: one is to be mended, the twin to be given up.
    async fn refused(&self) -> Outcome {
        for name in [self.row.name.to_owned(), self.row.twin()] {
            let object = json!({
                "apiVersion": "dsv.dev/v1alpha1",
                "kind": "DynamicSecret",
                "metadata": {"name": name, "namespace": self.row.namespace},
                "spec": self.row.spec,
            });
            self.world.kube.put(&object).await;
        }
        for name in [self.row.name.to_owned(), self.row.twin()] {
            let said = within(PATIENCE, async || {
                let object = self.object(&name).await?;
                condition(&object, "Ready").filter(|ready| ready.reason == self.row.reason.as_str())
            });
            if said.await.is_none() {
                return Err(format!(
                    "{name} does not come to reason {}: {}",
                    self.row.reason.as_str(),
                    self.status().await
                ));
            }
        }
        self.says().await
    }

    /// Reason, sentence, and whether somebody has to act.
    async fn says(&self) -> Outcome {
        let object = self.object(self.row.name).await.ok_or("the DynamicSecret is gone")?;
        let ready = condition(&object, "Ready").ok_or("no condition Ready")?;
        if ready.reason != self.row.reason.as_str() || ready.status != "False" {
            return Err(format!(
                "Ready is {} for reason {}: {}",
                ready.status, ready.reason, ready.message
            ));
        }
        for text in &self.row.says {
            if !ready.message.contains(text) {
                return Err(format!("the message does not say `{text}`: {}", ready.message));
            }
        }
        for text in &self.row.hides {
            if ready.message.contains(text) {
                return Err(format!("the message tells `{text}`: {}", ready.message));
            }
        }
        // A hash that only the operator knows says nothing to anybody.
        if ready.message.contains("server-") {
            return Err(format!("the message names a server record: {}", ready.message));
        }
        let stalled = condition(&object, "Stalled").is_some_and(|stalled| stalled.status == "True");
        if stalled != (self.row.reason.kind() == ReasonKind::Refused) {
            return Err(format!("Stalled is {stalled}"));
        }
        if ready.observed_generation != object["metadata"]["generation"].as_i64() {
            return Err(format!(
                "the condition is of generation {:?}",
                ready.observed_generation
            ));
        }
        Ok(())
    }

    /// Neither a Secret nor a lease, nor an account.
    async fn nothing_is_made(&self) -> Outcome {
        let kube = &self.world.kube;
        let target = self.row.target(self.row.name);
        if !self.row.occupied && kube.read("Secret", &self.row.namespace, target).await.is_some() {
            return Err(format!("the Secret {target} was made"));
        }
        let leases = kube.list("CredentialLease", &self.row.namespace).await;
        let ours = leases
            .iter()
            .filter(|lease| lease["spec"]["dynamicSecret"] == self.row.name);
        if let Some(lease) = ours.into_iter().next() {
            return Err(format!("a lease was made: {lease}"));
        }
        let mut roles = self.roles(self.row.name).await;
        if self.row.group {
            roles.retain(|role| !role.starts_with("dsvg_"));
        }
        if roles.is_empty() {
            Ok(())
        } else {
            Err(format!("roles were made: {roles:?}"))
        }
    }

    async fn roles(&self, name: &str) -> Vec<String> {
        let object = self.object(name).await.unwrap_or_default();
        let uid = object["metadata"]["uid"].as_str().unwrap_or("none");
        self.world
            .roles(&self.row.namespace, &format!("{}{name}_", self.row.prefix()), uid)
            .await
    }

    /// The last words of a refusal may come late on a busy machine; a storm of attempts is never over.
    async fn quiet(&self) -> Outcome {
        let mut writes = self.writes_in_a_while().await;
        for _ in 0..2 {
            if writes.len() > QUIET_WRITES {
                writes = self.writes_in_a_while().await;
            }
        }
        if writes.len() > QUIET_WRITES {
            return Err(format!("{} writes in {QUIET:?}: {writes:#?}", writes.len()));
        }
        self.says().await?;
        self.nothing_is_made().await
    }

    async fn writes_in_a_while(&self) -> Vec<String> {
        let before = self.world.writes(&self.row.namespace, self.row.name).len();
        tokio::time::sleep(QUIET).await;
        self.world.writes(&self.row.namespace, self.row.name).split_off(before)
    }

    /// Whoever gives up is not held: there is nothing to take back.
    async fn left(&self) -> Outcome {
        let twin = self.row.twin();
        let roles = self.roles(&twin).await;
        // Grants are given to a role, so where they are incomplete there is one; it must not outlive who asked for it.
        if self.row.reason == Reason::GrantIncomplete && !roles.iter().any(|role| role.starts_with("dsvg_")) {
            return Err(format!("{twin} has no group role, so its end shows nothing"));
        }
        self.world
            .kube
            .delete("DynamicSecret", &self.row.namespace, &twin)
            .await;
        let start = Instant::now();
        let gone = within(PATIENCE, async || self.object(&twin).await.is_none().then_some(())).await;
        if gone.is_none() {
            let object = self.object(&twin).await.unwrap_or_default();
            return Err(format!(
                "{twin} stays {:?} after its deletion: {object}",
                start.elapsed()
            ));
        }
        for role in roles {
            let row = self
                .world
                .admin
                .query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role])
                .await
                .unwrap();
            if row.is_some() {
                return Err(format!("{twin} is gone, but its role {role} is not"));
            }
        }
        Ok(())
    }

    async fn mended(&self) -> Outcome {
        if self.row.seen {
            self.pretend_many_failures().await;
        }
        (self.row.mend)(self.world).await;
        let mended = Instant::now();
        let ready = within(PATIENCE, async || {
            let object = self.object(self.row.name).await?;
            condition(&object, "Ready").filter(|ready| ready.status == "True")
        });
        let Some(ready) = ready.await else {
            return Err(format!(
                "mended, but no credential within {PATIENCE:?}: {}",
                self.status().await
            ));
        };
        let object = self.object(self.row.name).await.ok_or("the DynamicSecret is gone")?;
        say(format!(
            "{}: mended, and served {:.1} s later",
            self.row.fault,
            mended.elapsed().as_secs_f64()
        ));
        if ready.reason != "Issued" || condition(&object, "Stalled").is_some() {
            return Err(format!("Ready, but not as it should be: {}", object["status"]));
        }
        self.log_in(&object).await
    }

    /// As after hours of failing: the next attempt is minutes away, so only being woken can help.
    async fn pretend_many_failures(&self) {
        let object = self.object(self.row.name).await.unwrap_or_default();
        let status = json!({"failures": 12, "lastFailure": Timestamp::now(), "failedGeneration": object["metadata"]["generation"]});
        self.world
            .kube
            .merge_status("DynamicSecret", &self.row.namespace, self.row.name, &status)
            .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    /// The Secret's account works in the Secret's database.
    async fn log_in(&self, object: &Value) -> Outcome {
        let name = object["spec"]["target"]["name"].as_str().unwrap_or(self.row.name);
        let secret = self.world.kube.read("Secret", &self.row.namespace, name).await;
        let secret = secret.ok_or("Ready, but there is no Secret")?;
        let text = |key: &str| {
            let value = secret["data"][key].as_str().unwrap_or_default();
            String::from_utf8(data_encoding::BASE64.decode(value.as_bytes()).unwrap()).unwrap()
        };
        let login = Login {
            user: text("username"),
            password: text("password"),
        };
        let server = if self.row.plain {
            &World::plain().await.0
        } else {
            self.world.stack.postgres()
        };
        let session = server
            .connect_as(&login, &text("database"))
            .await
            .map_err(|error| format!("{error:#}"))?;
        let row = session
            .query_one("SELECT current_user::text", &[])
            .await
            .map_err(|error| error.to_string())?;
        let prefix = format!(
            "{}{}_",
            object["spec"]["userPrefix"].as_str().unwrap_or_default(),
            self.row.name
        );
        if row.get::<_, String>(0).starts_with(&prefix) {
            Ok(())
        } else {
            Err(format!("logged in as {login:?}"))
        }
    }

    /// Deleted: the account at once, everything else when it is proven.
    async fn gone(&self) -> Outcome {
        let object = self.object(self.row.name).await.ok_or("the DynamicSecret is gone")?;
        let uid = object["metadata"]["uid"].as_str().unwrap_or("none").to_owned();
        let prefix = object["spec"]["userPrefix"].as_str().unwrap_or_default().to_owned();
        self.world
            .kube
            .delete("DynamicSecret", &self.row.namespace, self.row.name)
            .await;
        if within(PATIENCE, async || {
            self.object(self.row.name).await.is_none().then_some(())
        })
        .await
        .is_none()
        {
            return Err(format!("still there after its deletion: {}", self.status().await));
        }
        let roles = self
            .world
            .roles(&self.row.namespace, &format!("{prefix}{}_", self.row.name), &uid)
            .await;
        if roles.is_empty() {
            Ok(())
        } else {
            Err(format!("roles are left: {roles:?}"))
        }
    }
}
