//! What a test of the `postgres` module works in: a real server per major release, and in it a database, an issuer and a
//! signing key of the test's own, so that tests share nothing but the server.

use dsv::api::names;
use dsv::channel::frames::{
    Account, AccountSettings, AccountState, Done, Failure, GrantText, Group, Keeper, Outcome, OwnedObjects, Revocation,
    ServerLogin, SslMode,
};
use dsv::keys::{Password, RoleComment, RoleKind, SecretText, SigningKey, Verifier};
use dsv::postgres::{Servers, Signers};
use e2e::postgres::{Login, Major, Options, Server, Tls, random_password};
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_postgres::Client;

/// Long enough for a busy machine, short enough to notice a hang.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The installation that signs here.
pub const INSTALLATION: &str = "test/installation";

static SHARED: Mutex<Option<HashMap<Major, Arc<Server>>>> = Mutex::const_new(None);

/// The one server of a release that the tests of this process share. It goes with the process.
pub async fn shared(major: Major) -> Arc<Server> {
    let mut shared = SHARED.lock().await;
    let servers = shared.get_or_insert_default();
    if let Some(server) = servers.get(&major) {
        return Arc::clone(server);
    }
    let settings = vec![
        ("max_prepared_transactions".into(), "20".into()),
        ("autovacuum".into(), "off".into()),
    ];
    let server = Arc::new(
        Server::start(
            major,
            Options {
                tls: Tls::Offered,
                settings,
                ..Options::default()
            },
        )
        .await
        .unwrap(),
    );
    servers.insert(major, Arc::clone(&server));
    server
}

pub struct World {
    pub server: Arc<Server>,
    pub issuer: Login,
    /// Owned by the issuer, and the maintenance database.
    pub database: String,
    pub key: SigningKey,
    pub servers: Servers,
}

impl World {
    /// With a table `orders` of the issuer's, and one `secrets` in the schema `vault` that nobody was granted.
    pub async fn new(major: Major) -> Self {
        Self::on(shared(major).await).await
    }

    pub async fn on(server: Arc<Server>) -> Self {
        let tag = random_password().to_lowercase();
        let (user, database) = (format!("issuer_{tag}"), format!("app_{tag}"));
        let issuer = server.create_issuer(&user, &random_password()).await.unwrap();
        let root = server.connect("postgres").await.unwrap();
        root.batch_execute(&format!("CREATE DATABASE {database} OWNER {user}"))
            .await
            .unwrap();
        let world = Self {
            server,
            issuer,
            database,
            key: SigningKey::generate().unwrap(),
            servers: Servers::new(),
        };
        let owner = world.as_issuer().await;
        owner
            .batch_execute(
                "CREATE SCHEMA shop; CREATE SCHEMA vault; \
                 CREATE TABLE shop.orders (id serial PRIMARY KEY, what text); INSERT INTO shop.orders (what) VALUES ('one'); \
                 CREATE TABLE vault.secrets (id int); INSERT INTO vault.secrets VALUES (1)",
            )
            .await
            .unwrap();
        world
    }

    pub fn login(&self) -> ServerLogin {
        ServerLogin {
            record: "orders-db".into(),
            host: self.server.host().into(),
            port: self.server.port(),
            ports: vec![],
            username: self.issuer.user.clone(),
            password: SecretText::new(self.issuer.password.clone()),
            database: self.database.clone(),
            sslmode: SslMode::Disable,
            ca: None,
            client_certificate: None,
            client_key: None,
        }
    }

    /// What a superuser does who ran `kubectl dsv preflight --install`.
    pub async fn install_functions(&self) {
        let sql = dsv::postgres::install(&self.issuer.user, &self.database).unwrap();
        self.root().await.batch_execute(&sql).await.unwrap();
    }

    pub async fn root(&self) -> Client {
        self.server.connect(&self.database).await.unwrap()
    }

    pub async fn as_issuer(&self) -> Client {
        self.server.connect_as(&self.issuer, &self.database).await.unwrap()
    }

    pub async fn try_as(&self, account: &Account, password: &Password) -> anyhow::Result<Client> {
        self.enter(account, password, &self.database).await
    }

    pub async fn enter(&self, account: &Account, password: &Password, database: &str) -> anyhow::Result<Client> {
        let login = Login {
            user: account.role.clone(),
            password: password.reveal().into(),
        };
        self.server.connect_as(&login, database).await
    }

    pub fn group(&self, pairs: &[(&str, &str)]) -> Group {
        let grants: Vec<GrantText> = pairs
            .iter()
            .map(|(what, place)| {
                let target = if place.matches('.').count() == 2 {
                    (*place).to_owned()
                } else {
                    format!("{}.{place}", self.database)
                };
                GrantText {
                    what: (*what).into(),
                    target,
                }
            })
            .collect();
        let name = format!("dsvg_{}", names::base32_hash(&[&self.database, &format!("{grants:?}")]));
        let comment = self.sign(RoleKind::Group, "8d3f1c7e-0000-4000-8000-000000000001", &name);
        Group {
            name,
            comment,
            signers: vec![self.key.public().to_string()],
            grants,
        }
    }

    pub fn readers(&self) -> Group {
        self.group(&[("SELECT", "shop.orders")])
    }

    pub fn sign(&self, kind: RoleKind, subject: &str, role: &str) -> String {
        let comment = RoleComment {
            kind,
            installation: INSTALLATION.into(),
            subject: subject.into(),
            role: role.into(),
            claimed_at: "2026-11-22T10:00:00Z".parse().unwrap(),
            expires_at: None,
        };
        comment.sign(&self.key).unwrap()
    }

    pub fn account(&self) -> (Account, Password) {
        let lease_uid = uuid::Uuid::new_v4().to_string();
        let role = names::role_name("shop_", "orders-app", &lease_uid).unwrap();
        let password = Password::generate();
        let account = Account {
            comment: self.sign(RoleKind::Lease, &lease_uid, &role),
            verifier: Verifier::of(&password).as_str().to_owned(),
            valid_until: in_seconds(3600),
            issue_deadline: in_seconds(60),
            settings: AccountSettings::default(),
            lease_uid,
            role,
        };
        (account, password)
    }

    /// Many accounts with the verifier of one password.
    pub fn accounts(&self, count: usize) -> (Vec<Account>, Password) {
        let (first, password) = self.account();
        let mut accounts = vec![first];
        while accounts.len() < count {
            let lease_uid = uuid::Uuid::new_v4().to_string();
            let role = names::role_name("shop_", "orders-app", &lease_uid).unwrap();
            let comment = self.sign(RoleKind::Lease, &lease_uid, &role);
            accounts.push(Account {
                lease_uid,
                role,
                comment,
                ..accounts[0].clone()
            });
        }
        (accounts, password)
    }

    pub async fn issue(&self, group: &Group, account: &Account) -> Outcome {
        self.servers.issue(&self.login(), group, account, PATIENCE).await
    }

    /// Issues, and gives the account's OID.
    pub async fn issued(&self, group: &Group, account: &Account) -> u32 {
        match self.issue(group, account).await {
            Outcome::Done {
                done: Done::Issued { role_oid, .. },
                clock: Some(_),
            } => role_oid,
            other => panic!("not issued: {other:?}"),
        }
    }

    pub fn signers(&self) -> Signers {
        Signers::new(INSTALLATION, &[self.key.public()])
    }

    /// As the operator does it: first without keepers, then with those that the engine asks for.
    pub async fn revoke(&self, accounts: &[Revocation]) -> Vec<AccountState> {
        let (states, wanted) = self.revoke_with(accounts, &[]).await;
        if wanted.is_empty() {
            return states;
        }
        let keepers: Vec<Keeper> = wanted.iter().map(|database| self.keeper(database)).collect();
        let (states, wanted) = self.revoke_with(accounts, &keepers).await;
        assert!(wanted.is_empty(), "keepers of {wanted:?} were wanted twice");
        states
    }

    /// One task, and the databases for which it wants keepers.
    pub async fn revoke_with(&self, accounts: &[Revocation], keepers: &[Keeper]) -> (Vec<AccountState>, Vec<String>) {
        let (login, signers) = (self.login(), self.signers());
        match self.servers.revoke(&login, &signers, accounts, keepers).await {
            Outcome::Done {
                done:
                    Done::Revoked {
                        accounts: mut found,
                        keepers_wanted,
                    },
                ..
            } => {
                assert_eq!(found.len(), accounts.len(), "one entry per account");
                let mut states = Vec::new();
                for asked in accounts {
                    let at = found.iter().position(|one| one.lease_uid == asked.lease_uid).unwrap();
                    states.push(found.swap_remove(at).state);
                }
                (states, keepers_wanted)
            }
            other => panic!("not revoked: {other:?}"),
        }
    }

    pub fn keeper(&self, database: &str) -> Keeper {
        // The server is shared by all tests, so a record of its own for each.
        let name = names::keeper_name("test/installation", &self.database, database);
        Keeper {
            database: database.to_owned(),
            comment: self.sign(RoleKind::Keeper, "orders-db", &name),
            name,
        }
    }

    pub async fn revoke_one(&self, account: &Account, role_oid: Option<u32>) -> AccountState {
        self.revoke(&[revocation(account, role_oid)]).await.pop().unwrap()
    }

    /// One more database of the issuer's, with a table `far.away`.
    pub async fn second_database(&self) -> (String, Client) {
        self.further_database("more").await
    }

    /// The same, with another beginning of its name.
    pub async fn further_database(&self, prefix: &str) -> (String, Client) {
        let name = format!("{prefix}_{}", self.database);
        let sql = format!("CREATE DATABASE {} OWNER {}", quoted(&name), self.issuer.user);
        self.root().await.batch_execute(&sql).await.unwrap();
        let client = self.server.connect_as(&self.issuer, &name).await.unwrap();
        let sql = "CREATE SCHEMA far; CREATE TABLE far.away (id int)";
        client.batch_execute(sql).await.unwrap();
        (name, client)
    }

    pub async fn drop_group(&self, group: &Group) -> Outcome {
        let (login, signers) = (self.login(), self.signers());
        let outcome = self.servers.drop_group(&login, &signers, group, &[]).await;
        let Outcome::Done {
            done: Done::GroupNeedsKeepers { databases },
            ..
        } = &outcome
        else {
            return outcome;
        };
        let keepers: Vec<Keeper> = databases.iter().map(|database| self.keeper(database)).collect();
        self.servers.drop_group(&login, &signers, group, &keepers).await
    }

    pub async fn ensure(&self, group: &Group) -> Result<(), Failure> {
        self.servers.ensure_group(&self.login(), group, PATIENCE).await
    }

    pub async fn exists(&self, role: &str) -> bool {
        let root = self.root().await;
        root.query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role])
            .await
            .unwrap()
            .is_some()
    }

    pub async fn comment_of(&self, role: &str) -> Option<String> {
        let root = self.root().await;
        let sql = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1";
        root.query_one(sql, &[&role]).await.unwrap().get(0)
    }

    pub async fn verifier_of(&self, role: &str) -> Option<String> {
        let root = self.root().await;
        root.query_one("SELECT rolpassword FROM pg_authid WHERE rolname = $1", &[&role])
            .await
            .unwrap()
            .get(0)
    }

    pub async fn sessions_of(&self, oid: u32) -> i64 {
        let root = self.root().await;
        root.query_one("SELECT count(*) FROM pg_stat_activity WHERE usesysid = $1", &[&oid])
            .await
            .unwrap()
            .get(0)
    }

    /// The statements that our issuer has sent so far, one entry per round trip.
    pub fn statements(&self) -> Vec<String> {
        let ours = format!(" {}@", self.issuer.user);
        let sent = |line: &&str| {
            line.contains(&ours) && (line.contains("LOG:  statement: ") || line.contains("LOG:  execute "))
        };
        self.server.log_text().lines().filter(sent).map(str::to_owned).collect()
    }
}

/// A name as SQL and as a part of a grant.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Runs the answer's own SQL where it says, statement by statement, as an administrator would.
pub async fn free(world: &World, state: AccountState) {
    let AccountState::Blocked { sql: Some(sql), .. } = state else {
        panic!("{state:?}");
    };
    for part in sql.split("/* in database ").filter(|part| !part.is_empty()) {
        let (database, statements) = part.split_once(" */ ").unwrap();
        let there = world.server.connect(database).await.unwrap();
        for statement in statements.split_inclusive("; ") {
            let ran = there.batch_execute(statement).await;
            ran.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
    }
}

pub fn revocation(account: &Account, role_oid: Option<u32>) -> Revocation {
    Revocation {
        lease_uid: account.lease_uid.clone(),
        role: account.role.clone(),
        issue_deadline: account.issue_deadline,
        role_oid,
        owned_objects: OwnedObjects::Reassign,
    }
}

/// Dropped by this attempt; its issue deadline is still ahead.
pub const DROPPED: AccountState = AccountState::Gone {
    proven: false,
    dropped: true,
};

pub fn in_seconds(seconds: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(seconds)
}

pub fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("did not fail: {other:?}"),
    }
}

/// Defines a test for each release that differs: 15, 16 (memberships with options) and 18 (starting backends are listed).
#[macro_export]
macro_rules! on_each_release {
    ($($name:ident)+) => { $(
        mod $name {
            #[tokio::test]
            async fn on_15() {
                super::$name(e2e::postgres::Major::V15).await;
            }
            #[tokio::test]
            async fn on_16() {
                super::$name(e2e::postgres::Major::V16).await;
            }
            #[tokio::test]
            async fn on_18() {
                super::$name(e2e::postgres::Major::V18).await;
            }
        }
    )+ };
}

/// The same with 17, for what depends on the server's own bookkeeping of who owns and may do what.
#[macro_export]
macro_rules! on_every_release {
    ($($name:ident)+) => {
        $crate::on_each_release! { $($name)+ }
        mod on_17 { $(
            #[tokio::test]
            async fn $name() {
                super::$name(e2e::postgres::Major::V17).await;
            }
        )+ }
    };
}
