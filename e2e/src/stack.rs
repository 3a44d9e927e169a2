//! Everything together: a cluster with the product installed, PostgreSQL, operators, and engines where asked for.

mod namespace;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::cluster::{Cluster, EXTERNAL};
use crate::diagnosis;
use crate::engine::Engine;
use crate::engine_runner::EngineRunner;
use crate::faults::wiring::Wiring;
use crate::install::{self, NAMESPACE};
use crate::objects::{Objects, text};
use crate::operator::{Operator, Outfit};
use crate::postgres::{Login, Major, Options, Server, Tls};
use crate::run_dir::RunDir;
use crate::sample;
use crate::say::say;
pub use namespace::Namespace;

/// The pause between two looks begins here and grows by half each time: what is there soon is seen soon, and what takes long
/// is not asked for all the time, since the looks of many scenarios keep the API server from working.
const FIRST_PAUSE: Duration = Duration::from_millis(40);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
const REGISTRATION_LIMIT: Duration = Duration::from_secs(30);
/// Marks the namespaces that scenarios made.
const LABEL: &str = "dsv.dev/e2e";

/// What a stack consists of.
#[derive(Clone, Debug)]
pub struct Shape {
    pub operators: usize,
    /// Further arguments of every operator.
    pub operator_args: Vec<String>,
    /// Log filter of every operator; without one it is that of `RUST_LOG`.
    pub operator_log: Option<String>,
    pub postgres: Major,
    pub options: Options,
    /// Whether engine Deployments are run as processes.
    pub node: bool,
    /// Whether programs with failpoints are used, with proxies between all of them.
    pub faults: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            operators: 1,
            operator_args: Vec::new(),
            operator_log: None,
            postgres: Major::of_this_machine(),
            options: Options {
                tls: Tls::Offered,
                ..Options::default()
            },
            node: false,
            faults: false,
        }
    }
}

/// A running stack with the sample database `orders` in it.
pub struct Stack {
    // In the order in which they end.
    runner: Option<EngineRunner>,
    operators: Vec<Operator>,
    wiring: Option<Arc<Wiring>>,
    postgres: Server,
    issuer: Login,
    cluster: Cluster,
    run: Arc<RunDir>,
}

/// The runtime of the shared stack. A test's own runtime ends with the test and would take the watches along.
static BACKGROUND: LazyLock<std::io::Result<Runtime>> = LazyLock::new(Runtime::new);
static SHARED: OnceCell<Stack> = OnceCell::const_new();

impl Stack {
    /// One stack for all tests of a test program: one operator, a node, the machine's PostgreSQL.
    pub async fn shared() -> Result<&'static Self> {
        Self::shared_of(1).await
    }

    /// The same with several operators. The first call of a test program decides.
    pub async fn shared_of(operators: usize) -> Result<&'static Self> {
        SHARED
            .get_or_try_init(|| async {
                let runtime = BACKGROUND.as_ref().map_err(|error| anyhow!("no runtime: {error}"))?;
                runtime
                    .spawn(Self::start(Shape {
                        operators,
                        node: true,
                        ..Shape::default()
                    }))
                    .await?
            })
            .await
    }

    /// A stack of its own, in the run folder of this process.
    pub async fn start(shape: Shape) -> Result<Self> {
        Self::start_in(RunDir::of_this_process()?, shape).await
    }

    pub async fn start_in(run: Arc<RunDir>, shape: Shape) -> Result<Self> {
        say(format!("starting Kubernetes and PostgreSQL {}", shape.postgres));
        let (cluster, postgres) = tokio::try_join!(
            Cluster::start(Arc::clone(&run)),
            Server::start_in(Arc::clone(&run), shape.postgres, shape.options.clone()),
        )?;
        let issuer = sample::fill(&postgres).await?;
        say("installing definitions, rights and admission policies");
        install::install(&cluster).await?;
        remove_leftovers(&cluster)?;
        let wiring = if shape.faults {
            Some(Arc::new(Wiring::new(&run, postgres.port()).await?))
        } else {
            None
        };
        let runner = if shape.node {
            let client = cluster.client().await?;
            Some(EngineRunner::start(Arc::clone(&run), client, wiring.clone()))
        } else {
            None
        };
        say(format!("starting {} operator(s)", shape.operators));
        let outfit = Outfit {
            replicas: shape.operators,
            args: &shape.operator_args,
            log: shape.operator_log.as_deref(),
            wiring: wiring.as_deref(),
        };
        let operators = Operator::start_all(&run, &cluster, &outfit).await?;
        Ok(Self {
            runner,
            operators,
            wiring,
            postgres,
            issuer,
            cluster,
            run,
        })
    }

    /// What stands between the programs, where their faults are tested.
    pub fn wiring(&self) -> Option<&Wiring> {
        self.wiring.as_deref()
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub fn postgres(&self) -> &Server {
        &self.postgres
    }

    /// The login in the sample's base secret.
    pub fn issuer(&self) -> &Login {
        &self.issuer
    }

    pub fn operators(&self) -> &[Operator] {
        &self.operators
    }

    /// The replica that holds leadership. It may be dead: nobody else knows that before its time is over.
    pub async fn leader(&self) -> Result<&Operator> {
        let leases = Objects::new(self.client().await?);
        let lease = leases.get("Lease", NAMESPACE, "dsv-operator").await?;
        let holder = text(&lease.context("nobody ever led")?, "/spec/holderIdentity");
        let (name, _) = holder.split_once('_').context("nobody leads")?;
        let leader = self.operators.iter().find(|operator| operator.name() == name);
        leader.with_context(|| format!("{holder} leads, which is none of ours"))
    }

    /// The stand-in for the node, if this stack has one.
    pub fn runner(&self) -> Option<&EngineRunner> {
        self.runner.as_ref()
    }

    pub fn run(&self) -> &Arc<RunDir> {
        &self.run
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.cluster.kubeconfig()
    }

    /// An administrator's client for the calling test; it must not be kept longer than the test's runtime.
    pub async fn client(&self) -> Result<Client> {
        self.cluster.client().await
    }

    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cluster.kubectl(args)
    }

    pub fn apply(&self, manifest: &Value) -> Result<String> {
        self.cluster.apply(&manifest.to_string())
    }

    /// A new namespace `<prefix>-<random>` with further labels, which goes when the answer is dropped.
    pub fn namespace(&self, prefix: &str, labels: &[(&str, &str)]) -> Result<Namespace<'_>> {
        let all = labels.iter().copied().chain([(LABEL, "true")]).collect();
        Namespace::make(&self.cluster, prefix, &all)
    }

    /// Puts the sample's base secret and pool into `namespace`; with `replicas` the operator makes engines for it.
    pub fn sample(&self, namespace: &str, replicas: Option<u32>) -> Result<()> {
        let secret = sample::base_secret(
            namespace,
            sample::BASE_SECRET,
            &self.postgres,
            &self.issuer,
            sample::ORDERS,
        );
        self.cluster
            .apply(&sample::list(&[secret, sample::pool(namespace, replicas)]))?;
        Ok(())
    }

    /// Writes an `Engine`, waits for its registration Secret and starts the program with it, as a user does elsewhere.
    pub async fn engine(&self, namespace: &str, pool: &str, name: &str) -> Result<Engine> {
        self.apply(&json!({
            "apiVersion": "dsv.dev/v1alpha1",
            "kind": "Engine",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"pool": pool},
        }))?;
        let registration = self.registration(namespace, name).await?;
        let name = format!("{namespace}-{name}");
        let engine = Engine::start(&self.run, &name, &registration, self.wiring())?;
        engine.wait_ready().await?;
        Ok(engine)
    }

    /// The environment in the registration Secret of an Engine, once the operator has made it.
    pub async fn registration(&self, namespace: &str, engine: &str) -> Result<BTreeMap<String, String>> {
        let secrets = Api::<Secret>::namespaced(self.client().await?, namespace);
        let name = format!("{engine}-registration");
        let what = format!("the operator makes the Secret {name}");
        let data = self
            .eventually(&what, REGISTRATION_LIMIT, || async {
                Ok(secrets.get_opt(&name).await?.and_then(|secret| secret.data))
            })
            .await?;
        let text = |(key, value): (String, k8s_openapi::ByteString)| Ok((key, String::from_utf8(value.0)?));
        data.into_iter().map(text).collect()
    }

    /// One value of a Secret in the operator's namespace, once it is there.
    pub async fn secret_value(&self, name: &str, key: &str) -> Result<String> {
        let secrets = Api::<Secret>::namespaced(self.client().await?, NAMESPACE);
        let find = || async {
            let data = secrets.get_opt(name).await?.and_then(|secret| secret.data);
            data.and_then(|mut data| data.remove(key))
                .map(|value| Ok(String::from_utf8(value.0)?))
                .transpose()
        };
        self.eventually(&format!("the Secret {name} is there"), REGISTRATION_LIMIT, find)
            .await
    }

    /// Asks again and again until `check` has an answer. `None` and errors both mean "not yet"; after `limit` the error
    /// tells the last of them and shows the objects, the events and the ends of all logs.
    pub async fn eventually<T, F>(&self, what: &str, limit: Duration, mut check: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<Option<T>>>,
    {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let why = match tokio::time::timeout(limit, check()).await {
                Ok(Ok(Some(answer))) => return Ok(answer),
                Ok(Ok(None)) => "it is not so yet".to_owned(),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "the question itself was not answered".to_owned(),
            };
            if start.elapsed() >= limit {
                return Err(anyhow!("{}", self.report(what)))
                    .with_context(|| format!("waited {limit:?} for this: {what}; at last: {why}"));
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(1.5).min(LONGEST_PAUSE);
        }
    }

    /// Ends all of it in good order: leadership is given back, PostgreSQL writes its last checkpoint.
    pub fn shut_down(self) {
        drop(self.runner);
        for operator in &self.operators {
            operator.stop();
        }
        self.postgres.stop();
    }

    /// Objects, events and logs as text, for a failure.
    pub fn report(&self, title: &str) -> String {
        let mut logs: Vec<(String, String)> = self
            .operators
            .iter()
            .map(|operator| (operator.name().to_owned(), operator.log_text()))
            .collect();
        logs.extend(self.runner.iter().flat_map(|runner| runner.log_tails(200)));
        logs.push(("postgres".to_owned(), self.postgres.log_text()));
        diagnosis::report(&self.cluster, title, &logs)
    }
}

/// On a cluster that lives on, the namespaces of killed runs are still there.
fn remove_leftovers(cluster: &Cluster) -> Result<()> {
    if std::env::var_os(EXTERNAL).is_some() {
        cluster.kubectl(&["delete", "namespace", "-l", LABEL, "--ignore-not-found", "--wait=false"])?;
    }
    Ok(())
}
