//! An empty cluster, a PostgreSQL server, and a shell in which the README's blocks are run as they stand there.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::control_plane::ControlPlane;
use e2e::engine_runner::EngineRunner;
use e2e::postgres::{Login, Major, Options, Server, Tls, random_password};
use e2e::process::{Process, Spec};
use e2e::run_dir::RunDir;
use e2e::service::Service;
use e2e::{health, places, ports, sample};
use serde_json::Value;

use super::tenant;
use super::text::{block, page};

const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Everything that a reader of the README has, and nothing of the product in the cluster yet.
pub struct World {
    plane: ControlPlane,
    postgres: Server,
    issuer: Login,
    dir: PathBuf,
    channel: SocketAddr,
    operator_health: SocketAddr,
    engine_health: SocketAddr,
    /// Of the REST API, which is the tutorial's DSV tenant.
    api: SocketAddr,
    readme: String,
    // Last: the folder goes after those who work in it.
    run: Arc<RunDir>,
}

fn loopback() -> Result<SocketAddr> {
    Ok(SocketAddr::from(([127, 0, 0, 1], ports::free()?)))
}

/// The sample database with the login that the guide describes, hardened as it advises. The harness' own issuer has more
/// rights and is not used.
async fn issuer(postgres: &Server) -> Result<Login> {
    sample::fill(postgres).await?;
    let login = Login {
        user: "guide_issuer".to_owned(),
        password: random_password(),
    };
    let guide = page("docs/guide.md");
    let administrator = postgres.connect(sample::ORDERS).await?;
    for name in ["issuer", "hardening"] {
        let sql = block(&guide, name)?
            .replace("dsv_issuer", &login.user)
            .replace("'...'", &format!("'{}'", login.password));
        administrator
            .batch_execute(&sql)
            .await
            .with_context(|| format!("the block {name} of docs/guide.md"))?;
    }
    Ok(login)
}

impl World {
    pub async fn start() -> Result<Self> {
        let run = RunDir::of_this_process()?;
        let options = Options {
            tls: Tls::Offered,
            ..Options::default()
        };
        let (plane, postgres) = tokio::try_join!(
            ControlPlane::start_in(Arc::clone(&run)),
            Server::start_in(Arc::clone(&run), Major::of_this_machine(), options),
        )?;
        let issuer = issuer(&postgres).await?;
        let dir = run.subfolder("reader")?;
        for folder in ["crds", "config", "charts"] {
            symlink(places::workspace().join(folder), dir.join(folder))?;
        }
        Ok(Self {
            plane,
            postgres,
            issuer,
            dir,
            channel: loopback()?,
            operator_health: loopback()?,
            engine_health: loopback()?,
            api: loopback()?,
            readme: page("README.md"),
            run,
        })
    }

    /// Runs a block of the README; the answer is what it printed.
    pub fn run(&self, name: &str) -> Result<String> {
        self.bash(name, &self.block(name)?)
    }

    /// A kubeconfig with which a ServiceAccount is acted as.
    pub fn act_as(&self, namespace: &str, account: &str) -> PathBuf {
        let file = self.dir.join(format!("{namespace}-{account}.kubeconfig"));
        let script = format!(
            "kubectl config view --raw --minify --flatten > {file}
             kubectl config --kubeconfig {file} unset users
             kubectl config --kubeconfig {file} set-credentials {account} --token=\"$(kubectl -n {namespace} create token {account})\"
             kubectl config --kubeconfig {file} set-context --current --user={account}",
            file = file.display()
        );
        self.bash("act-as", &script).unwrap();
        file
    }

    /// A block with the README's example names replaced by those of this world.
    fn block(&self, name: &str) -> Result<String> {
        Ok(self.fill_in(&block(&self.readme, name)?))
    }

    /// A text with the example names of the pages replaced by those of this world.
    pub fn fill_in(&self, text: &str) -> String {
        text.replace("operator.example.com:8443", &self.channel.to_string())
            .replace("db.example.com", self.postgres.host())
            .replace("port=5432", &format!("port={}", self.postgres.port()))
            .replace("dsv_issuer", &self.issuer.user)
            .replace("change-me", &self.issuer.password)
    }

    /// The other way round: what a program printed, with the names that the pages have.
    pub fn as_on_the_pages(&self, text: &str) -> String {
        let address = format!("{}:{}", self.postgres.host(), self.postgres.port());
        text.replace(&self.api.to_string(), "dsv.example.com")
            .replace(&address, "db.example.com:5432")
            .replace(self.postgres.host(), "db.example.com")
            .replace(&self.postgres.port().to_string(), "5432")
            .replace(&self.issuer.user, "dsv_issuer")
    }

    /// Stands in for the kubelet: there is no node, so the engines' Deployments are run as processes. Until it is dropped.
    pub async fn run_engines(&self) -> Result<EngineRunner> {
        Ok(EngineRunner::start(
            Arc::clone(&self.run),
            self.plane.client().await?,
            None,
        ))
    }

    fn spec(&self, name: &str, script: &str) -> Result<Spec> {
        let kubectl = self.plane.kubectl();
        let folders = [Some(places::bin_dir()?), kubectl.parent().map(Into::into)];
        let mut path = std::env::join_paths(folders.into_iter().flatten())?
            .into_string()
            .unwrap_or_default();
        path.push_str(":/usr/local/bin:/usr/bin:/bin");
        // Not the administrator's own file: a block may write where KUBECONFIG points.
        let number = rand::random::<u32>();
        Ok(Spec::new(&format!("{name}-{number:08x}"), "bash", &self.dir)
            .args(["-euo", "pipefail", "-c", script])
            .env("PATH", path)
            .env("HOME", self.dir.to_string_lossy())
            .env("KUBECONFIG", self.plane.kubeconfig().to_string_lossy())
            .env("DSV_CHANNEL_ADDR", self.channel.to_string())
            .env("RUST_LOG", "info,dsv=debug"))
    }

    /// Runs a script to its end; the answer is what it printed.
    pub fn bash(&self, name: &str, script: &str) -> Result<String> {
        let spec = self.spec(name, script)?;
        Process::run(&spec).with_context(|| format!("the script:\n{script}"))?;
        Ok(std::fs::read_to_string(&spec.log)?)
    }

    /// What a script prints to standard output, as JSON.
    pub fn json(&self, script: &str) -> Value {
        let text = self.bash("json", &format!("{script} 2>/dev/null")).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{script}: {error}:\n{text}"))
    }

    /// Starts a script that does not end.
    pub fn service(&self, name: &str, script: &str) -> Result<Service> {
        let service = Service::new(self.spec(name, script)?);
        service.launch()?;
        Ok(service)
    }

    /// Starts the README's operator and waits until it is ready.
    pub async fn operator(&self, name: &str) -> Result<Service> {
        let script = format!("exec env {}", self.block(name)?);
        self.bash("tenant", &format!("kubectl create namespace {}", tenant::NAMESPACE))?;
        let spec = self
            .spec(name, &script)?
            .env("DSV_HEALTH_ADDR", self.operator_health.to_string())
            .env("DSV_API_ADDR", self.api.to_string())
            .env("DSV_API_TENANT", tenant::NAMESPACE)
            .env("DSV_SYNC_ALLOW_DESTINATIONS", "127.0.0.0/8");
        let operator = Service::new(spec);
        operator.launch()?;
        health::wait_ready(&operator, self.operator_health, LIMIT).await?;
        Ok(operator)
    }

    /// Starts the README's engine; the next block waits for what it does.
    pub fn engine(&self, name: &str) -> Result<Service> {
        let script = format!("exec env {}", self.block(name)?);
        let spec = self
            .spec(name, &script)?
            .env("DSV_HEALTH_ADDR", self.engine_health.to_string());
        let engine = Service::new(spec);
        engine.launch()?;
        Ok(engine)
    }

    pub async fn operator_metrics(&self) -> Result<String> {
        Ok(health::get(self.operator_health, "/metrics").await?.1)
    }

    pub async fn engine_metrics(&self) -> Result<String> {
        Ok(health::get(self.engine_health, "/metrics").await?.1)
    }

    /// Where the operator serves its REST API.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// The database's port, as text.
    pub fn port(&self) -> String {
        self.postgres.port().to_string()
    }

    fn key_of(&self, namespace: &str, secret: &str, key: &str) -> String {
        let script = format!("kubectl -n {namespace} get secret {secret} -o jsonpath='{{.data.{key}}}' | base64 -d");
        self.bash("key", &script).unwrap()
    }

    /// The account in a credential Secret.
    pub fn user_of(&self, secret: &str) -> String {
        self.key_of("shop", secret, "username")
    }

    /// Uses the credential in a Secret.
    pub async fn log_in_with(&self, secret: &str) -> Result<()> {
        self.log_in_as("shop", secret).await
    }

    /// Uses the credential in a Secret of this namespace.
    pub async fn log_in_as(&self, namespace: &str, secret: &str) -> Result<()> {
        let value = |key: &str| self.key_of(namespace, secret, key);
        self.log_in(&value("username"), &value("password")).await
    }

    /// Logs in and reads what every sample grants.
    pub async fn log_in(&self, user: &str, password: &str) -> Result<()> {
        let login = Login {
            user: user.to_owned(),
            password: password.to_owned(),
        };
        let session = self.postgres.connect_as(&login, sample::ORDERS).await?;
        let rows = session.query("SELECT item FROM public.orders", &[]).await?;
        if rows.is_empty() {
            bail!("{user} reads an empty table");
        }
        Ok(())
    }

    /// Runs SQL as the database's administrator.
    pub async fn administer(&self, sql: &str) -> Result<()> {
        let session = self.postgres.connect(sample::ORDERS).await?;
        session.batch_execute(sql).await.with_context(|| sql.to_owned())
    }

    /// Waits until a role is dropped.
    pub async fn until_role_is_gone(&self, user: &str) -> Result<()> {
        let session = self.postgres.connect("postgres").await?;
        let start = Instant::now();
        loop {
            let rows = session
                .query("SELECT FROM pg_roles WHERE rolname = $1", &[&user])
                .await?;
            if rows.is_empty() {
                return Ok(());
            }
            if start.elapsed() > LIMIT {
                bail!("role {user} is still there after {LIMIT:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks again and again until there is an answer.
    pub async fn eventually<T>(&self, what: &str, check: impl Fn() -> Option<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(answer) = check() {
                return Ok(answer);
            }
            if start.elapsed() > LIMIT {
                bail!("waited {LIMIT:?} for this: {what}");
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
