//! What most scenarios begin with: two namespaces, a pool beside a base secret, and dynamic secrets that use both.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use crate::books::Books;
use crate::objects::{Objects, condition, number, text};
use crate::postgres::{Login, Major, Options, Server, Tls};
use crate::sample;
use crate::stack::{Namespace, Stack};
use crate::suite::BESIDE;

/// How long things may take that have no promise of their own.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A team with its namespace, its databases and their pool.
pub struct Scene<'a> {
    pub stack: &'a Stack,
    pub objects: Objects,
    /// Where base secret and pool lie.
    pub databases: Namespace<'a>,
    /// Where dynamic secrets lie; labelled `team=shop`, as the pool's access entry asks.
    pub shop: Namespace<'a>,
    /// In front of all account names of this scene: other scenes may use the same server.
    pub prefix: String,
    administrator: Client,
    issuer: Login,
    /// Unless it is the stack's.
    own: Option<Server>,
}

/// A delivered credential, as its Secret holds it.
#[derive(Clone, Debug)]
pub struct Credential {
    pub login: Login,
    pub serial: i64,
    /// Name and UID of the lease.
    pub lease: String,
    pub lease_uid: String,
    pub expires_at: Timestamp,
    /// The Secret's own UID and version.
    pub uid: String,
    pub version: String,
    /// The Secret itself; its values are base64.
    pub secret: Value,
}

impl Credential {
    fn read(secret: Value) -> Result<Self> {
        let note = |name: &str| text(&secret, &format!("/metadata/annotations/dsv.dev~1{name}"));
        Ok(Self {
            login: Login {
                user: value(&secret, "username")?,
                password: value(&secret, "password")?,
            },
            serial: note("revision").parse().context("the Secret has no serial")?,
            lease: note("lease-name"),
            lease_uid: note("lease-uid"),
            expires_at: note("expires-at").parse().context("the Secret says no end")?,
            uid: text(&secret, "/metadata/uid"),
            version: text(&secret, "/metadata/resourceVersion"),
            secret,
        })
    }

    /// One key of the Secret, decoded.
    pub fn value(&self, key: &str) -> Result<String> {
        value(&self.secret, key)
    }
}

fn value(secret: &Value, key: &str) -> Result<String> {
    let encoded = secret
        .pointer("/data")
        .and_then(|data| data.get(key))
        .and_then(Value::as_str);
    let encoded = encoded.with_context(|| format!("the Secret lacks the key {key}"))?;
    Ok(String::from_utf8(data_encoding::BASE64.decode(encoded.as_bytes())?)?)
}

impl<'a> Scene<'a> {
    /// On the stack's own server, with `replicas` managed engines; none means: only remote engines.
    pub async fn open(stack: &'a Stack, replicas: Option<u32>) -> Result<Self> {
        Self::set(stack, None, stack.issuer().clone(), replicas).await
    }

    /// On a server of its own, so that everything on it can be compared before and after.
    pub async fn open_alone(stack: &'a Stack, major: Major, replicas: Option<u32>) -> Result<Self> {
        let options = Options {
            tls: Tls::Offered,
            settings: vec![("max_prepared_transactions".into(), "10".into())],
            ..Options::default()
        };
        let server = Server::start_in(stack.run().clone(), major, options).await?;
        let issuer = sample::fill(&server).await?;
        Self::set(stack, Some(server), issuer, replicas).await
    }

    async fn set(stack: &'a Stack, own: Option<Server>, issuer: Login, replicas: Option<u32>) -> Result<Self> {
        let server = own.as_ref().unwrap_or(stack.postgres());
        let scene = Self {
            stack,
            objects: Objects::new(stack.client().await?),
            databases: stack.namespace("databases", &[])?,
            shop: stack.namespace("shop", &[("team", "shop")])?,
            prefix: format!("s{:08x}_", rand::random::<u32>()),
            administrator: server.connect("postgres").await?,
            issuer,
            own,
        };
        let base = scene.base_secret(sample::BASE_SECRET);
        scene.objects.create(&base).await?;
        let mut pool = sample::pool(&scene.databases, replicas);
        merge(&mut pool, &json!({"spec": {"access": [scene.access()]}}));
        scene.objects.create(&pool).await?;
        if let Some(replicas) = replicas.filter(|replicas| *replicas > 0) {
            scene.wait_connected(i64::from(replicas)).await?;
        }
        Ok(scene)
    }

    /// The entry by which the pool admits the shop.
    pub fn access(&self) -> Value {
        json!({
            "namespaceSelector": {"matchLabels": {"team": "shop"}},
            "linkedSecrets": [sample::BASE_SECRET],
            "grants": [{"what": "SELECT, INSERT, UPDATE, DELETE", "where": "orders.public.*"}],
            "userPrefixes": [self.prefix],
        })
    }

    /// A base secret of the scene's server, not written yet.
    pub fn base_secret(&self, name: &str) -> Value {
        let mut base = sample::base_secret(&self.databases, name, self.server(), &self.issuer, sample::ORDERS);
        if let (Some(wiring), None) = (self.stack.wiring(), &self.own) {
            let port = wiring.database().address().port().to_string();
            merge(&mut base, &json!({"stringData": {"port": port}}));
        }
        base
    }

    pub fn server(&self) -> &Server {
        self.own.as_ref().unwrap_or(self.stack.postgres())
    }

    /// The login in the base secret.
    pub fn issuer(&self) -> &Login {
        &self.issuer
    }

    /// A session of the database's superuser.
    pub fn administrator(&self) -> &Client {
        &self.administrator
    }

    pub async fn books(&self) -> Result<Books> {
        Books::read(self.server()).await
    }

    /// Waits until that many engines are connected and one of them has found the server ready.
    pub async fn wait_connected(&self, engines: i64) -> Result<()> {
        let what = format!(
            "{engines} engines of {} are connected and the server is ready",
            &*self.databases
        );
        let check = || async {
            let pool = self.objects.get("EnginePool", &self.databases, sample::ORDERS).await?;
            let pool = pool.context("there is no pool")?;
            let ready = pool.pointer("/status/servers/0/ready").and_then(Value::as_bool) == Some(true);
            ensure!(
                ready && number(&pool, "/status/connectedEngines") == engines,
                "the pool says {}",
                pool.get("status").unwrap_or(&Value::Null)
            );
            Ok(Some(()))
        };
        self.stack.eventually(&what, PATIENCE, check).await
    }

    /// A dynamic secret that selects from `orders` for ten seconds; `spec` changes that as a JSON merge patch does.
    pub fn dynamic_secret(&self, namespace: &str, name: &str, spec: &Value) -> Value {
        let mut whole = json!({
            "pool": {"name": sample::ORDERS, "namespace": &*self.databases},
            "linkConfig": {"linkType": "dynamic", "linkedSecret": sample::BASE_SECRET},
            "grantPermissions": {"what": "SELECT", "where": "public.orders"},
            "userPrefix": self.prefix,
            "ttl": 10,
        });
        merge(&mut whole, spec);
        json!({
            "apiVersion": "dsv.dev/v1alpha1",
            "kind": "DynamicSecret",
            "metadata": {"name": name, "namespace": namespace},
            "spec": whole,
        })
    }

    /// Writes such a dynamic secret into the shop's namespace.
    pub async fn ask(&self, name: &str, spec: &Value) -> Result<Value> {
        self.objects.create(&self.dynamic_secret(&self.shop, name, spec)).await
    }

    /// Changes the spec of a dynamic secret of the shop.
    pub async fn change(&self, name: &str, spec: &Value) -> Result<Value> {
        self.objects
            .merge("DynamicSecret", &self.shop, name, &json!({"spec": spec}))
            .await
    }

    /// Asks for another credential, as a person does.
    pub async fn rotate(&self, name: &str, value: &str) -> Result<Value> {
        let patch = json!({"metadata": {"annotations": {"dsv.dev/rotate-at": value}}});
        self.objects.merge("DynamicSecret", &self.shop, name, &patch).await
    }

    /// Writes a lease as a user does; `spec` holds `verifier` or `target`.
    pub async fn lease(&self, dynamic_secret: &str, name: &str, spec: &Value) -> Result<Value> {
        let mut whole = json!({"dynamicSecret": dynamic_secret});
        merge(&mut whole, spec);
        let lease = json!({
            "apiVersion": "dsv.dev/v1alpha1",
            "kind": "CredentialLease",
            "metadata": {"name": name, "namespace": &*self.shop},
            "spec": whole,
        });
        self.objects.create(&lease).await
    }

    /// The dynamic secret as it is now; null where there is none.
    pub async fn seen(&self, name: &str) -> Result<Value> {
        let found = self.objects.get("DynamicSecret", &self.shop, name).await?;
        Ok(found.unwrap_or_default())
    }

    /// All leases of the shop.
    pub async fn leases(&self) -> Result<Vec<Value>> {
        self.objects.list("CredentialLease", &self.shop).await
    }

    /// What the Secret holds now.
    pub async fn credential(&self, secret: &str) -> Result<Option<Credential>> {
        self.credential_in(&self.shop, secret).await
    }

    pub async fn credential_in(&self, namespace: &str, secret: &str) -> Result<Option<Credential>> {
        let found = self.objects.get("Secret", namespace, secret).await?;
        found.map(Credential::read).transpose()
    }

    /// What the Secret holds as soon as its serial is at least `serial`.
    pub async fn wait_serial(&self, secret: &str, serial: i64) -> Result<Credential> {
        let what = format!("the Secret {secret} holds serial {serial}");
        let check = || async { Ok(self.credential(secret).await?.filter(|found| found.serial >= serial)) };
        self.stack.eventually(&what, PATIENCE, check).await
    }

    /// The same for a lease that somebody asked for: those have no serials.
    pub async fn wait_credential_of_lease(&self, secret: &str) -> Result<Credential> {
        self.wait_serial(secret, 0).await
    }

    pub async fn wait_credential(&self, secret: &str) -> Result<Credential> {
        self.wait_serial(secret, 1).await
    }

    /// Waits until the dynamic secret's `Ready` condition is as `True/Issued`.
    pub async fn wait_ready(&self, name: &str, ready: &str) -> Result<Value> {
        self.wait_condition("DynamicSecret", &self.shop, name, ready).await
    }

    pub async fn wait_condition(&self, kind: &str, namespace: &str, name: &str, ready: &str) -> Result<Value> {
        let check = || async {
            let found = self.objects.get(kind, namespace, name).await?;
            let found = found.context("there is no such object")?;
            let now = condition(&found, "Ready");
            ensure!(now == ready, "it is {now}");
            Ok(Some(found))
        };
        let what = format!("{kind} {name} becomes {ready}");
        self.stack.eventually(&what, PATIENCE, check).await
    }

    pub async fn wait_absent(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let what = format!("{kind} {namespace}/{name} is gone");
        let check = || async { Ok(self.objects.get(kind, namespace, name).await?.is_none().then_some(())) };
        self.stack.eventually(&what, PATIENCE, check).await
    }

    /// Waits until the database has none of these roles.
    pub async fn wait_no_role(&self, user: &str) -> Result<()> {
        let what = format!("the role {user} is gone");
        let check = || async { Ok((!self.has_role(user).await?).then_some(())) };
        self.stack.eventually(&what, PATIENCE, check).await
    }

    /// Fails unless the role is gone `within` that time.
    pub async fn role_goes(&self, user: &str, within: Duration) -> Result<()> {
        let what = format!("the role {user} is gone within {within:?}");
        let check = || async { Ok((!self.has_role(user).await?).then_some(())) };
        self.stack.eventually(&what, within, check).await
    }

    pub async fn has_role(&self, user: &str) -> Result<bool> {
        let query = "SELECT 1 FROM pg_roles WHERE rolname = $1";
        Ok(!self.asked(query, &[&user]).await?.is_empty())
    }

    /// All accounts of a dynamic secret of this scene.
    pub async fn accounts(&self, name: &str) -> Result<Vec<String>> {
        self.accounts_beginning(&format!("{}{name}_", self.prefix)).await
    }

    /// All accounts of this scene.
    pub async fn all_accounts(&self) -> Result<Vec<String>> {
        self.accounts_beginning(&self.prefix).await
    }

    /// What the administrator sees. A server that was started anew meanwhile has ended his session.
    async fn asked(&self, query: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        if self.administrator.is_closed() {
            return Ok(self.server().connect("postgres").await?.query(query, values).await?);
        }
        Ok(self.administrator.query(query, values).await?)
    }

    async fn accounts_beginning(&self, beginning: &str) -> Result<Vec<String>> {
        let query = "SELECT rolname::text FROM pg_roles WHERE rolcanlogin AND starts_with(rolname, $1) ORDER BY 1";
        let rows = self.asked(query, &[&beginning]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    pub async fn sessions(&self, user: &str) -> Result<i64> {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
        Ok(self.administrator.query_one(query, &[&user]).await?.get(0))
    }

    /// A session of an issued account.
    pub async fn log_in(&self, login: &Login) -> Result<Client> {
        let client = self.server().connect_as(login, sample::ORDERS).await;
        client.with_context(|| format!("{} cannot log in", login.user))
    }

    /// Fails unless an open session dies within this time: a role is dropped first, and its sessions are ended after.
    pub async fn session_dies(&self, session: &Client, within: Duration) -> Result<()> {
        let dead = || async { Ok(session.simple_query("SELECT 1").await.is_err().then_some(())) };
        self.stack
            .eventually("the open session of an account that is gone is dead", within, dead)
            .await
    }

    /// Fails unless the account can log in and read what it was granted.
    pub async fn use_account(&self, login: &Login) -> Result<Client> {
        let client = self.log_in(login).await?;
        let rows = client.query("SELECT item FROM public.orders", &[]).await;
        ensure!(
            !rows.with_context(|| format!("{} cannot read", login.user))?.is_empty(),
            "{} reads nothing",
            login.user
        );
        Ok(client)
    }

    /// Fails if `after` past the end of the credential anything of it is still there.
    pub async fn ended(&self, secret: &str, credential: &Credential, after: Duration) -> Result<()> {
        let user = &credential.login.user;
        sleep_until(credential.expires_at, Duration::from_secs(1)).await;
        let nothing = || async { Ok(self.left(secret, credential).await?.is_empty().then_some(())) };
        let late = Timestamp::now().duration_since(credential.expires_at);
        let rest = after.saturating_sub(Duration::try_from(late).unwrap_or_default());
        let what = format!("nothing of {user} is left {after:?} after its end");
        match self.stack.eventually(&what, rest, nothing).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let left = self.left(secret, credential).await?.join(" and ");
                Err(error.context(format!("there is still {left} of {user} {after:?} after its end")))
            }
        }
    }

    /// What there still is of a credential.
    async fn left(&self, secret: &str, credential: &Credential) -> Result<Vec<&'static str>> {
        let user = &credential.login.user;
        let left = [
            ("the role", self.has_role(user).await?),
            ("a session", self.sessions(user).await? > 0),
            (
                "the Secret",
                self.credential(secret)
                    .await?
                    .is_some_and(|now| now.lease_uid == credential.lease_uid),
            ),
        ];
        Ok(left
            .into_iter()
            .filter_map(|(what, there)| there.then_some(what))
            .collect())
    }
}

/// How long after its end, or after whatever ended it, something may still be seen. The promise is two seconds; beside other
/// programs a machine may not have them, and what failed there is tried again alone.
pub fn grace() -> Duration {
    Duration::from_secs(if std::env::var_os(BESIDE).is_some() { 10 } else { 2 })
}

/// Sleeps until `after` past a time of the operator's clock, which is ours.
pub async fn sleep_until(time: Timestamp, after: Duration) {
    let then = time.saturating_add(after).unwrap_or(time);
    let left = then.duration_since(Timestamp::now()).max(SignedDuration::ZERO);
    tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
}

/// JSON merge patch (RFC 7386).
pub fn merge(whole: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *whole = patch.clone();
        return;
    };
    if !whole.is_object() {
        *whole = json!({});
    }
    let Some(fields) = whole.as_object_mut() else { return };
    for (name, change) in patch {
        if change.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}
